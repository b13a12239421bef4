"""``mediaflow explain`` shows what becomes of every format that may arrive."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import REFUSES_SOCKETS, run
from pipeline_kit import make_audio

from mediaflow import dsp

ROOT = Path(__file__).parent.parent.parent
PIPELINES = sorted((ROOT / "pipelines").glob("*.yaml"))
LATENCY = f"{dsp.Resampler(8000, 16000).latency * 1000:.1f} ms"


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_what_is_shipped(file: Path) -> None:
    """Each pipeline can be explained, to every sink, without a socket."""
    done = run(ROOT, "explain", str(file), code=REFUSES_SOCKETS, EKA_TOKEN="hush-hush")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    arrivals = [line for line in lines if not line.startswith((" ", "reply"))]
    sinks = [line for line in lines if line.startswith("  sinks[")]
    assert arrivals and len(sinks) % len(arrivals) == 0
    assert "hush" not in done.stdout


def test_a_call_to_disk(tmp_path: Path) -> None:
    """Format, latency and queue are told, and which steps are left out."""
    make_audio(tmp_path)
    (tmp_path / "p.yaml").write_text(
        """
source: {use: file, path: stereo.wav}
transforms:
  - use: mulaw_decode
  - {use: resample, rate: 16000}
  - use: mix
sinks:
  - {use: disk, queue_ms: 500, when_full: drop_oldest}
  - {use: disk}
"""
    )
    done = run(tmp_path, "explain", "p.yaml")
    assert done.stdout.splitlines() == [
        "file: s16le 8000 Hz mono, tracks inbound and outbound",
        "  transforms[0] mulaw_decode left out: nothing to do",
        f"  transforms[1] resample → s16le 16000 Hz mono, adds {LATENCY}",
        "  transforms[2] mix → s16le 16000 Hz mono",
        f"  sinks[0] disk ← s16le 16000 Hz mono, track mix, queue 500 ms then drop_oldest, {LATENCY} behind the source",
        f"  sinks[1] disk ← s16le 16000 Hz mono, track mix, queue 30000 ms then block, {LATENCY} behind the source",
    ]


def test_a_reply(tmp_path: Path) -> None:
    """What is played into calls is explained behind what comes from them."""
    make_audio(tmp_path)
    (tmp_path / "p.yaml").write_text(
        """
source: {use: media_streams, dialect: twilio}
transforms: [{use: mulaw_decode}, {use: mix}, {use: energy_vad}]
sinks: [{use: disk}]
reply:
  source: {use: file, path: stereo.wav}
  transforms: [{use: mulaw_decode}, {use: mix}]
  barge_in: true
"""
    )
    done = run(tmp_path, "explain", "p.yaml")
    assert done.stdout.splitlines()[-4:] == [
        "reply, until the caller speaks, from file: s16le 8000 Hz mono, tracks inbound and outbound",
        "  reply.transforms[0] mulaw_decode left out: nothing to do",
        "  reply.transforms[1] mix → s16le 8000 Hz mono",
        "  reply ← s16le 8000 Hz mono, track mix, queue 1000 ms then block, 0.0 ms behind the source",
    ]


def test_streams_that_would_be_refused(tmp_path: Path) -> None:
    """A step that can only tell when a call comes which tracks it has says which calls it refuses."""
    (tmp_path / "p.yaml").write_text(
        "source: {use: vobiz}\ntransforms: [{use: mulaw_decode}, {use: select, track: inbound}]\nsinks: [{use: disk}]\n"
    )
    done = run(tmp_path, "explain", "p.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    refused = done.stdout.partition("mulaw 8000 Hz mono, track outbound\n")[2].splitlines()[0]
    assert refused == "  refused: the call has no track 'inbound', only outbound"


def test_a_wrong_file(tmp_path: Path) -> None:
    """It is told what is wrong with it, as ``check`` does."""
    (tmp_path / "p.yaml").write_text("source: {use: nonsense}\n")
    done = run(tmp_path, "explain", "p.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["missing", "unknown-component"]
    assert (
        run(tmp_path, "explain", "p.yml").stderr == "p.yml:1:1: unreadable: cannot be read: No such file or directory\n"
    )
