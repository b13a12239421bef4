"""The disk sink: what is on the disk when, under which name, and what a failing disk does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import wave
from pathlib import Path

import anyio
import numpy
import pytest
import soundfile

from mediaflow import AudioFormat, AudioFrame, Cut, FormatError, Gap, Item, PathTemplate, SinkError, Stream
from mediaflow.testing import frames, write_all
from mediaflow.wav import WavReader
from mediaflow_plugins.sink_disk import Disk

pytestmark = pytest.mark.anyio

PCM = AudioFormat("s16le", 16000)
SECOND = numpy.random.default_rng(3).bytes(32000)


def disk(path: Path | str, sync_ms: int = 1000) -> Disk:
    return Disk(path=PathTemplate(str(path)), sync_ms=sync_ms)


def stream(id: str = "call", tracks: tuple[str, ...] = ("inbound",), **metadata: str) -> Stream:
    return Stream(id, PCM, tracks, metadata)


def audio(path: Path | str) -> bytes:
    with WavReader(Path(path)) as wav:
        return wav.read(1 << 30)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_call_becomes_a_file(tmp_path: Path) -> None:
    """All samples are in the file, counted as delivered, and the outcome tells where."""
    path = tmp_path / "new" / "folder" / "{call_id}.wav"
    writer = await write_all(disk(path), stream(), frames(SECOND * 3, PCM, range(320, 48000, 320)))
    file = tmp_path / "new/folder/call.wav"
    assert audio(file) == SECOND * 3
    assert writer.delivered == 48000
    assert writer.outcome == {"files": [{"path": str(file), "samples": 48000, "seconds": 3.0, "start": 0.0}]}
    with wave.open(str(file)) as other:
        assert other.readframes(100_000) == SECOND * 3


@pytest.mark.parametrize(
    "format", [AudioFormat("mulaw", 8000), AudioFormat("alaw", 8000), AudioFormat("s16le", 48000, 2)]
)
async def test_formats_are_kept(tmp_path: Path, format: AudioFormat) -> None:
    """G.711 stays G.711 and stereo stays stereo."""
    await write_all(disk(tmp_path / "a.wav"), stream(), frames(SECOND, format))
    with WavReader(tmp_path / "a.wav") as wav:
        assert (wav.format, wav.read(1 << 30)) == (format, SECOND)


async def test_delivered_means_on_the_disk(tmp_path: Path) -> None:
    """Nothing counts before the disk has it; what counts can be read by others while the call goes on."""
    items = frames(SECOND, PCM, range(320, 16000, 320))
    async with disk(tmp_path / "a.wav", sync_ms=100).open(stream(), PCM, ("inbound",)) as writer:
        for item in items[:5]:
            assert writer.write_nowait(item)
        assert writer.delivered == 0
        assert not writer.write_nowait(items[5])
        await writer.write(items[5])
        assert writer.delivered == 6 * 320
        assert audio(tmp_path / "a.wav") == SECOND[: 6 * 640]
        assert soundfile.info(str(tmp_path / "a.wav")).frames == 6 * 320
        assert writer.write_nowait(items[6])
        assert writer.delivered == 6 * 320
    assert writer.delivered == 7 * 320
    assert audio(tmp_path / "a.wav") == SECOND[: 7 * 640]


async def test_an_aborted_call_keeps_its_audio(tmp_path: Path) -> None:
    """Leaving by an exception still saves every sample that was taken."""
    with pytest.raises(RuntimeError, match="boom"):
        async with disk(tmp_path / "a.wav").open(stream(), PCM, ("inbound",)) as writer:
            assert writer.write_nowait(frames(SECOND, PCM)[0])
            raise RuntimeError("boom")
    assert audio(tmp_path / "a.wav") == SECOND
    assert writer.delivered == 16000
    assert writer.outcome["files"][0]["samples"] == 16000


async def test_a_cancelled_call_keeps_its_audio(tmp_path: Path) -> None:
    """Nor does cancelling lose anything, even where the finish itself is cut short."""
    with anyio.CancelScope() as scope:
        async with disk(tmp_path / "a.flac").open(stream(), PCM, ("inbound",)) as writer:
            await writer.write(frames(SECOND * 2, PCM)[0])
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert names(tmp_path) == ["a.flac.part.wav"]
    assert audio(tmp_path / "a.flac.part.wav") == SECOND * 2
    assert writer.outcome["files"][0]["path"].endswith("a.flac.part.wav")


async def test_a_cancelled_sync_stores_what_it_took(tmp_path: Path) -> None:
    """A write that is cancelled at once still brings its audio to the disk, once."""
    with anyio.CancelScope() as scope:
        async with disk(tmp_path / "a.wav").open(stream(), PCM, ("inbound",)) as writer:
            scope.cancel()
            await writer.write(frames(SECOND * 2, PCM)[0])
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert audio(tmp_path / "a.wav") == SECOND * 2
    assert writer.delivered == 32000


async def test_encoding_stops_when_cancelled(tmp_path: Path) -> None:
    """A deadline that falls into the encoding ends it; the audio stays as it was, nothing half-made remains."""
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            async with disk(tmp_path / "a.opus").open(stream(), PCM, ("inbound",)) as writer:
                await writer.write(frames(SECOND * 120, PCM)[0])

                async def cancel_when_encoding() -> None:
                    while not (tmp_path / "a.opus.part").exists():
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()

                group.start_soon(cancel_when_encoding)
    assert scope.cancelled_caught
    assert names(tmp_path) == ["a.opus.part.wav"]
    assert audio(tmp_path / "a.opus.part.wav") == SECOND * 120


async def test_a_call_without_audio_leaves_no_file(tmp_path: Path) -> None:
    """A file is made by its first sample."""
    async with disk(tmp_path / "a.wav").open(stream(), PCM, ("inbound",)) as writer:
        await writer.write(AudioFrame(b"", PCM))
        await writer.write(Gap("inbound", 0, 1, "lost"))
    assert names(tmp_path) == []
    assert writer.outcome == {"files": []}


class TestContainers:
    async def test_flac(self, tmp_path: Path) -> None:
        """FLAC holds the very samples, and nothing else stays behind."""
        writer = await write_all(disk(tmp_path / "a.flac"), stream(), frames(SECOND * 5, PCM, range(320, 80000, 320)))
        assert names(tmp_path) == ["a.flac"]
        assert soundfile.read(str(tmp_path / "a.flac"), dtype="int16")[0].tobytes() == SECOND * 5
        assert (tmp_path / "a.flac").stat().st_mode & 0o777 == 0o600
        assert writer.outcome["files"][0]["path"] == str(tmp_path / "a.flac")

    @pytest.mark.parametrize("suffix", [".opus", ".ogg"])
    async def test_opus(self, tmp_path: Path, suffix: str) -> None:
        """Opus holds the tone and the length."""
        tone = (8000 * numpy.sin(2 * numpy.pi * 440 * numpy.arange(32000) / 16000)).astype("<i2").tobytes()
        await write_all(disk(tmp_path / f"a{suffix}"), stream(), frames(tone, PCM))
        data, rate = soundfile.read(str(tmp_path / f"a{suffix}"))
        peak = numpy.abs(numpy.fft.rfft(data)).argmax() * rate / len(data)
        assert abs(peak - 440) < 1
        assert len(data) / rate == pytest.approx(2, abs=0.001)

    async def test_the_growing_file_is_a_valid_wav(self, tmp_path: Path) -> None:
        """Before it is encoded, the recording plays under a name that says what it is."""
        async with disk(tmp_path / "a.flac").open(stream(), PCM, ("inbound",)) as writer:
            await writer.write(frames(SECOND, PCM)[0])
            assert names(tmp_path) == ["a.flac.part.wav"]
            assert audio(tmp_path / "a.flac.part.wav") == SECOND
            assert writer.delivered == 16000

    def test_an_unknown_suffix(self) -> None:
        """The suffix says what to write, so it must be one of four."""
        with pytest.raises(ValueError, match=re.escape("path a/{call_id}.mp3 must end in .wav, .flac, .opus or .ogg")):
            disk("a/{call_id}.mp3").check()
        disk("a/{call_id}.WAV").check()

    def test_without_soundfile(self) -> None:
        """Where the library is missing the check says how to get it; WAV needs none."""
        script = (
            "import sys; from importlib.machinery import PathFinder\n"
            "find = PathFinder.find_spec\n"
            "PathFinder.find_spec = lambda name, *a: None if name == 'soundfile' else find(name, *a)\n"
            "from mediaflow import PathTemplate; from mediaflow_plugins.sink_disk import Disk\n"
            "Disk().check()\n"
            "try: Disk(path=PathTemplate('a.flac')).check()\n"
            "except ValueError as error: print(error)"
        )
        out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert out.stdout == ".flac files need soundfile: pip install mediaflow[files]\n", out.stderr


class TestTracksAndChunks:
    BOTH = ("inbound", "outbound")

    async def test_one_file_per_track(self, tmp_path: Path) -> None:
        """Each side has its own file, which tells where in the call it begins."""
        items: list[Item] = [
            AudioFrame(SECOND, PCM, "inbound", 0),
            AudioFrame(SECOND[::-1], PCM, "outbound", 8000),
            AudioFrame(SECOND, PCM, "inbound", 16000),
        ]
        writer = await write_all(disk(tmp_path / "{call_id}/{track}.wav"), stream(tracks=self.BOTH), items)
        assert audio(tmp_path / "call/inbound.wav") == SECOND * 2
        assert audio(tmp_path / "call/outbound.wav") == SECOND[::-1]
        assert [(file["samples"], file["start"]) for file in writer.outcome["files"]] == [(32000, 0.0), (16000, 0.5)]
        assert writer.delivered == 48000

    def test_two_tracks_need_the_place_for_it(self) -> None:
        """Two tracks in one file are refused before a call comes, with the ways out."""
        with pytest.raises(
            FormatError, match=r"2 tracks \(inbound, outbound\).*`- use: stereo` or `- use: mix`.*{track}"
        ):
            disk("a.wav").check_format(PCM, self.BOTH)
        disk("{track}.wav").check_format(PCM, self.BOTH)
        disk("a.wav").check_format(PCM, ("joined",))

    @pytest.mark.parametrize(
        ("path", "format", "message"),
        [
            ("a.flac", AudioFormat("mulaw", 8000), "take s16le, not mulaw .*mulaw_decode"),
            ("a.opus", AudioFormat("alaw", 8000), "take s16le, not alaw .*alaw_decode"),
            ("a.ogg", AudioFormat("s16le", 44100), "Opus takes 8000, .* not 44100 .*resample"),
        ],
    )
    def test_what_a_container_cannot_hold(self, path: str, format: AudioFormat, message: str) -> None:
        """The error names the step that is missing."""
        with pytest.raises(FormatError, match=message):
            disk(path).check_format(format, ("inbound",))

    async def test_a_cut_begins_a_file(self, tmp_path: Path) -> None:
        """Chunks are numbered, no sample is lost between them, and a cut without audio makes no file."""
        items: list[Item] = [Cut("joined", 0), AudioFrame(b"", PCM, "joined"), Cut("joined", 0)]
        for second in range(3):
            items += [*frames(SECOND, PCM, (5000,), "joined"), Cut("joined", second + 1.0)]
        writer = await write_all(disk(tmp_path / "{chunk}.wav"), stream(tracks=("joined",)), items)
        assert names(tmp_path) == ["0001.wav", "0002.wav", "0003.wav"]
        assert all(audio(tmp_path / name) == SECOND for name in names(tmp_path))
        assert writer.delivered == 48000
        assert len(writer.outcome["files"]) == 3

    async def test_chunks_are_complete_while_the_call_goes_on(self, tmp_path: Path) -> None:
        """An ended chunk is encoded with the next sync, not at the end of the call."""
        async with disk(tmp_path / "{chunk}.flac").open(stream(), PCM, ("inbound",)) as writer:
            await writer.write(frames(SECOND, PCM)[0])
            await writer.write(Cut("inbound", 1))
            await writer.write(frames(SECOND, PCM)[0])
            assert names(tmp_path) == ["0001.flac", "0002.flac.part.wav"]

    async def test_a_cut_of_one_track_leaves_the_other(self, tmp_path: Path) -> None:
        """A cut goes to the track it names, or to all if it names none of these."""
        items: list[Item] = [
            AudioFrame(SECOND, PCM, "inbound"),
            AudioFrame(SECOND, PCM, "outbound"),
            Cut("inbound", 1),
            AudioFrame(SECOND, PCM, "inbound", 16000),
            AudioFrame(SECOND, PCM, "outbound", 16000),
            Cut("joined", 2),
            AudioFrame(SECOND, PCM, "outbound", 32000),
        ]
        await write_all(disk(tmp_path / "{track}-{chunk}.wav"), stream(tracks=self.BOTH), items)
        assert names(tmp_path) == ["inbound-0001.wav", "inbound-0002.wav", "outbound-0001.wav", "outbound-0002.wav"]
        assert audio(tmp_path / "outbound-0001.wav") == SECOND * 2

    async def test_without_chunk_cuts_are_ignored(self, tmp_path: Path) -> None:
        """A path that cannot tell chunks apart takes the whole call."""
        items: list[Item] = [*frames(SECOND, PCM), Cut("inbound", 1), *frames(SECOND, PCM)]
        await write_all(disk(tmp_path / "a.wav"), stream(), items)
        assert audio(tmp_path / "a.wav") == SECOND * 2


class TestNames:
    @pytest.mark.parametrize("suffix", [".wav", ".flac"])
    async def test_nothing_is_overwritten(self, tmp_path: Path, suffix: str) -> None:
        """A name that is taken gets a number, whether its file is complete or still grows."""
        sink = disk(tmp_path / f"{{call_id}}{suffix}")
        async with sink.open(stream(), PCM, ("inbound",)) as growing:
            await growing.write(frames(SECOND, PCM)[0])
            second = await write_all(sink, stream(), frames(SECOND[:200], PCM))
        third = await write_all(sink, stream(), frames(SECOND[:100], PCM))
        assert [Path(each.outcome["files"][0]["path"]).name for each in (growing, second, third)] == [
            f"call{suffix}", f"call-2{suffix}", f"call-3{suffix}",
        ]  # fmt: skip
        assert [soundfile.info(str(tmp_path / name)).frames for name in names(tmp_path)] == [100, 50, 16000]

    @pytest.mark.parametrize(
        "id",
        ["../../etc/passwd", "..", "", "a/b", "/etc/cron.d/x", "\0", "a\nb", "x" * 300, "रोगी", "\ud800", "~", "-"],
        ids=ascii,
    )
    async def test_no_way_out_of_the_folder(self, tmp_path: Path, id: str) -> None:
        """Whatever a call id holds, its file is in the folder and nothing is anywhere else."""
        folder = tmp_path / "in" / "here"
        await write_all(disk(folder / "{call_id}.wav"), stream(id), frames(SECOND, PCM))
        assert len(names(folder)) == 1
        assert len(names(tmp_path)) == 1
        assert audio(folder / names(folder)[0]) == SECOND

    async def test_ids_that_look_alike_stay_apart(self, tmp_path: Path) -> None:
        """Two ids that become the same when made safe have files of their own."""
        for id in ("a/b", "a?b", "a_b"):
            await write_all(disk(tmp_path / "{call_id}.wav"), stream(id), frames(id.encode() * 2, PCM))
        assert sorted(audio(tmp_path / name) for name in names(tmp_path)) == [b"a/ba/b", b"a?ba?b", b"a_ba_b"]

    async def test_metadata_and_time(self, tmp_path: Path) -> None:
        """What the source tells can be named; it cannot pose as the call's id."""
        path = tmp_path / "{date}/{time}-{call_id}-{stream_id}-{nothing}.wav"
        await write_all(disk(path), stream("c1", stream_id="s9", call_id="forged"), frames(SECOND, PCM))
        assert re.fullmatch(r"\d{4}-\d\d-\d\d/\d{6}-c1-s9-unknown\.wav", names(tmp_path)[0])


class TestFailures:
    @pytest.mark.parametrize(
        ("prepare", "code"),
        [
            (lambda folder: (folder / "sub").write_bytes(b""), "disk-error"),
            (lambda folder: (folder / "sub").symlink_to("/proc/self"), "disk-error"),
            (lambda folder: (folder / "sub").symlink_to("/dev/full/x"), "disk-error"),
        ],
        ids=["a file in the way", "a file system that takes none", "a dangling link"],
    )
    async def test_where_no_file_can_be(self, tmp_path: Path, prepare, code: str) -> None:  # type: ignore[no-untyped-def]
        """The error tells the path as it was configured, without the id of the call."""
        prepare(tmp_path)
        with anyio.fail_after(10), pytest.raises(SinkError, match=r"cannot write .*/sub/\{call_id\}\.wav: ") as caught:
            await write_all(disk(tmp_path / "sub/{call_id}.wav", sync_ms=20), stream("+911234567"), frames(SECOND, PCM))
        assert caught.value.code == code
        assert "911234567" not in str(caught.value)

    def run(self, tmp_path: Path, script: str) -> str:
        """Run a script that has limits of its own, and return what it prints."""
        prelude = (
            "import anyio, os, resource, sys\n"
            "from mediaflow import AudioFormat, AudioFrame, PathTemplate, SinkError, Stream\n"
            "from mediaflow_plugins.sink_disk import Disk\n"
            "PCM = AudioFormat('s16le', 16000)\n"
            "stream = Stream('call', PCM)\n"
            "def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))\n"
            "def open(name): return Disk(path=PathTemplate(sys.argv[1] + name)).open(stream, PCM, ('inbound',))\n"
        )
        command = [sys.executable, "-c", prelude + script, f"{tmp_path}/"]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """When the disk is full the sink fails with a code; what was delivered stays and is all that is in the file."""
        out = self.run(
            tmp_path,
            """
async def main():
    limit(100_000)
    try:
        async with open('a.wav') as writer:
            for number in range(1, 5):
                await writer.write(AudioFrame(bytes([number]) * 32000, PCM))
    except SinkError as error:
        print(error.code, writer.delivered, writer.outcome['files'][0]['samples'], error)
anyio.run(main)
""",
        )
        assert out == f"disk-full 48000 48000 cannot write {tmp_path}/a.wav: File too large\n"
        assert audio(tmp_path / "a.wav") == b"".join(bytes([number]) * 32000 for number in (1, 2, 3))
        assert (tmp_path / "a.wav").stat().st_size == 80 + 96000

    def test_a_disk_that_is_full_from_the_start(self, tmp_path: Path) -> None:
        """Where not even the first second fits, no empty recording is left behind."""
        out = self.run(
            tmp_path,
            """
async def main():
    limit(1000)
    try:
        async with open('a.wav') as writer:
            await writer.write(AudioFrame(bytes(64000), PCM))
    except SinkError as error:
        print(error.code, writer.delivered, writer.outcome)
anyio.run(main)
""",
        )
        assert out == "disk-full 0 {'files': []}\n"
        assert names(tmp_path) == []

    @pytest.mark.parametrize("suffix", [".flac", ".opus"])
    def test_a_full_disk_while_encoding(self, tmp_path: Path, suffix: str) -> None:
        """When the encoded file does not fit, the recording stays as it was and the sink says so."""
        out = self.run(
            tmp_path,
            f"""
async def main():
    try:
        async with open('a{suffix}') as writer:
            await writer.write(AudioFrame(os.urandom(640000), PCM))
            limit(5000)
    except SinkError as error:
        print(error.code, writer.delivered, error)
anyio.run(main)
""",
        )
        assert out.startswith("disk-error 320000 cannot write "), out
        assert "stays in a .part.wav" in out
        assert names(tmp_path) == [f"a{suffix}.part.wav"]
        assert len(audio(tmp_path / f"a{suffix}.part.wav")) == 640000

    def test_a_folder_that_is_not_ours(self, tmp_path: Path) -> None:
        """Where writing is not allowed the code is disk-refused."""
        if os.geteuid() != 0:
            tmp_path.chmod(0o500)
        out = self.run(
            tmp_path,
            """
async def main():
    if os.geteuid() == 0:
        os.setegid(65534); os.seteuid(65534)
    try:
        async with open('a.wav') as writer:
            await writer.write(AudioFrame(bytes(64000), PCM))
    except SinkError as error:
        print(error.code, error)
anyio.run(main)
""",
        )
        assert out == f"disk-refused cannot write {tmp_path}/a.wav: Permission denied\n"

    @pytest.mark.parametrize("suffix", [".wav", ".flac"])
    def test_a_kill_leaves_all_that_was_delivered(self, tmp_path: Path, suffix: str) -> None:
        """After SIGKILL in the middle of a call, every delivered sample can be read."""
        script = (
            "import anyio, sys; from mediaflow import *; from mediaflow_plugins.sink_disk import Disk\n"
            "PCM = AudioFormat('s16le', 16000)\n"
            "async def main():\n"
            "    async with Disk(path=PathTemplate(sys.argv[1])).open(Stream('c', PCM), PCM, ('inbound',)) as writer:\n"
            "        for number in range(1, 56):\n"
            "            frame = AudioFrame(bytes([number]) * 3200, PCM)\n"
            "            writer.write_nowait(frame) or await writer.write(frame)\n"
            "        print(writer.delivered, flush=True); await anyio.sleep_forever()\n"
            "anyio.run(main)"
        )
        command = [sys.executable, "-c", script, f"{tmp_path}/a{suffix}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            delivered = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
        assert 32000 <= delivered <= 55 * 1600
        left = tmp_path / ("a.wav" if suffix == ".wav" else "a.flac.part.wav")
        expected = b"".join(bytes([number]) * 3200 for number in range(1, 56))[: 2 * delivered]
        assert audio(left) == expected
        assert soundfile.read(str(left), dtype="int16")[0].tobytes() == expected
