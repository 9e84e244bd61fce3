"""Starts a broker, two gateways, devices and the web service, and ends all of them at Ctrl-C.

python -m fleet
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

from packetcore_cluster.local import LocalBroker

PACKAGE = __package__ or "fleet"
FOLDER = Path(__file__).resolve().parents[PACKAGE.count(".") + 1]
"""Where Python finds it."""

START = 20.0
"""Seconds that a process has until it listens."""

END = 5.0
"""Seconds that one has for its end, before it is killed."""

AWAY = 8.0
"""Seconds for which a gateway that died stays away: long enough to see what becomes of its devices."""


class Process:
    """One of the programs of this folder. It ends when its standard input does, so that none outlives this one.

    Args:
        program: which.
        arguments: of its command line.
    """

    def __init__(self, program: str, *arguments: object) -> None:
        command = [sys.executable, "-m", f"{PACKAGE}.{program}", *map(str, arguments)]
        self._popen = subprocess.Popen(
            command,
            cwd=FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process alone, which ends them in their order
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def port(self) -> int:
        """Wait until it has said on which port it listens.

        Raises:
            SystemExit: it has ended, and has said why.
        """
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise SystemExit(1)
        return int(line)

    def has_ended(self) -> str | None:
        """How, if it has."""
        code = self._popen.poll()
        if code is None:
            return None
        return f"exit status {code}" if code >= 0 else signal.Signals(-code).name

    def end(self) -> None:
        """Have it end, and wait for that."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        try:
            self._popen.stdin.close()
            with suppress(subprocess.TimeoutExpired):  # it hangs
                self._popen.wait(END)
        finally:  # at a second Ctrl-C too
            self._popen.kill()
            self._popen.wait()
            self._popen.stdout.close()


class Gateway:
    """One gateway after the other, on one port.

    Args:
        url: of the broker.
        name: what each is called.
        running: what ends the last one.
    """

    def __init__(self, url: str, name: str, running: ExitStack) -> None:
        self._url = url
        self.name = name
        self.port = 0
        self._process = self._started()
        self._start_at: float | None = None
        running.callback(lambda: self._process.end())

    def listens(self) -> None:
        """Wait until it does, and say so."""
        self.port = self._process.port()
        say(f"{self.name} listens on 127.0.0.1:{self.port}, pid {self._process.pid}")

    def turn(self) -> None:
        """Start another, some time after one has ended."""
        if self._start_at is None:
            if (how := self._process.has_ended()) is not None:
                say(f"{self.name} has ended, {how}: its devices go to the other; back in {AWAY:.0f} s")
                self._start_at = time.monotonic() + AWAY
        elif self._start_at <= time.monotonic():
            self._start_at = None
            self._process.end()
            self._process = self._started()
            self.listens()

    def _started(self) -> Process:
        return Process("gateway", self._url, "--name", self.name, "--port", self.port)


def say(text: str) -> None:
    """Tell the person who watches."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def play(devices: int, gateways: int, stay: float, port: int) -> None:
    """Start everything, and look after it until a signal comes."""
    with ExitStack() as running:
        broker = running.enter_context(LocalBroker())
        say(f"nats-server listens on {broker.url}, pid {broker.pid}")
        running.callback(say, "the broker ends")
        each = [Gateway(broker.url, f"gateway-{number + 1}", running) for number in range(gateways)]
        web = Process("web", broker.url, "--port", port)
        running.callback(web.end)
        for gateway in each:
            gateway.listens()
        simulated = Process("devices", devices, *(gateway.port for gateway in each), "--stay", stay)
        running.callback(simulated.end)
        say(f"{devices} devices, each about {stay:g} s with one gateway, pid {simulated.pid}")
        say(f"open http://127.0.0.1:{web.port()}/ - Ctrl-C ends everything")
        running.callback(say, "devices, web service and gateways end")
        while True:
            time.sleep(0.1)
            for gateway in each:
                gateway.turn()
            for name, process in (("the web service", web), ("the devices", simulated)):
                if (how := process.has_ended()) is not None:
                    raise SystemExit(f"{name} ended, {how}")
            if not broker.is_running:
                say("nats-server has ended, and starts again with what it has stored")
                broker.kill()
                broker.start()


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(prog=f"python -m {PACKAGE}", description="Two gateways as one, over NATS.")
    parser.add_argument("--devices", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--gateways", type=int, default=2, help="how many (default: %(default)s)")
    parser.add_argument("--stay", type=float, default=30.0, help="seconds that a device stays (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="of the page; 0, the default, takes a free one")
    options = parser.parse_args()
    if options.devices < 1 or options.gateways < 1 or not 0 < options.stay < 1e6:
        parser.error("at least 1 device, 1 gateway, and a stay above 0 seconds, please")
    if find_spec("aiohttp") is None:
        raise SystemExit("the web service needs aiohttp: pip install aiohttp")

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):  # a shell's job in the background would ignore the first
        signal.signal(each, stop)
    try:
        play(options.devices, options.gateways, options.stay, options.port)
    except KeyboardInterrupt:
        say("all have ended")
    except (FileNotFoundError, RuntimeError) as error:  # there is no broker, or it does not run
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
