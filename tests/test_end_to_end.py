"""A call from a recording to EkaScribe's disk, over real sockets, against an independent computation of every sample.

    file → vobiz_call ══▶ vobiz → decode, mix, resample, VAD → eka_raw | eka_json ══▶ eka_ingest → disk

The reference knows none of our code: G.711 is the standard library's, resampling is soxr's.
"""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import numpy as np
import pytest
import soundfile
import soxr
from anyio.abc import TaskGroup

from mediaflow import config, plugins
from mediaflow._websocket.core import WebSocket
from mediaflow._websocket.line import Line
from mediaflow._wire.footprint import belongings
from mediaflow.delivery.edge import Edge
from mediaflow.intake import Intake
from mediaflow.runner import Runner
from mediaflow.session import LiveSession

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

pytestmark = pytest.mark.anyio

HOT = (Line, WebSocket, Intake, LiveSession, Edge)

PLUGINS = plugins.load()
SECONDS = 2.37

FORMATS = {
    "mulaw": (8000, "audio/x-mulaw;rate=8000", "  - use: mulaw_encode\n"),
    "l16-8k": (8000, "audio/x-l16;rate=8000", ""),
    "l16-16k": (16_000, "audio/x-l16;rate=16000", ""),
}

CALL = """
source:
  use: file
  path: {audio}
  id: CALL_7
transforms:
  - use: mulaw_decode
{encode}sinks:
  - use: vobiz_call
    url: {url}
    shape: {shape}
    content_type: {content_type}
    end: {end}
state: {state}
"""

BRIDGE = """
source:
  use: vobiz
  listen: ws://127.0.0.1:0/vobiz
  secret: s3cret
  reconnect_s: 0.05
transforms:
  - use: mulaw_decode
  - use: mix
{resample}  - use: energy_vad
sinks:
  - use: {sink}
    base_url: {eka}
    token: t0ken
    results: {state}/results/{{call_id}}.json
state: {state}
"""

INGEST = """
source:
  use: eka_ingest
  listen: http://127.0.0.1:0
  token: t0ken
transforms:
  - use: energy_vad
  - use: speech_chunks
    min_s: 1
    max_s: 1.5
sinks:
  - use: disk
    path: {state}/eka/{{call_id}}/{{chunk}}.wav
state: {state}
"""


def runner(folder: Path, name: str, text: str, **values: object) -> Runner:
    """Write a pipeline file and load it."""
    file = folder / f"{name}.yaml"
    file.write_text(text.format(state=folder, **values))
    return Runner(config.load(str(file), PLUGINS, {}), PLUGINS)


RESAMPLE = "  - use: resample\n    rate: 16000\n"


@asynccontextmanager
async def ingest_and_bridge(
    folder: Path, sink: str = "eka_raw", resample: str = RESAMPLE
) -> AsyncIterator[tuple[Runner, Runner, TaskGroup]]:
    """Run an EkaScribe and a bridge to it, which are stopped at the end, in a group that has a minute."""
    ingest = runner(folder, "ingest", INGEST)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ingest.run)
            await ingest.up.wait()
            bridge = runner(folder, "bridge", BRIDGE, eka=ingest.url, sink=sink, resample=resample)
            tasks.start_soon(bridge.run)
            await bridge.up.wait()
            yield ingest, bridge, tasks
            bridge.stop()
            ingest.stop()


def paced_call(folder: Path, bridge: Runner, speed: int = 1) -> Runner:
    """Return a carrier that plays ``call.wav`` of the folder."""
    return runner(
        folder, "call", CALL.replace("  id: CALL_7\n", f"  id: CALL_7\n  speed: {speed}\n"),
        audio=folder / "call.wav", url=f"{bridge.url}/s3cret", shape="nested",
        content_type="audio/x-mulaw;rate=8000", encode="  - use: mulaw_encode\n", end="close",
    )  # fmt: skip


def voices(rate: int, tracks: int) -> np.ndarray:
    """Make band-limited noise that comes and goes, different on each track: int16, shape (n, tracks)."""
    rng = np.random.default_rng(5)
    count = round(SECONDS * rate)
    spectrum = np.fft.rfft(rng.normal(size=(count, tracks)), axis=0)
    frequencies = np.fft.rfftfreq(count, 1 / rate)
    spectrum[(frequencies < 200) | (frequencies > 3000)] = 0
    noise = np.fft.irfft(spectrum, count, axis=0)
    swell = 0.55 + 0.45 * np.sin(2 * np.pi * 1.3 * np.arange(count) / rate)[:, None]
    samples: np.ndarray = np.round(noise / np.abs(noise).max() * swell * 14_000).astype(np.int16)
    return samples


def expected(samples: np.ndarray, rate: int, rate_out: int, law: bool) -> np.ndarray:
    """Compute what must be stored, without any code of ours."""
    if law:
        coded = [audioop.ulaw2lin(audioop.lin2ulaw(np.ascontiguousarray(t).tobytes(), 2), 2) for t in samples.T]
        samples = np.stack([np.frombuffer(track, np.int16) for track in coded], axis=1)
    mixed = np.clip(samples.astype(int).sum(axis=1), -32768, 32767).astype(float)
    resampled: np.ndarray = soxr.resample(mixed, rate, rate_out, quality="VHQ") if rate != rate_out else mixed
    return resampled


def signal_to_noise_db(stored: np.ndarray, reference: np.ndarray, rate: int, band: float) -> float:
    """Return the reference's power over the difference's, in dB, up to ``band`` Hz.

    µ-law spreads noise over the whole band, and what a resampler does with its part between 0.9 Nyquist and Nyquist is
    its designer's choice: there two good filters differ.
    """
    inside = np.fft.rfftfreq(len(reference), 1 / rate) <= band
    error, power = (np.sum(np.abs(np.fft.rfft(x)[inside]) ** 2) for x in (stored - reference, reference))
    return float("inf") if error == 0 else float(10 * np.log10(power / error))


@pytest.mark.parametrize("sink", ["eka_raw", "eka_json"])
@pytest.mark.parametrize("shape", ["nested", "flat"])
@pytest.mark.parametrize("tracks", [1, 2])
@pytest.mark.parametrize("format", list(FORMATS))
async def test_a_call_arrives_sample_by_sample(tmp_path: Path, format: str, tracks: int, shape: str, sink: str) -> None:
    """Every format, both track layouts, both start shapes, both Eka modes: the right audio, and the ledger says so."""
    rate, content_type, encode = FORMATS[format]
    samples = voices(rate, tracks)
    soundfile.write(tmp_path / "call.wav", samples, rate, "PCM_16")
    # Binary mode has one rate; in JSON mode 8 kHz goes as it is, declared.
    rate_out = 16_000 if sink == "eka_raw" else rate
    resample = RESAMPLE if sink == "eka_raw" else ""

    async with ingest_and_bridge(tmp_path, sink, resample) as (ingest, bridge, _):
        caller = runner(
            tmp_path, "call", CALL, audio=tmp_path / "call.wav", url=f"{bridge.url}/s3cret", shape=shape,
            content_type=content_type, encode=encode, end="stop" if shape == "flat" else "close",
        )  # fmt: skip
        await caller.run()
        await bridge.over(1)
        await ingest.over(1)

    for each in (caller, bridge, ingest):
        (account,) = each.accounts
        assert account["status"] == "complete", account
        (figures,) = account["sinks"]
        assert figures["delivered"] == figures["received"]
        assert not figures["dropped"]
        assert not figures["concealed"]
    assert bridge.accounts[0]["call"] == "CALL_7"
    assert bridge.accounts[0]["sinks"][0]["outcome"]["status"] == "completed"
    assert (tmp_path / "results" / "CALL_7.json").exists()

    reference = expected(samples, rate, rate_out, format == "mulaw")
    chunks = sorted((tmp_path / "eka").rglob("*.wav"))
    assert len(chunks) >= 2
    stored = np.concatenate([soundfile.read(chunk, dtype="int16")[0] for chunk in chunks])
    assert [soundfile.info(chunk).samplerate for chunk in chunks] == [rate_out] * len(chunks)
    assert len(stored) == -(-len(samples) * rate_out // rate) == len(reference)
    assert ingest.accounts[0]["sinks"][0]["received"] == len(stored)
    if rate_out == rate:
        assert np.array_equal(stored, reference)
    else:
        assert signal_to_noise_db(stored, reference, rate_out, 0.9 * rate / 2) >= 60


async def test_a_stop_in_the_middle_of_a_call_loses_nothing_that_came_in(tmp_path: Path) -> None:
    """SIGTERM's way: the carrier is told to go, what it had sent is stored by EkaScribe, and the note is fetched."""
    samples = np.repeat(voices(8000, 2), 8, axis=0)
    soundfile.write(tmp_path / "call.wav", samples, 8000, "PCM_16")
    async with ingest_and_bridge(tmp_path) as (ingest, bridge, tasks):
        caller = paced_call(tmp_path, bridge)
        tasks.start_soon(caller.run)
        while received(bridge) < 8000:  # noqa: ASYNC110 (a ledger tells nobody that it has changed)
            await anyio.sleep(0.02)
        bridge.stop()
        await bridge.over(1)
        await caller.over(1)
        await ingest.over(1)

    (account,) = bridge.accounts
    figures = account["sinks"][0]
    assert account["status"] == "complete", account
    assert 8000 <= figures["delivered"] == figures["received"] < 2 * len(samples)
    assert figures["outcome"]["status"] == "completed"
    assert ingest.accounts[0]["sinks"][0]["delivered"] == figures["delivered"]
    assert caller.accounts[0]["sinks"][0]["failure"]["code"] == "closed-1001"


async def test_what_a_frame_passes_is_fetched_before(tmp_path: Path) -> None:
    """The carrier's line comes to know where all of it lies, from the first byte read to the last one written."""
    samples = np.repeat(voices(8000, 1), 200, axis=0)  # it looks twice: the sink may not be open at first
    soundfile.write(tmp_path / "call.wav", samples, 8000, "PCM_16")
    reader, writer = {"Intake", "Timeline"}, {"Edge", "SinkAccount", "_Writer", "Packer", "AudioStream"}
    passes = reader | {"LiveSession", "_Lane", "Fused", "Chain", "Resampler", "EnergyVad"} | writer
    names, known = Counter[str](), False
    async with ingest_and_bridge(tmp_path) as (ingest, bridge, tasks):
        tasks.start_soon(paced_call(tmp_path, bridge, speed=8).run)
        while not (known and passes <= names.keys()) and not bridge.accounts:
            await anyio.sleep(0.01)
            for line in [each for each in gc.get_objects() if isinstance(each, Line) and each.footprint]:
                passed = belongings(line)
                if any(isinstance(each, Intake) for each in passed):
                    names = Counter(type(each).__name__ for each in passed)
                    known = all(lies_in(line.footprint, each) for each in passed if isinstance(each, HOT))
        bridge.stop()
        await bridge.over(1)
        await ingest.over(1)

    assert not passes - names.keys()
    assert min(names["Line"], names["WebSocket"], names["Decoder"]) >= 2  # the carrier's and EkaScribe's
    assert known


def lies_in(runs: Sequence[tuple[int, int]], thing: object) -> bool:
    """Say whether a thing begins in one of these pieces of memory."""
    return any(start <= id(thing) < end for start, end in runs)


def received(bridge: Runner) -> int:
    """Return how many samples of the live call have come in for its sink."""
    return max((session.account()["sinks"][0]["received"] for session in bridge.sessions.values()), default=0)
