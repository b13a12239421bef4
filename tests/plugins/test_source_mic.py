"""The microphone, on a sound server that the tests start: a pure tone comes in, and its holes are where they belong."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import anyio
import numpy
import pytest

from mediaflow import AudioFormat, PathTemplate, SessionError, SourceError, Stream, plugins
from mediaflow.lab import Lab
from mediaflow.testing import RecordedSession, RecordingEngine
from mediaflow_plugins.source_mic import Mic, _Bell, _Ring

pytestmark = pytest.mark.anyio

Needs = Callable[..., None]
TONE_HZ = 1234


@pytest.fixture(scope="module")
def address(needs: Needs) -> Iterator[str]:
    """Give every server of these tests the same address: PortAudio looks for its devices once in a process."""
    needs("pulseaudio", "pactl")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        patch.setenv("PULSE_SERVER", f"unix:{folder}/pulse.sock")
        yield f"{folder}/pulse.sock"


@pytest.fixture
def server(address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A sound server whose default microphone hears a tone."""
    modules = (
        f"module-native-protocol-unix auth-anonymous=1 socket={address}",
        # norewinds: else the sink renders two seconds at a time, and so does the microphone that hears it.
        "module-null-sink sink_name=room rate=48000 channels=1 norewinds=1",
        f"module-sine sink=room frequency={TONE_HZ}",
    )
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
    process = subprocess.Popen([*command, *(f"-L{each}" for each in modules)], stderr=subprocess.DEVNULL)
    try:
        while subprocess.run(["pactl", "info"], capture_output=True).returncode:
            assert process.poll() is None, "the sound server did not start"
        yield process
    finally:
        process.kill()
        process.wait()


def tone(pcm: bytes, rate: int = 16000) -> tuple[float, float]:
    """Return frequency (Hz) and amplitude of the strongest tone in ``pcm``."""
    samples = numpy.frombuffer(pcm, "<i2")
    spectrum = numpy.abs(numpy.fft.rfft(samples * numpy.hanning(len(samples)), 1 << 20))
    return spectrum.argmax() * rate / (1 << 20), float(spectrum.max() * 4 / len(samples))


def phase(samples: numpy.ndarray, start: int) -> float:
    """Return the phase of the tone in ``samples`` as it would be at sample 0 of the stream."""
    times = (start + numpy.arange(len(samples))) / 16000
    return float(numpy.angle(numpy.sum(samples * numpy.exp(-2j * numpy.pi * TONE_HZ * times))))


@pytest.mark.parametrize("channels", [1, 2])
async def test_a_tone_comes_in(server: object, channels: int) -> None:
    """The tone has its frequency, nothing is missing, and the stream is as long as it was asked to be."""
    engine = RecordingEngine()
    mic = Mic(seconds=1.005, channels=channels)  # type: ignore[arg-type]
    mic.check()
    with anyio.fail_after(20):
        await mic.serve(engine)
    (session,) = engine.sessions
    tracks = ("inbound", "outbound")[:channels]
    assert list(mic.formats()) == [(AudioFormat("s16le", 16000), tracks)]
    assert (session.stream.format, session.stream.tracks) == (AudioFormat("s16le", 16000), tracks)
    assert session.stream.id.startswith("mic-20")
    assert session.ended and session.concealed == []
    for track in tracks:
        assert len(session.audio[track]) == 2 * 16080
        frequency, amplitude = tone(bytes(session.audio[track][6400:]))
        assert frequency == pytest.approx(TONE_HZ, abs=0.5)
        assert amplitude > 3000


async def test_the_shipped_pipeline_takes_it_to_eka(
    server: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mic_to_eka.yaml` as it is: the tone reaches EkaScribe and the disk, and unplugging ends it with all booked."""
    monkeypatch.chdir(tmp_path)
    lab = Lab(str(Path(__file__).parents[2] / "pipelines" / "mic_to_eka.yaml"), plugins.load())

    def received() -> int:
        sessions = lab.runners[0].sessions.values() if lab.runners else ()
        return max((session.account()["sinks"][0]["received"] for session in sessions), default=0)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lab.run)
            while received() < 16_000:  # noqa: ASYNC110 (a ledger tells nobody that it has changed)
                await anyio.sleep(0.02)
            server.kill()
    account = lab.runners[0].accounts[0]
    assert account["status"] == "complete"
    for figures in account["sinks"]:
        assert figures["delivered"] == figures["received"] >= 16_000
    (recording,) = account["sinks"][1]["outcome"]["files"]
    frequency, _ = tone((tmp_path / recording["path"]).read_bytes()[6400:])
    assert frequency == pytest.approx(TONE_HZ, abs=0.5)
    assert sum(seconds for _, seconds in lab.stored()) == pytest.approx(recording["seconds"])


class _Engine(RecordingEngine):
    def __init__(self, session: type[RecordedSession]) -> None:
        super().__init__()
        self._session = session

    @asynccontextmanager
    async def open(self, stream: Stream) -> AsyncIterator[RecordedSession]:
        session = self._session(stream)
        self.sessions.append(session)
        try:
            yield session
        finally:
            session.ended = True


async def test_what_finds_no_room_is_concealed_in_its_place(server: object) -> None:
    """While the sinks are full the ring overflows; the silence is exactly as long as what is missing."""

    class Full(RecordedSession):
        def push(self, data: bytes, track: str = "inbound") -> bool:
            return super().push(data, track) and self._samples(track) != 3200

        async def ready(self) -> None:
            await anyio.sleep(1.2)  # what is tested is time itself

    engine = _Engine(Full)
    with anyio.fail_after(20):
        await Mic(seconds=4, buffer_ms=500).serve(engine)
    (session,) = engine.sessions
    assert len(session.audio["inbound"]) == 2 * 64000
    ((track, position, samples, reason),) = session.concealed
    assert (track, reason, position) == ("inbound", "overrun", 3200 + 8000)
    assert 4800 <= samples <= 40000 and samples % 320 == 0
    pcm = numpy.frombuffer(session.audio["inbound"], "<i2")
    assert not pcm[position : position + samples].any()
    before, after = pcm[position - 3200 : position], pcm[position + samples : position + samples + 3200]
    turn = phase(after, position + samples) - phase(before, position - 3200)
    assert abs(numpy.angle(numpy.exp(1j * turn))) < 0.1  # a block more or less would turn it by 4.3


async def test_a_lost_device_ends_the_call(server: subprocess.Popen[bytes]) -> None:
    """When the sound server dies the stream ends by itself, with what came before."""

    class Fatal(RecordedSession):
        def push(self, data: bytes, track: str = "inbound") -> bool:
            if self._samples(track) == 3200:
                server.kill()
            return super().push(data, track)

    engine = _Engine(Fatal)
    with anyio.fail_after(20):
        await Mic().serve(engine)
    assert engine.sessions[0].ended
    assert len(engine.sessions[0].audio["inbound"]) >= 2 * 3200


async def test_a_session_that_cannot_go_on_ends_the_call(server: object) -> None:
    """When every sink has failed the microphone is closed; it can be opened again."""

    class Failing(RecordedSession):
        def push(self, data: bytes, track: str = "inbound") -> bool:
            raise SessionError("every sink has failed")

    for _ in range(2):
        with anyio.fail_after(20):
            await Mic().serve(_Engine(Failing))


async def test_cancelling_closes_the_device(server: object) -> None:
    """A stop from outside leaves no capture behind."""
    heard = anyio.Event()

    class Listening(RecordedSession):
        def push(self, data: bytes, track: str = "inbound") -> bool:
            heard.set()
            return super().push(data, track)

    engine = _Engine(Listening)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(Mic(id=PathTemplate("desk")).serve, engine)
            await heard.wait()
            group.cancel_scope.cancel()
    assert engine.sessions[0].ended and engine.sessions[0].stream.id == "desk"
    out = await anyio.run_process(["pactl", "list", "short", "source-outputs"])
    assert out.stdout == b""


async def test_a_device_that_is_not_there(server: object) -> None:
    """The name is told, and how to find the right one."""
    with pytest.raises(SourceError, match=r"microphone 'theremin': .*theremin.*`python -m sounddevice` lists"):
        await Mic(device="theremin").serve(RecordingEngine())


async def test_a_server_that_is_gone(server: subprocess.Popen[bytes]) -> None:
    """A device that is known but does not open is an error, not a call without audio."""
    server.kill()
    server.wait()
    engine = RecordingEngine()
    with pytest.raises(SourceError, match="the default microphone: "):
        await Mic().serve(engine)
    assert engine.sessions == []


@pytest.mark.parametrize(
    ("break_it", "fix"),
    [
        ("sys.modules['sounddevice'] = None", "a microphone needs sounddevice: pip install mediaflow[mic]"),
        ("ctypes.util.find_library = lambda name: None", "a microphone needs PortAudio: apt-get install libportaudio2"),
    ],
)
def test_what_is_not_installed(break_it: str, fix: str) -> None:
    """Without the package or without its library the error is the command that brings it."""
    script = (
        "import anyio, ctypes.util, sys\n"
        f"{break_it}\n"
        "from mediaflow.testing import RecordingEngine; from mediaflow_plugins.source_mic import Mic\n"
        "try: anyio.run(Mic().serve, RecordingEngine())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env={**os.environ})
    assert out.stdout == f"SourceError {fix}\n", out.stderr


class TestRing:
    """The ring by itself: what PortAudio reports cannot be brought about on a virtual device."""

    async def test_an_overflow_before_us_is_measured_by_its_time_stamps(self) -> None:
        """Blocks stamped 60 ms apart with an overflow between them have 40 ms missing; without one they do not."""
        with _Bell() as bell:
            ring = _Ring(Mic(), bell)
            for time, overflow in ((1.0, False), (1.0205, False), (1.08, True)):
                flags = SimpleNamespace(input_overflow=overflow)
                ring.put(b"ab" * 320, 320, SimpleNamespace(inputBufferAdcTime=time), flags)
            ring.finish()
            blocks = [await ring.take() for _ in range(5)]
        assert blocks == [b"ab" * 320, b"ab" * 320, 632, b"ab" * 320, None]
        assert ring.overflows == 1

    async def test_a_loss_at_the_very_end_is_told(self) -> None:
        """Blocks that found no room count even if none came after them."""
        with _Bell() as bell:
            ring = _Ring(Mic(buffer_ms=100), bell)
            for _ in range(7):
                stamp, flags = SimpleNamespace(inputBufferAdcTime=0.0), SimpleNamespace(input_overflow=False)
                ring.put(b"ab" * 320, 320, stamp, flags)
            ring.finish()
            blocks = [await ring.take() for _ in range(7)]
        assert blocks == [*[b"ab" * 320] * 5, 640, None]
