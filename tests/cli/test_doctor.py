"""`mediaflow doctor`: one screen, and an exit code that tells whether all is well."""

from __future__ import annotations

from pathlib import Path

from cli_kit import run


def test_all_is_well(tmp_path: Path) -> None:
    """A machine with nothing wrong is told so, with its versions."""
    done = run(tmp_path, "doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok    machine: mediaflow ")
    assert lines[-1] == "all is well"


def test_something_is_wrong(tmp_path: Path) -> None:
    """What is wrong stands beside what to do about it, and the exit code is 1."""
    (tmp_path / "a.raw").write_bytes(bytes(320))
    (tmp_path / "taken").write_bytes(b"")
    (tmp_path / "p.yaml").write_text(
        "source: {use: file, path: a.raw, sample_rate: 8000}\nsinks: [{use: disk, path: taken/a.wav}]\n"
    )
    done = run(tmp_path, "doctor", "p.yaml")
    assert done.returncode == 1
    assert "WRONG sinks[0] disk: taken is no folder\n      → remove it, or change path\n1 wrong\n" in done.stdout


def test_a_wrong_file(tmp_path: Path) -> None:
    """A file with mistakes is a matter for `check`: they are shown, and the exit code is 2."""
    (tmp_path / "p.yaml").write_text("source: {use: fil}\nsinks: [{use: disk}]\n")
    done = run(tmp_path, "doctor", "p.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean file?" in done.stderr
