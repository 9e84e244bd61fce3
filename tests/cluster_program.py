"""A worker of a cluster as a program of its own, on a runtime that is not asyncio: how it ends, a test sees.

    python -m tests.cluster_program RUNTIME END URL

It says `ready` once it has entered, and then ends as told: `interrupted` while it waits for a reply, `forgotten` with
no word to the cluster, `forked` into a child that uses what its parent has entered.
"""

from __future__ import annotations

import os
import sys
from typing import Any

RUNTIME, END, URL = sys.argv[1:]
if RUNTIME == "patched":
    from gevent.monkey import patch_all

    patch_all()

from packetcore import LocalProtocolError, Packet  # noqa: E402


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def child(cluster: Any) -> None:
    for method in (cluster.send, cluster.request):
        try:
            method("meter 7", Packet(1))
        except LocalProtocolError as error:
            say(error)


def sync() -> None:
    if RUNTIME == "blocking":
        from packetcore_cluster.blocking import Cluster
    else:
        from packetcore_cluster.gevent import Cluster  # type: ignore[assignment]
    cluster = Cluster(URL, "programs", worker="program")
    if END == "interrupted":
        with cluster:
            say("ready")
            cluster.request("silent", Packet(2))  # until it is interrupted
    cluster.start()
    say("ready")
    if END == "forked" and (pid := os.fork()) == 0:
        child(cluster)
        return
    if END == "forked":
        say(os.waitpid(pid, 0)[1])


def deferred() -> None:
    from twisted.internet import reactor
    from twisted.internet.defer import ensureDeferred

    from packetcore_cluster.twisted import Cluster

    untyped: Any = reactor

    async def main() -> None:
        cluster = Cluster(URL, "programs", worker="program")
        await cluster.start()
        say("ready")
        if END == "forgotten":
            untyped.stop()

    untyped.callWhenRunning(lambda: ensureDeferred(main()))
    untyped.run()


if __name__ == "__main__":
    deferred() if RUNTIME == "twisted" else sync()
