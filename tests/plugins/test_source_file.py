"""The file source: every kind of file, its pace, and what it says of files that are wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import numpy
import pytest
import soundfile

from mediaflow import AudioFormat, SessionError, SourceError, Stream, dsp
from mediaflow.testing import RecordedSession, RecordingEngine
from mediaflow.wav import WavWriter
from mediaflow_plugins.source_file import File

pytestmark = pytest.mark.anyio

PCM = AudioFormat("s16le", 8000)
NOISE = numpy.random.default_rng(5).bytes(2 * 8000 * 3 + 246)
TONE = 0.5 * numpy.sin(2 * numpy.pi * 440 * numpy.arange(16000) / 8000)


def wav(path: Path, data: bytes = NOISE, format: AudioFormat = PCM) -> Path:
    writer = WavWriter(path, format)
    writer.write(data)
    writer.sync()
    writer.close()
    return path


async def play(source: File) -> RecordedSession:
    engine = RecordingEngine()
    source.check()
    with anyio.fail_after(30):
        await source.serve(engine)
    assert len(engine.sessions) == 1 and engine.sessions[0].ended
    return engine.sessions[0]


class TestFiles:
    @pytest.mark.parametrize("encoding", ["s16le", "mulaw", "alaw"])
    async def test_mono(self, tmp_path: Path, encoding: str) -> None:
        """One channel is the inbound track, in the encoding of the file; the call is named after the file."""
        format = AudioFormat(encoding, 8000)  # type: ignore[arg-type]
        source = File(path=str(wav(tmp_path / "visit.1.wav", NOISE, format)))
        session = await play(source)
        assert session.stream == Stream("visit.1", format)
        assert session.audio == {"inbound": NOISE}
        assert list(source.formats()) == [(format, ("inbound",))]

    @pytest.mark.parametrize("encoding", ["s16le", "mulaw"])
    async def test_stereo(self, tmp_path: Path, encoding: str) -> None:
        """Left is inbound, right is outbound, each a mono track."""
        stereo, mono = AudioFormat(encoding, 8000, 2), AudioFormat(encoding, 8000)  # type: ignore[arg-type]
        left, right = NOISE[:20_000], NOISE[20_000:40_000]
        data = bytearray(40_000)
        for byte in range(mono.sample_bytes):
            data[byte :: stereo.sample_bytes] = left[byte :: mono.sample_bytes]
            data[byte + mono.sample_bytes :: stereo.sample_bytes] = right[byte :: mono.sample_bytes]
        source = File(path=str(wav(tmp_path / "a.wav", bytes(data), stereo)), id="call-7")
        session = await play(source)
        assert session.stream == Stream("call-7", mono, ("inbound", "outbound"))
        assert session.audio == {"inbound": left, "outbound": right}
        assert list(source.formats()) == [(mono, ("inbound", "outbound"))]

    @pytest.mark.parametrize("frame_ms", [5, 20, 33, 1000])
    @pytest.mark.parametrize("rate", [8000, 11025])
    async def test_frame_length_does_not_matter(self, tmp_path: Path, frame_ms: int, rate: int) -> None:
        """Every frame length gives the same samples, also where it is no whole number of them."""
        path = wav(tmp_path / "a.wav", format=AudioFormat("s16le", rate))
        assert (await play(File(path=str(path), frame_ms=frame_ms))).audio["inbound"] == NOISE

    @pytest.mark.parametrize("start_s", [0.1, 1.0, 2.345, 9.0])
    async def test_beginning_in_the_middle(self, tmp_path: Path, start_s: float) -> None:
        """What lies before the start is not played, and the stream counts as if it had been."""
        file = wav(tmp_path / "visit.wav", NOISE[: len(NOISE) // 4 * 4], AudioFormat("s16le", 8000, 2))
        whole = (await play(File(path=str(file)))).audio
        session = await play(File(path=str(file), start_s=start_s))
        start = min(round(8000 * start_s), len(whole["inbound"]) // 2)
        assert session.starts == {"inbound": start, "outbound": start}
        for track in ("inbound", "outbound"):
            assert bytes(session.audio.get(track, b"")) == whole[track][2 * start :]

    async def test_a_file_without_samples(self, tmp_path: Path) -> None:
        """It is a call without audio."""
        assert (await play(File(path=str(wav(tmp_path / "a.wav", b""))))).audio.get("inbound", b"") == b""

    @pytest.mark.parametrize(
        ("name", "options", "format"),
        [
            ("a.ulaw", {}, AudioFormat("mulaw", 8000)),
            ("a.alaw", {"sample_rate": 16000}, AudioFormat("alaw", 16000)),
            ("a.raw", {"sample_rate": 44100}, AudioFormat("s16le", 44100)),
            ("a.PCM", {"sample_rate": 24000}, AudioFormat("s16le", 24000)),
            ("a.bin", {"encoding": "mulaw", "sample_rate": 8000}, AudioFormat("mulaw", 8000)),
        ],
    )
    async def test_raw(self, tmp_path: Path, name: str, options: dict[str, object], format: AudioFormat) -> None:
        """A file without a header is read as its suffix or the options say."""
        (tmp_path / name).write_bytes(NOISE)
        source = File(path=str(tmp_path / name), **options)  # type: ignore[arg-type]
        session = await play(source)
        assert session.stream.format == format
        assert session.audio == {"inbound": NOISE}

    async def test_raw_stereo(self, tmp_path: Path) -> None:
        """Two channels without a header are taken apart too."""
        (tmp_path / "a.raw").write_bytes(NOISE[:4000])
        session = await play(File(path=str(tmp_path / "a.raw"), sample_rate=8000, channels=2))
        assert list(session.audio.values()) == dsp.deinterleave(NOISE[:4000], 2)

    @pytest.mark.parametrize(
        ("suffix", "subtype", "tolerance"),
        [
            ("flac", "PCM_16", 0.001),
            ("flac", "PCM_24", 0.001),
            ("ogg", "VORBIS", 0.05),
            ("opus", "OPUS", 0.05),
            ("mp3", "MPEG_LAYER_III", 0.05),
            ("aiff", "FLOAT", 0.001),
            ("caf", "DOUBLE", 0.001),
            ("au", "ULAW", 0.05),
        ],
    )
    async def test_what_soundfile_reads(self, tmp_path: Path, suffix: str, subtype: str, tolerance: float) -> None:
        """Compressed files and those of floats come out at the level they have."""
        path = tmp_path / f"a.{suffix}"
        kind = "OGG" if suffix == "opus" else None
        soundfile.write(str(path), TONE, 8000, subtype, format=kind)
        session = await play(File(path=str(path)))
        assert session.stream.format == PCM
        pcm = numpy.frombuffer(session.audio["inbound"], "<i2") / 32768
        assert abs(len(pcm) - len(TONE)) <= 2400  # an MP3 begins and ends with some frames of its own
        middle = pcm[4000:12000]
        assert numpy.sqrt(2 * numpy.mean(middle**2)) == pytest.approx(0.5, abs=tolerance)
        assert numpy.abs(numpy.fft.rfft(middle)).argmax() == 440

    async def test_flac_in_stereo(self, tmp_path: Path) -> None:
        """Channels are taken apart whoever decodes them."""
        soundfile.write(str(tmp_path / "a.flac"), numpy.stack([TONE, -TONE], 1), 8000)
        session = await play(File(path=str(tmp_path / "a.flac")))
        left, right = (numpy.frombuffer(session.audio[track], "<i2") for track in ("inbound", "outbound"))
        assert len(left) == len(TONE) and abs(left + right).max() <= 1

    async def test_hours_in_constant_memory(self, tmp_path: Path) -> None:
        """An hour of 48 kHz stereo (691 MB) is read through in a few megabytes."""
        path = tmp_path / "long.wav"
        format = AudioFormat("s16le", 48000, 2)
        writer = WavWriter(path, format)
        writer.samples = 48000 * 3600 - 1  # a hole: it takes no disk
        writer.write(b"\1\0\2\0")
        writer.sync(durable=False)
        writer.close()
        script = """
import anyio, resource, sys
from contextlib import asynccontextmanager
from mediaflow_plugins.source_file import File
class Session:
    count = 0; last = b""
    def __init__(self, stream): self.stream = stream
    def push(self, data, track): self.count += len(data) // 2; self.last = data[-2:]; return True
class Engine:
    @asynccontextmanager
    async def open(self, stream): self.session = Session(stream); yield self.session
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
async def main():
    before, engine = peak(), Engine()
    await File(path=sys.argv[1]).serve(engine)
    print(engine.session.count, engine.session.last.hex(), peak() - before)
anyio.run(main)
"""
        run = await anyio.run_process([sys.executable, "-c", script, str(path)], stderr=None)
        count, last, kilobytes = run.stdout.decode().split()
        assert (count, last) == (str(2 * 48000 * 3600), "0200")
        assert int(kilobytes) < 20_000


class _Timed(RecordedSession):
    """Notes when frames come, and has room for two at a time where it is told to."""

    def __init__(self, stream: Stream, narrow: bool = False) -> None:
        super().__init__(stream)
        self.times: list[tuple[str, int, float]] = []
        self.waiting = self.most = 0
        self._narrow = narrow

    def push(self, data: bytes, track: str = "inbound") -> bool:
        self.times.append((track, len(data), anyio.current_time()))
        super().push(data, track)
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        return not self._narrow or self.waiting < 2

    async def ready(self) -> None:
        await super().ready()
        self.waiting = 0


class _Engine(RecordingEngine):
    def __init__(self, narrow: bool = False) -> None:
        super().__init__()
        self._narrow = narrow

    @asynccontextmanager
    async def open(self, stream: Stream) -> AsyncIterator[RecordedSession]:
        self.session = _Timed(stream, self._narrow)
        yield self.session


class TestPace:
    async def test_real_time(self, tmp_path: Path) -> None:
        """No frame comes before its time, both sides come together, and the call lasts no less than its audio."""
        engine, speed = _Engine(), 10
        path = wav(tmp_path / "a.wav", bytes(4 * 12_080), AudioFormat("s16le", 8000, 2))
        begun = anyio.current_time()
        with anyio.fail_after(10):
            await File(path=str(path), speed=speed).serve(engine)
        lasted = anyio.current_time() - begun
        times = engine.session.times
        assert [track for track, _, _ in times] == ["inbound", "outbound"] * 76
        assert [size for _, size, _ in times] == [320] * 150 + [160, 160]
        # Only too early is wrong: on a busy machine any of them may be late, the first as well.
        assert all(time - begun >= (index // 2) * 0.02 / speed - 0.002 for index, (_, _, time) in enumerate(times))
        assert lasted >= 1.51 / speed

    async def test_frames_do_not_drift(self, tmp_path: Path) -> None:
        """Where a frame is no whole number of samples, frames differ by one and a second still has fifty."""
        engine = _Engine()
        path = wav(tmp_path / "a.wav", bytes(2 * 11025 * 3), AudioFormat("s16le", 11025))
        await File(path=str(path)).serve(engine)
        assert [size for _, size, _ in engine.session.times] == [440, 442] * 75

    async def test_a_late_frame_does_not_delay_the_next(self, tmp_path: Path) -> None:
        """After a hold-up the source catches up with the clock instead of shifting everything after it."""
        path = wav(tmp_path / "a.wav", NOISE[:16000])

        class Slow(_Timed):
            async def ready(self) -> None:
                await anyio.sleep(0.5)  # what is tested is time itself
                self._narrow = False

        class SlowEngine(RecordingEngine):
            @asynccontextmanager
            async def open(self, stream: Stream) -> AsyncIterator[RecordedSession]:
                self.session = Slow(stream, narrow=True)
                yield self.session

        engine = SlowEngine()
        begun = anyio.current_time()
        with anyio.fail_after(10):
            await File(path=str(path), speed=1.0).serve(engine)
        assert 1.0 <= anyio.current_time() - begun < 1.45
        assert engine.session.audio["inbound"] == NOISE[:16000]

    async def test_max_waits_for_the_sinks(self, tmp_path: Path) -> None:
        """Full speed means as fast as there is room, and nothing is pushed where there is none."""
        engine = _Engine(narrow=True)
        with anyio.fail_after(10):
            await File(path=str(wav(tmp_path / "a.wav"))).serve(engine)
        assert engine.session.audio["inbound"] == NOISE
        assert engine.session.most == 2

    async def test_a_session_that_cannot_go_on_ends_the_call(self, tmp_path: Path) -> None:
        """When every sink has failed the source stops playing, quietly: the engine has said why."""

        class Failing(RecordedSession):
            def push(self, data: bytes, track: str = "inbound") -> bool:
                super().push(data, track)
                raise SessionError("every sink has failed")

        class FailingEngine(RecordingEngine):
            @asynccontextmanager
            async def open(self, stream: Stream) -> AsyncIterator[RecordedSession]:
                self.session = Failing(stream)
                yield self.session

        engine = FailingEngine()
        await File(path=str(wav(tmp_path / "a.wav"))).serve(engine)
        assert engine.session.audio["inbound"] == NOISE[:320]


class TestWrong:
    @pytest.mark.parametrize(
        ("name", "content", "options", "message"),
        [
            ("a.wav", None, {}, "a.wav: No such file or directory"),
            ("a.raw", None, {"sample_rate": 8000}, "a.raw: No such file or directory"),
            ("a.wav", b"RIFF", {}, "at byte 4: the file ends inside the RIFF header"),
            ("a.mp4", b"hello", {}, "a.mp4"),
            ("a.raw", b"ab", {}, "a.raw has no header: add sample_rate"),
            ("a.bin", b"ab", {"encoding": "s16le"}, "a.bin has no header: add sample_rate"),
            ("a.ulaw", b"ab", {"encoding": "s16le"}, "a.ulaw has no header: add sample_rate"),
            ("a.wav", b"ab", {"sample_rate": 8000}, "are for files without a header; set encoding too"),
            ("a.wav", b"ab", {"channels": 2}, "are for files without a header; set encoding too"),
        ],
    )
    def test_the_check_says_what_is_wrong(
        self, tmp_path: Path, name: str, content: bytes | None, options: dict[str, object], message: str
    ) -> None:
        """A pipeline with a file that cannot be played is refused before it runs."""
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(message)):
            File(path=str(tmp_path / name), **options).check()  # type: ignore[arg-type]

    def test_more_than_two_channels(self, tmp_path: Path) -> None:
        """A call has two sides; the error tells how to choose them."""
        path = wav(tmp_path / "a.wav", bytes(600), AudioFormat("s16le", 8000, 6))
        with pytest.raises(ValueError, match=r"has 6 channels, expected 1 or 2; take two of them with `sox"):
            File(path=str(path)).check()

    def test_without_soundfile(self, tmp_path: Path) -> None:
        """Where the library is missing, WAV still plays and the rest says how to get it."""
        wav(tmp_path / "a.wav")
        (tmp_path / "a.flac").write_bytes(b"fLaC")
        script = (
            "import sys; sys.modules['soundfile'] = None\n"
            "from mediaflow_plugins.source_file import File\n"
            "File(path=sys.argv[1] + '/a.wav').check()\n"
            "try: File(path=sys.argv[1] + '/a.flac').check()\n"
            "except ValueError as error: print(error)"
        )
        out = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
        assert out.stdout.endswith("only WAV can be read without soundfile: pip install mediaflow[files]\n"), out.stderr

    @pytest.mark.parametrize("cut", [80 + 32000 + 1, 80 + 40001])
    async def test_a_cut_off_file_plays_what_it_has(self, tmp_path: Path, cut: int) -> None:
        """All that is there is played, wherever in a block it ends; then the source says that the rest is missing."""
        path = wav(tmp_path / "a.wav")
        with path.open("r+b") as file:
            file.truncate(cut)
        engine = RecordingEngine()
        with pytest.raises(SourceError, match=r"the file ends after \d+ of the 24123 samples"):
            await File(path=str(path)).serve(engine)
        assert engine.sessions[0].ended
        assert engine.sessions[0].audio["inbound"] == NOISE[: (cut - 80) // 2 * 2]

    async def test_half_a_sample_at_the_end_of_a_raw_file(self, tmp_path: Path) -> None:
        """The whole samples are played, the rest is told."""
        (tmp_path / "a.raw").write_bytes(NOISE[:999])
        engine = RecordingEngine()
        with pytest.raises(SourceError, match="1 bytes at the end are no whole sample of s16le 8000 Hz mono"):
            await File(path=str(tmp_path / "a.raw"), sample_rate=8000).serve(engine)
        assert engine.sessions[0].audio["inbound"] == NOISE[:998]

    async def test_a_flac_that_a_crash_has_left(self, tmp_path: Path) -> None:
        """A FLAC cut short is played as far as it goes, block by block, and its end is an error."""
        path = tmp_path / "a.flac"
        soundfile.write(str(path), numpy.frombuffer(NOISE, "<i2"), 8000)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
        engine = RecordingEngine()
        with pytest.raises(SourceError, match=r"a\.flac: "):
            await File(path=str(path)).serve(engine)
        played = engine.sessions[0].audio["inbound"]
        assert len(played) >= 2 * 8000
        assert NOISE.startswith(played)
