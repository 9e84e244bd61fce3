"""One suite that holds every packetcore adapter to the same behaviour.

    pytest --pyargs packetcore_conformance --transport asyncio
    pytest --pyargs packetcore_conformance --transport all

Each `test_*.py` is a group of cases and a row of the table that closes a run. The peers in
the cases are raw sockets, so that a case controls the very bytes, where they are cut, and
how a connection ends. `strategies` has hypothesis strategies for your own tests.
"""

__version__ = "0.1.0"
