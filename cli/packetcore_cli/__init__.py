"""The `packetcore` command: serve, send, encode and decode packets from a shell."""

__version__ = "0.1.0"

__all__: list[str] = []
