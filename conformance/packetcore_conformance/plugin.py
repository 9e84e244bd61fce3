"""The pytest plugin: which adapters to run the cases on, and the table at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from packetcore import Driver, installed_transports, load_driver
from packetcore_conformance.certificates import Certificates
from packetcore_conformance.rig import Rig

HERE = Path(__file__).parent
CASE = "packetcore conformance case"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("packetcore", "packetcore conformance")
    group.addoption(
        "--transport",
        action="append",
        metavar="NAME",
        help="adapter to run the conformance cases on, or all; may be given more than once",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Table())


def transports(config: pytest.Config) -> list[str]:
    """The adapters asked for, each of which must be installed."""
    installed = list(installed_transports())
    asked: list[str] = config.getoption("--transport") or ["all"]
    names = installed if "all" in asked else asked
    for name in names:
        if name not in installed:
            raise pytest.UsageError(f"unknown transport {name!r}; installed: {', '.join(installed) or 'none'}")
    if not names:
        raise pytest.UsageError("no transport is installed")
    return list(dict.fromkeys(names))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if HERE not in metafunc.definition.path.parents:
        return
    names = transports(metafunc.config)
    for fixture in ("transport", "other_transport"):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, names, scope="session" if fixture == "transport" else "function")


@pytest.fixture(scope="session")
def driver(transport: str) -> Iterator[Driver]:
    """The adapter's runtime, running for all cases."""
    driver = load_driver(transport)
    yield driver
    driver.stop()


@pytest.fixture
def rig(driver: Driver, transport: str) -> Iterator[Rig]:
    """Servers, clients and raw peers of one case, all ended after it."""
    rig = Rig(driver, transport)
    yield rig
    rig.close()


def _needs(capability: str, otherwise: str) -> Callable[[Driver], None]:
    """A fixture that skips a case where the adapter cannot do something."""

    def needs(driver: Driver) -> None:
        if capability not in driver.capabilities():
            pytest.skip(f"the adapter says that {otherwise}")

    return pytest.fixture(needs)


needs_udp = _needs("udp", "it has no UDP")
needs_unix = _needs("unix", "it has no Unix sockets")
needs_serial = _needs("serial", "it has no serial lines: they need pyserial, and another system than Windows")
needs_reconnect = _needs("reconnect", "its clients do not reconnect")
needs_pool = _needs("pool", "it has no connection pool")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for the TLS cases, made for this run."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if HERE in item.path.parents and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        name = item.callspec.params.get("transport")
        if isinstance(name, str) and (report.when == "call" or report.outcome != "passed"):
            group = item.module.__doc__.partition("\n")[0].rstrip(".") if item.module.__doc__ else item.module.__name__
            report.user_properties.append((CASE, (group, name)))  # which a report of another process carries too
    return report


class Table:
    """Counts what the reports say, and shows it at the end."""

    def __init__(self) -> None:
        self._outcomes: dict[tuple[str, str], Counter[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, case in report.user_properties:
            if key == CASE and isinstance(case, (tuple, list)):
                self._outcomes.setdefault((case[0], case[1]), Counter())[report.outcome] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        outcomes = self._outcomes
        if not outcomes:
            return
        groups = list(dict.fromkeys(group for group, _ in outcomes))
        columns = sorted({name for _, name in outcomes})
        width = max(len(group) for group in groups)
        terminalreporter.section("conformance: cases passed of cases run")
        terminalreporter.write_line(" " * width + "".join(f"{name:>12}" for name in columns))
        for group in groups:
            row = "".join(f"{_cell(outcomes.get((group, name), Counter())):>12}" for name in columns)
            terminalreporter.write_line(f"{group:<{width}}{row}")


def _cell(counts: Counter[str]) -> str:
    run = counts["passed"] + counts["failed"]
    skipped = f" -{counts['skipped']}" if counts["skipped"] else ""
    return f"{counts['passed']}/{run}{skipped}" if run or skipped else "none"
