"""``mediaflow check`` says whether a file is right, and touches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import RECORDS_IMPORTS, REFUSES_SOCKETS, imported, run
from pipeline_kit import make_audio

ROOT = Path(__file__).parent.parent.parent
PIPELINES = sorted(str(file) for file in (ROOT / "pipelines").glob("*.yaml"))
TOKEN = {"EKA_TOKEN": "hush-hush"}

GOOD = "source: {use: file, path: call.wav}\nsinks: [{use: disk}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with a right and a wrong pipeline."""
    make_audio(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD.replace("disk", "disc") + "drain: 1\n")
    (tmp_path / "misfit.yaml").write_text(GOOD.replace("call.wav", "stereo.wav"))
    return tmp_path


def test_a_right_file(folder: Path) -> None:
    """It says so, and ends with 0."""
    done = run(folder, "check", "good.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "good.yaml: ok\n", "")


def test_wrong_files(folder: Path) -> None:
    """Every problem of every file is told, each on a line that editors can jump to; right files are told too."""
    done = run(folder, "check", "bad.yaml", "good.yaml", "misfit.yaml", "missing.yaml")
    assert done.returncode == 2
    assert done.stdout == "good.yaml: ok\n"
    said = done.stderr.splitlines()
    assert said[:2] == [
        "bad.yaml:2:15: unknown-component: there is no sink 'disc' (did you mean disk?)",
        "bad.yaml:3:1: unknown-key: a pipeline has no option drain (did you mean drain_s?)",
    ]
    assert said[2].startswith("misfit.yaml:2:9: format: sinks[0] disk: 2 tracks (inbound, outbound)")
    assert said[3:] == ["missing.yaml:1:1: unreadable: cannot be read: No such file or directory"]


def test_a_folder_is_no_file(folder: Path) -> None:
    """A folder in the place of a file is wrong usage."""
    done = run(folder, "check", ".")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is a directory" in done.stderr


def test_it_touches_nothing(folder: Path) -> None:
    """No socket is made, no address looked up and no file written, for any pipeline that is shipped."""
    before = sorted(folder.iterdir())
    done = run(ROOT, "check", *PIPELINES, str(folder / "misfit.yaml"), code=REFUSES_SOCKETS, **TOKEN)
    assert done.stdout == "".join(f"{file}: ok\n" for file in PIPELINES)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_the_guard_against_sockets_works(folder: Path) -> None:
    """What the test above relies on does refuse: a pipeline that runs cannot."""
    (folder / "p.yaml").write_text(
        "source: {use: vobiz, listen: 'ws://127.0.0.1:0/vobiz'}\nsinks: [{use: disk, path: '{track}.wav'}]\n"
    )
    done = run(folder, "run", "p.yaml", code=REFUSES_SOCKETS)
    assert done.returncode != 0 and "AssertionError: socket" in done.stderr


def test_it_needs_no_numpy() -> None:
    """Checking is quick: numpy and what else is slow to import stays out."""
    loaded = imported(run(ROOT, "check", *PIPELINES, code=RECORDS_IMPORTS, **TOKEN))
    assert "mediaflow.graph" in loaded
    assert not loaded & {"numpy", "soundfile", "sounddevice", "httpx", "rich", "scipy", "trio"}
