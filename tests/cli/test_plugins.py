"""``mediaflow plugins`` lists what is installed and shows the options of each component."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from mediaflow.cli import main
from mediaflow.plugins import load

NAMES = sorted(load().components)


def plugins(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["plugins", *arguments])


def test_list() -> None:
    """Every component stands once, under its kind, with a line about it and where it comes from."""
    result = plugins("list")
    assert (result.exit_code, result.stderr) == (0, "")
    kinds: dict[str, list[str]] = {}
    kind = ""
    for line in result.stdout.splitlines():
        if line.startswith("  "):
            kinds[kind].append(line.split()[0])
            assert line.endswith("]") and len(line.split()) > 4
        else:
            kind = line
            kinds[kind] = []
    assert list(kinds) == ["sources", "transforms", "sinks"]
    assert sorted(name for names in kinds.values() for name in names) == NAMES
    assert all(names == sorted(names) for names in kinds.values())
    assert "file" in kinds["sources"] and "mix" in kinds["transforms"] and "disk" in kinds["sinks"]


@pytest.mark.parametrize("name", NAMES)
def test_inspect(name: str) -> None:
    """The docstring and every option of a component are shown, with limits, default and meaning."""
    result = plugins("inspect", name)
    found = load().components[name]
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{name}: {found.kind} from mediaflow ")
    for option, spec in found.options.items():
        (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"  {option}: ")]
        assert ("; default " in line) == ("default" in spec) != line.endswith("; required")
        assert spec.get("description", "") in result.stdout


def test_inspect_tells_limits() -> None:
    """What an error would say is said here before."""
    assert "  rate: a whole number from 4000 to 192000; required\n" in plugins("inspect", "resample").stdout
    assert '  when_full: one of block, drop_oldest; default "block"\n' in plugins("inspect", "disk").stdout


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resampel", "did you mean resample?"), ("quantum", "`mediaflow plugins list` shows those there are")],
)
def test_inspect_what_is_not_there(name: str, hint: str) -> None:
    """A slip of the pen is told, and the nearest right name."""
    result = plugins("inspect", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"there is no component '{name}'; {hint}\n"
