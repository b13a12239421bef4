"""The WAV writer against a kill, 4 GiB and three independent readers; the reader against what is found in the wild."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import soundfile
from hypothesis import given, settings, strategies as st

from mediaflow import AudioFormat, SourceError, dsp
from mediaflow.wav import HEADER_BYTES, WavReader, WavWriter, wav_header

PCM = AudioFormat("s16le", 16000)
Needs = Callable[..., None]
FORMATS = [
    AudioFormat(encoding, rate, channels)
    for encoding in ("s16le", "mulaw", "alaw")
    for rate in (8000, 44100)
    for channels in (1, 2)
]


def noise(samples: int, format: AudioFormat = PCM) -> bytes:
    """Return bytes that differ everywhere, so that a slip by one sample shows."""
    return numpy.random.default_rng(7).bytes(samples * format.sample_bytes)


def write(path: Path, data: bytes, format: AudioFormat = PCM) -> None:
    writer = WavWriter(path, format)
    writer.write(data)
    writer.sync()
    writer.close()


def read(path: Path, block: int = 1000) -> tuple[AudioFormat, bytes]:
    with WavReader(path) as reader:
        return reader.format, b"".join(iter(lambda: reader.read(block), b""))


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def fmt(tag: int, bits: int, channels: int = 1, rate: int = 8000, more: bytes = b"") -> bytes:
    size = bits // 8 * channels
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * size, size, bits) + more)


def riff(*chunks: bytes, magic: bytes = b"RIFF", size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


class TestWriter:
    @pytest.mark.parametrize("format", FORMATS, ids=str)
    @pytest.mark.parametrize("samples", [0, 1, 777])
    def test_reads_back_as_written(self, tmp_path: Path, format: AudioFormat, samples: int) -> None:
        """Our reader and soundfile agree with what was written, also where the data has odd length."""
        path = tmp_path / "a.wav"
        data = noise(samples, format)
        write(path, data, format)
        assert read(path) == (format, data)
        info = soundfile.info(str(path))
        assert (info.samplerate, info.channels, info.frames) == (format.sample_rate, format.channels, samples)
        assert path.stat().st_size % 2 == 0
        if format.encoding == "s16le":
            assert soundfile.read(str(path), dtype="int16")[0].astype("<i2").tobytes() == data
            with wave.open(str(path)) as file:
                assert file.readframes(samples) == data

    @pytest.mark.parametrize("encoding", ["mulaw", "alaw"])
    def test_other_programs_decode_the_codes(self, tmp_path: Path, encoding: str) -> None:
        """soundfile expands the G.711 codes to the samples that our codec makes of them."""
        path = tmp_path / "a.wav"
        codes = bytes(range(256))
        write(path, codes, AudioFormat(encoding, 8000))  # type: ignore[arg-type]
        decoded = soundfile.read(str(path), dtype="int16")[0].astype("<i2").tobytes()
        assert decoded == getattr(dsp, f"{encoding}_decode")(codes)

    def test_sox_agrees(self, tmp_path: Path, needs: Needs) -> None:
        """sox reads the same samples."""
        needs("sox")
        path = tmp_path / "a.wav"
        write(path, noise(500))
        out = subprocess.run(["sox", path, "-t", "raw", "-"], check=True, capture_output=True, timeout=30)
        assert out.stdout == noise(500)

    def test_a_kill_leaves_all_that_was_synced(self, tmp_path: Path) -> None:
        """After SIGKILL every reader finds the synced samples, at least."""
        path = tmp_path / "a.wav"
        script = (
            "import sys; from pathlib import Path\n"
            "from mediaflow import AudioFormat; from mediaflow.wav import WavWriter\n"
            "w = WavWriter(Path(sys.argv[1]), AudioFormat('s16le', 16000))\n"
            "w.write(b'\\x01\\x02' * 5000); w.sync(); w.write(b'\\x03\\x04' * 100)\n"
            "print('written', flush=True); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"written\n"
            process.send_signal(signal.SIGKILL)
        assert read(path)[1] == b"\x01\x02" * 5000
        assert soundfile.info(str(path)).frames == 5000
        with wave.open(str(path)) as file:
            assert file.readframes(10_000) == b"\x01\x02" * 5000

    def test_what_was_never_synced_is_found_all_the_same(self, tmp_path: Path) -> None:
        """A writer killed before its first sync leaves a length of 0; the reader goes to the end of the file."""
        path = tmp_path / "a.wav"
        writer = WavWriter(path, PCM)
        writer.write(noise(300))
        writer.close()
        assert read(path)[1] == noise(300)

    def test_an_existing_file_is_not_touched(self, tmp_path: Path) -> None:
        """The writer refuses a name that is taken."""
        path = tmp_path / "a.wav"
        path.write_bytes(b"precious")
        with pytest.raises(FileExistsError):
            WavWriter(path, PCM)
        assert path.read_bytes() == b"precious"

    def test_only_the_owner_may_listen(self, tmp_path: Path) -> None:
        """The file has mode 600."""
        write(tmp_path / "a.wav", b"")
        assert (tmp_path / "a.wav").stat().st_mode & 0o777 == 0o600

    def test_rollback_leaves_the_last_sync(self, tmp_path: Path) -> None:
        """File and header agree after a rollback, and writing can go on."""
        path = tmp_path / "a.wav"
        writer = WavWriter(path, PCM)
        writer.write(noise(100))
        writer.sync()
        writer.write(noise(5000))
        writer.rollback()
        assert path.stat().st_size == HEADER_BYTES + 200
        writer.write(b"\1\1")
        writer.sync(durable=False)
        writer.close()
        assert read(path)[1] == noise(100) + b"\1\1"

    def test_half_a_sample_is_refused(self, tmp_path: Path) -> None:
        """A write that ends inside a sample is the caller's mistake."""
        writer = WavWriter(tmp_path / "a.wav", PCM)
        with pytest.raises(ValueError, match="3 bytes of s16le 16000 Hz mono end inside a sample"):
            writer.write(b"abc")
        writer.close()

    @pytest.mark.parametrize("over", [-1, 0, 1, 500_000_000])
    def test_past_four_gib(self, tmp_path: Path, over: int) -> None:
        """Around the limit of the plain header, readers that know RF64 agree on the length and on the last samples."""
        path = tmp_path / "big.wav"
        limit = (2**32 - 1 - 72) // 2  # the most samples that a plain header holds
        writer = WavWriter(path, PCM)
        writer.samples = limit + over - 50  # leap ahead, leaving a hole that takes no disk
        writer.write(noise(50))
        writer.sync(durable=False)
        writer.close()
        with path.open("rb") as file:
            assert file.read(4) == (b"RIFF" if over <= 0 else b"RF64")
        assert path.stat().st_blocks * 512 < 1 << 20
        with soundfile.SoundFile(str(path)) as sound:
            assert sound.frames == limit + over
            sound.seek(limit + over - 50)
            assert sound.read(dtype="int16").astype("<i2").tobytes() == noise(50)
        with WavReader(path) as reader:
            assert reader.samples == limit + over

    @given(sizes=st.lists(st.integers(0, 300), max_size=8), syncs=st.sets(st.integers(0, 7)))
    @settings(max_examples=60)
    def test_the_way_of_slicing_does_not_matter(
        self, tmp_path_factory: pytest.TempPathFactory, sizes: list[int], syncs: set[int]
    ) -> None:
        """Any sequence of writes and syncs makes the same file as one write, even with samples of one byte."""
        format = AudioFormat("mulaw", 8000)
        folder = tmp_path_factory.mktemp("wav")
        data = noise(sum(sizes), format)
        write(folder / "whole.wav", data, format)
        writer = WavWriter(folder / "sliced.wav", format)
        for index, size in enumerate(sizes):
            writer.write(data[writer.samples : writer.samples + size])
            if index in syncs:
                writer.sync(durable=False)
                assert writer.synced == writer.samples
        writer.sync()
        writer.close()
        assert (folder / "sliced.wav").read_bytes() == (folder / "whole.wav").read_bytes()
        shutil.rmtree(folder)


class TestReader:
    def put(self, tmp_path: Path, data: bytes) -> Path:
        path = tmp_path / "a.wav"
        path.write_bytes(data)
        return path

    @pytest.mark.parametrize("block", [1, 7, 160, 100_000])
    def test_block_size_does_not_matter(self, tmp_path: Path, block: int) -> None:
        """Any block size gives the same samples."""
        write(tmp_path / "a.wav", noise(1000))
        assert read(tmp_path / "a.wav", block)[1] == noise(1000)

    def test_unknown_chunks_and_padding_are_skipped(self, tmp_path: Path) -> None:
        """Chunks of odd length before the audio and others after it do not shift it."""
        path = self.put(
            tmp_path,
            riff(
                chunk(b"bext", b"odd"),
                fmt(1, 16),
                chunk(b"LIST", b"x" * 9),
                chunk(b"data", b"\1\2\3\4"),
                chunk(b"id3 ", b"tail"),
            ),
        )
        assert read(path) == (AudioFormat("s16le", 8000), b"\1\2\3\4")

    WIDE = (
        (1, 8, bytes([0, 127, 128, 255]), [-32768, -256, 0, 32512]),
        (1, 24, b"\xff\x01\x00\xff\xff\x7f\x00\x00\x80\xff\xff\xff", [1, 32767, -32768, -1]),
        (1, 32, b"\xff\xff\x01\x00\xff\xff\xff\x7f\x00\x00\x00\x80", [1, 32767, -32768]),
        (3, 32, struct.pack("<6f", 0, 0.5, -1, 1, 2.6 / 32768, float("nan")), [0, 16384, -32768, 32767, 3, 0]),
        (3, 64, struct.pack("<3d", -0.25, 7, float("-inf")), [-8192, 32767, -32768]),
    )

    @pytest.mark.parametrize(("tag", "bits", "data", "expected"), WIDE, ids=["u8", "s24", "s32", "f32", "f64"])
    def test_other_widths_become_16_bit(
        self, tmp_path: Path, tag: int, bits: int, data: bytes, expected: list[int]
    ) -> None:
        """Integers keep their upper 16 bits; floats are scaled, rounded and clipped."""
        format, pcm = read(self.put(tmp_path, riff(fmt(tag, bits), chunk(b"data", data))))
        assert format == AudioFormat("s16le", 8000)
        assert struct.unpack(f"<{len(expected)}h", pcm) == tuple(expected)

    @pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
    @pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
    def test_what_libsndfile_writes(self, tmp_path: Path, container: str, subtype: str) -> None:
        """Every width in every container of libsndfile reads back to within the width's own step."""
        tone = 0.5 * numpy.sin(numpy.arange(2000) / 9)
        soundfile.write(str(tmp_path / "a.wav"), numpy.stack([tone, -tone], 1), 8000, subtype, format=container)
        format, pcm = read(tmp_path / "a.wav")
        assert format == AudioFormat("s16le", 8000, 2)
        expected = numpy.stack([tone, -tone], 1).ravel() * 32768
        step = 257 if subtype == "PCM_U8" else 2
        assert numpy.abs(numpy.frombuffer(pcm, "<i2") - expected).max() < step

    def test_extensible_mulaw(self, tmp_path: Path) -> None:
        """The sub-format of an extensible header says what the samples are."""
        guid = struct.pack("<H", 7) + bytes.fromhex("000000001000800000aa00389b71")
        more = struct.pack("<HHI", 22, 8, 4) + guid
        path = self.put(tmp_path, riff(fmt(0xFFFE, 8, more=more), chunk(b"data", b"\xff\x00")))
        assert read(path) == (AudioFormat("mulaw", 8000), b"\xff\x00")

    @pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF000])
    def test_a_length_that_says_nothing(self, tmp_path: Path, size: int) -> None:
        """What interrupted and piping writers leave is read to the end of the file, less half a sample."""
        data = b"data" + struct.pack("<I", size) + b"\1\2\3\4\5"
        path = self.put(tmp_path, riff(fmt(1, 16), data, size=size))
        with WavReader(path) as reader:
            assert reader.samples is None
            assert reader.read(100) == b"\1\2\3\4"
            assert reader.read(100) == b""

    def test_a_piped_file_of_sox(self, tmp_path: Path, needs: Needs) -> None:
        """sox writing into a pipe cannot know the length; all samples are found."""
        needs("sox")
        command = ["sox", "-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-c", "1", "-", "-t", "wav", "-"]
        out = subprocess.run(command, input=noise(999), check=True, capture_output=True, timeout=30)
        assert read(self.put(tmp_path, out.stdout))[1] == noise(999)

    def test_an_empty_file_is_empty(self, tmp_path: Path) -> None:
        """A length of 0 that the outer length confirms means no audio, whatever chunks follow."""
        path = self.put(tmp_path, riff(fmt(1, 16), chunk(b"data", b""), chunk(b"LIST", b"abcd")))
        assert read(path)[1] == b""

    def test_rf64_with_sizes_in_ds64(self, tmp_path: Path) -> None:
        """The 64-bit sizes count, not the -1 in their place."""
        sizes = chunk(b"ds64", struct.pack("<QQQI", 0, 4, 2, 0))
        data = riff(sizes, fmt(1, 16), chunk(b"data", b"\1\2\3\4", 0xFFFFFFFF), b"tail", magic=b"RF64", size=0xFFFFFFFF)
        assert read(self.put(tmp_path, data))[1] == b"\1\2\3\4"

    def test_a_cut_off_file_gives_what_it_has_and_then_says_so(self, tmp_path: Path) -> None:
        """Nothing that is there is lost, and the missing rest is an error with its place."""
        write(tmp_path / "a.wav", noise(1000))
        path = self.put(tmp_path, (tmp_path / "a.wav").read_bytes()[: HEADER_BYTES + 601])
        with WavReader(path) as reader:
            assert reader.read(400) == noise(300)
            with pytest.raises(SourceError, match=r"at byte 681: the file ends after 300 of the 1000 samples"):
                reader.read(400)

    BAD = (
        (b"", "at byte 0: the file ends inside the RIFF header"),
        (b"ID3\4" + bytes(60), r"not a WAV file \(its first bytes are b'ID3\\x04'"),
        (riff(), "at byte 12: the file ends inside a chunk header; no audio was found"),
        (riff(fmt(1, 16)), "at byte 36: the file ends inside a chunk header"),
        (riff(chunk(b"data", b"ab")), "at byte 20: audio before any format chunk"),
        (riff(chunk(b"fmt ", b"short")), "at byte 20: a format chunk of 5 bytes, expected 16"),
        (riff(b"fmt \x10\0\0\0abc"), "at byte 23: the file ends inside the format chunk"),
        (riff(fmt(1, 16, channels=0), chunk(b"data", b"")), "contradicts itself: 0 channels"),
        (riff(fmt(1, 16, rate=0), chunk(b"data", b"")), "contradicts itself: 1 channels, 0 Hz"),
        (riff(fmt(2, 8), chunk(b"data", b"")), "audio of format 0x0002 with 8 bits, expected PCM"),
        (riff(fmt(0xFFFE, 16), chunk(b"data", b"")), "an extensible format of 16 bytes, expected 40"),
    )

    @pytest.mark.parametrize(("data", "message"), BAD)
    def test_what_is_wrong_is_told_with_its_place(self, tmp_path: Path, data: bytes, message: str) -> None:
        """Every kind of damage has its own sentence."""
        with pytest.raises(SourceError, match=message):
            WavReader(self.put(tmp_path, data))

    def test_a_missing_file(self, tmp_path: Path) -> None:
        """The path and the reason are told."""
        with pytest.raises(SourceError, match=r"nowhere\.wav: No such file"):
            WavReader(tmp_path / "nowhere.wav")

    @given(damage=st.binary(max_size=120), at=st.integers(0, 100))
    @settings(max_examples=300)
    def test_any_damage_is_data_or_an_error(
        self, tmp_path_factory: pytest.TempPathFactory, damage: bytes, at: int
    ) -> None:
        """Whatever stands in the header, reading ends with samples or a SourceError, never with anything else."""
        whole = wav_header(PCM, 50) + noise(50)
        path = tmp_path_factory.getbasetemp() / "damaged.wav"
        path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
        try:
            _, data = read(path)
        except SourceError:
            return
        assert len(data) <= 4 * os.path.getsize(path)
