"""The command line as a whole: its help, its version, and what it costs to ask for them."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from cli_kit import RECORDS_IMPORTS, imported, run
from click.testing import CliRunner

from mediaflow.cli import COMMANDS, main


def test_help_names_every_command(tmp_path: Path) -> None:
    """Every file of the command line is a command, and the help says in a line what it does."""
    files = {file.stem for file in Path(sys.modules[main.callback.__module__].__file__ or "").parent.glob("[!_]*.py")}
    assert files == set(COMMANDS)
    done = run(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name in COMMANDS:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"  {name} ")]
        assert len(line.split()) > 4


@pytest.mark.parametrize(
    "command",
    [(name,) for name in COMMANDS]
    + [("plugins", "list"), ("plugins", "inspect"), ("lab", "vobiz"), ("lab", "eka"), ("lab", "call")],
)
def test_help_of_every_command(command: tuple[str, ...]) -> None:
    """Each command says what it does, what it takes and what its options mean."""
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {' '.join(command)} ")
    found: click.Command = main
    for name in command:
        assert isinstance(found, click.Group)
        next_one = found.get_command(click.Context(found), name)
        assert next_one is not None
        found = next_one
    assert found.help
    for option in found.params:
        if isinstance(option, click.Option):
            assert option.help, f"{option.name} is not explained"


@pytest.mark.parametrize(
    "command", [("--help",), ("--version",), ("run", "--help"), ("check", "--help"), ("plugins", "--help"), ("run",)]
)
def test_help_loads_nothing(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Neither the engine nor a library is imported before a command really runs."""
    loaded = imported(run(tmp_path, *command, code=RECORDS_IMPORTS))
    assert "mediaflow.cli" in loaded
    assert not loaded & {"numpy", "anyio", "yaml", "msgspec", "pluggy", "rich", "websockets", "httpx", "asyncio"}
    assert {name for name in loaded if name.startswith("mediaflow")} <= {
        "mediaflow", "mediaflow.cli", *(f"mediaflow.cli.{name}" for name in ("_log", "_pipeline", "_speed", *COMMANDS))
    }  # fmt: skip


def test_version(tmp_path: Path) -> None:
    """The version is that of the installed package."""
    done = run(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"mediaflow {version('mediaflow')}\n")


@pytest.mark.parametrize(
    "command", [("chekc",), ("run",), ("check",), ("run", "a", "b"), ("run", "--nonsense", "a"), ()]
)
def test_wrong_usage(command: tuple[str, ...]) -> None:
    """What is not a command, or lacks its arguments, ends with 2 and tells how it is used."""
    result = CliRunner().invoke(main, list(command))
    assert result.exit_code == 2
    assert "Usage: main" in result.stderr
    assert result.stdout == ""
