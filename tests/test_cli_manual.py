"""What tells people how to ask: --help, the manual page and completion, all of them from the parser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from packetcore_cli import __version__
from packetcore_cli._arguments import Parser
from packetcore_cli._completion import FILES, completion
from packetcore_cli._failure import EXIT_CODES
from packetcore_cli._parser import SHELLS, new_parser

PAGE = Path(__file__).parent.parent / "cli" / "man" / "packetcore.1"
COMMANDS = new_parser().commands()

each_command = pytest.mark.parametrize("name", COMMANDS)


def options(command: Parser) -> list[str]:
    """Those that --help tells of."""
    return [option for action in command.actions() for option in action.option_strings if action.help != "==SUPPRESS=="]


def text_of_page() -> str:
    return PAGE.read_text(encoding="utf-8").replace("\\-", "-").replace("\\e", "\\")


@each_command
def test_each_command_is_shown_in_use_by_examples_that_the_parser_takes(name: str) -> None:
    epilog = COMMANDS[name].epilog
    assert epilog is not None
    title, *lines = epilog.splitlines()
    assert title == "examples:"
    known = set(options(COMMANDS[name]))
    uses = [use for line in lines for use in re.findall(rf"packetcore {name}\b([^|>]*)", line)]
    assert uses
    for use in uses:
        assert {word for word in use.split("  ")[0].split() if word.startswith("--")} <= known


@each_command
def test_the_manual_page_has_each_option_of_each_command(name: str) -> None:
    heading = rf"\.SH (?:COMMAND|OPTIONS) \\fI\\,'packetcore {name}'"
    sections = re.findall(rf"{heading}(.*?)(?=^\.SH )", text_of_page(), re.DOTALL | re.MULTILINE)
    assert sections
    lines = re.findall(r"^\\fB--.*", sections[-1], re.MULTILINE)
    told = {option for line in lines for option in re.findall(r"\\fB(--[a-z-]+)", line)}
    assert told == {option for option in options(COMMANDS[name]) if option not in ("-h", "--help")}


def test_the_manual_page_has_the_version_the_exit_codes_and_the_examples() -> None:
    page = text_of_page()
    assert f'"packetcore {__version__}"' in page.splitlines()[0]
    status = page[page.index(".SH EXIT STATUS") :]
    for code, text in EXIT_CODES.items():
        assert f".TP\n{code}\n{text}\n" in status
    for command in COMMANDS.values():
        assert str(command.epilog).splitlines()[1] in page


def test_the_manual_page_is_sound() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    command = ["groff", "-man", "-Tutf8", "-ww", str(PAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""


def shell_of(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def completed(name: str, folder: Path, line: str) -> set[str]:
    """What a shell offers for the last word of a line."""
    script = folder / "completion"
    script.write_text(completion(name), encoding="utf-8")
    if name == "fish":
        program = f"source {script}; complete -C {line!r}"
    else:
        words = line.split(" ")
        program = (
            f"source {script}; COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); COMP_CWORD={len(words) - 1}; "
            "$(complete -p packetcore | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
        )
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "TERM": "dumb"}
    run = subprocess.run(
        [shell_of(name), "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=30
    )
    return {offer.partition("\t")[0] for offer in run.stdout.splitlines() if offer}


@pytest.mark.parametrize("name", ["bash", "fish"])
def test_a_shell_completes_commands_options_values_and_files(name: str, tmp_path: Path) -> None:
    shell_of(name)
    (tmp_path / "capture.pcapng").touch()
    assert completed(name, tmp_path, "packetcore de") == {"decode", "demo"}
    assert completed(name, tmp_path, "packetcore decode --f") == {"--framing", "--follow"}
    assert completed(name, tmp_path, "packetcore decode --framing hd") == {"hdlc", "hdlc32", "hdlc-nocheck"}
    assert completed(name, tmp_path, "packetcore replay cap") == {"capture.pcapng"}
    assert completed(name, tmp_path, "packetcore serve --record cap") == {"capture.pcapng"}


@pytest.mark.parametrize("name", SHELLS)
def test_what_is_printed_is_sound_to_its_shell(name: str, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(completion(name), encoding="utf-8")
    done = subprocess.run([shell_of(name), "-n", str(script)], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_argument_that_is_called_a_file_is_completed_as_one() -> None:
    metavars = {str(action.metavar) for command in COMMANDS.values() for action in command.actions()}
    assert {name for name in metavars if "FILE" in name} <= set(FILES)
