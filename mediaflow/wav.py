"""WAV files that survive a crash while they are written, and a reader that takes the broken ones too.

A WAV file says in its header how long it is, which a writer only knows at the end.  A process that dies before has left
a file that most programs call empty.  ``WavWriter`` therefore keeps a header of fixed length and writes it again at
every ``sync``; what was synced can be read by anything, whatever happens afterwards.  A plain header counts 4 GiB (six
hours of 48 kHz stereo); RF64 (EBU Tech 3306) holds the same facts in 64 bits.  Both take 80 bytes here, so that the
one turns into the other without moving the audio::

    offset    below 4 GiB           from 4 GiB on
    0         RIFF size WAVE        RF64 -1 WAVE
    12        JUNK 28, zeros        ds64 28, size of file, of data, samples, no table
    48        fmt 16                fmt 16
    72        data size             data -1
    80        audio                 audio

The reader goes through the chunks in constant memory.  A length of 0 or near the limit is what interrupted and piping
writers leave; it then reads to the end of the file.  What is not 16-bit PCM or G.711 becomes 16-bit PCM: of wider
integers the upper 16 bits are kept, 8-bit samples (the one unsigned kind) are shifted up, floats are scaled by 32768,
rounded to the nearest and clipped.

References: Microsoft "Multimedia Programming Interface and Data Specifications 1.0" and the WAVEFORMATEXTENSIBLE page.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .errors import SourceError
from .frame import SAMPLE_BYTES, AudioFormat, Encoding

HEADER_BYTES = 80

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_TAGS: dict[Encoding, int] = {"s16le": _PCM, "alaw": _ALAW, "mulaw": _MULAW}
_UNKNOWN = 0xFFFFFFFF
# Programs that write into a pipe put a size near 2³¹ or 2³² (sox 2³¹ less its header, ffmpeg 2³²-1).
_ENDLESS = 0x7FFFF000

_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


def wav_header(format: AudioFormat, samples: int) -> bytes:
    """Return the 80 bytes that stand before ``samples`` of audio."""
    size = samples * format.sample_bytes
    riff_size = HEADER_BYTES - 8 + size + size % 2
    width = SAMPLE_BYTES[format.encoding]
    bytes_per_second = format.sample_rate * format.sample_bytes
    if riff_size < _UNKNOWN:
        start = struct.pack("<4sI4s4sI28x", b"RIFF", riff_size, b"WAVE", b"JUNK", 28)
    else:
        sizes = struct.pack("<QQQI", riff_size, size, samples, 0)
        start = struct.pack("<4sI4s4sI", b"RF64", _UNKNOWN, b"WAVE", b"ds64", 28) + sizes
        size = _UNKNOWN
    fmt = (
        _TAGS[format.encoding],
        format.channels,
        format.sample_rate,
        bytes_per_second,
        format.sample_bytes,
        8 * width,
    )
    return start + struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, *fmt, b"data", size)


class WavWriter:
    """Writes a new WAV file; raises FileExistsError rather than touch one that is there, and OSError as it comes.

    The file is for its owner's eyes only (mode 600): it holds somebody's voice.
    """

    def __init__(self, path: Path, format: AudioFormat) -> None:
        self.samples = 0
        """How many samples were written so far."""
        self.synced = 0
        """How many of them a crash leaves."""
        self._format = format
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._put(wav_header(format, 0), 0)
        except BaseException:
            os.close(self._fd)
            os.unlink(path)
            raise

    def write(self, data: bytes | bytearray) -> None:
        """Write whole samples.  If it raises, nothing of ``data`` counts as written."""
        count, rest = divmod(len(data), self._format.sample_bytes)
        if rest:
            raise ValueError(f"{len(data)} bytes of {self._format} end inside a sample")
        self._put(data, HEADER_BYTES + self.samples * self._format.sample_bytes)
        self.samples += count

    def sync(self, durable: bool = True) -> None:
        """Bring the header up to date, and if ``durable`` the disk too: a power cut then loses nothing either."""
        size = self.samples * self._format.sample_bytes
        if size % 2:
            self._put(b"\0", HEADER_BYTES + size)  # a chunk has even length; the next sample takes the place
        self._put(wav_header(self._format, self.samples), 0)
        if durable:
            _sync_data(self._fd)
        self.synced = self.samples

    def rollback(self) -> None:
        """Cut off what was written after the last sync, so that file and header agree after a failed write."""
        self.samples = self.synced
        size = self.samples * self._format.sample_bytes
        os.ftruncate(self._fd, HEADER_BYTES + size + size % 2)

    def close(self) -> None:
        """Close the file as it is; ``sync`` first to keep everything."""
        os.close(self._fd)

    def _put(self, data: bytes | bytearray, offset: int) -> None:
        rest = memoryview(data)
        while rest:  # a disk that fills up takes a part first and raises at the next try
            written = os.pwrite(self._fd, rest, offset)
            rest, offset = rest[written:], offset + written


class WavReader:
    """Reads a WAV or RF64 file from its start; raises SourceError where it cannot.

    ``format`` tells what ``read`` returns; ``samples`` how many the header promises, None where it does not know.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: BinaryIO = open(path, "rb")  # noqa: SIM115 - open as long as the reader
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from None
        try:
            self._find_audio()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> WavReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, samples: int) -> bytes:
        """Return up to ``samples`` samples, nothing at the end; raise where the file ends before its header says."""
        if self.samples is not None:
            samples = min(samples, self.samples - self._position)
        try:
            data = self._file.read(samples * self._stored_bytes)
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror}") from None
        count = len(data) // self._stored_bytes
        if self.samples is not None and samples and not count:
            raise self._error(
                f"the file ends after {self._position} of the {self.samples} samples that its header promises: "
                "it was cut off"
            )
        self._position += count
        return self._convert(data[: count * self._stored_bytes])

    def _find_audio(self) -> None:
        """Go through the chunks up to the audio."""
        file_size = os.fstat(self._file.fileno()).st_size
        magic, riff_size, kind = struct.unpack("<4sI4s", self._exactly(12, "the RIFF header"))
        if magic not in (b"RIFF", b"RF64", b"BW64") or kind != b"WAVE":
            raise SourceError(f"{self._path}: not a WAV file (its first bytes are {magic!r}, expected b'RIFF')")
        fmt = long_size = None
        while True:
            name, size = struct.unpack("<4sI", self._exactly(8, "a chunk header; no audio was found"))
            if name == b"data":
                break
            start = self._file.tell()
            if name == b"fmt ":
                if size < 16:
                    raise self._error(f"a format chunk of {size} bytes, expected 16 or more")
                fmt = self._exactly(min(size, 40), "the format chunk")
            elif name == b"ds64" and magic != b"RIFF":
                riff_size, long_size = struct.unpack("<QQ", self._exactly(16, "the 64-bit sizes"))
            self._file.seek(start + size + size % 2)
        if fmt is None:
            raise self._error("audio before any format chunk")
        self._take_format(fmt)
        if size == _UNKNOWN and long_size is not None:
            size = long_size
        there = file_size - self._file.tell()
        interrupted = size == 0 and riff_size + 8 != file_size
        endless = size >= _ENDLESS and long_size is None and size > there
        self.samples = None if interrupted or endless else size // self._stored_bytes
        self._position = 0

    def _take_format(self, fmt: bytes) -> None:
        tag, channels, rate, _, stored_bytes, bits = struct.unpack_from("<HHIIHH", fmt)
        if tag == _EXTENSIBLE:
            if len(fmt) < 40:
                raise self._error(f"an extensible format of {len(fmt)} bytes, expected 40")
            (tag,) = struct.unpack_from("<H", fmt, 24)  # the sub-format GUID begins with the plain tag
        width = stored_bytes // (channels or 1)  # a 20-bit sample fills the upper bits of three bytes
        if not channels or not rate or not width or stored_bytes % channels or bits > 8 * width:
            raise self._error(
                f"a format that contradicts itself: {channels} channels, {rate} Hz, {bits} bits, "
                f"{stored_bytes} bytes per sample"
            )
        try:
            encoding, self._convert = _CODINGS[tag, width]
        except KeyError:
            raise self._error(
                f"audio of format {tag:#06x} with {bits} bits, expected PCM, float, A-law or µ-law; "
                "convert it with `sox in.wav -b 16 out.wav`"
            ) from None
        self.format = AudioFormat(encoding, rate, channels)
        self._stored_bytes = stored_bytes

    def _exactly(self, count: int, what: str) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise self._error(f"the file ends inside {what}")
        return data

    def _error(self, text: str) -> SourceError:
        return SourceError(f"{self._path}: at byte {self._file.tell()}: {text}")


def _same(data: bytes) -> bytes:
    return data


_FLIP = bytes(code ^ 0x80 for code in range(256))


def _from_8_bits(data: bytes) -> bytes:
    pcm = bytearray(2 * len(data))
    pcm[1::2] = data.translate(_FLIP)
    return bytes(pcm)


def _upper_16_bits(width: int) -> Callable[[bytes], bytes]:
    def convert(data: bytes) -> bytes:
        pcm = bytearray(len(data) // width * 2)
        pcm[0::2] = data[width - 2 :: width]
        pcm[1::2] = data[width - 1 :: width]
        return bytes(pcm)

    return convert


def float_to_pcm(data: bytes, dtype: str = "<f4") -> bytes:
    """Turn floats between -1 and 1 into 16-bit PCM: scaled by 32768, rounded to the nearest, clipped."""
    import numpy  # here, because few files hold floats and importing it takes 100 ms

    # What is not a number becomes silence; there is no better sample for it.
    samples = numpy.nan_to_num(numpy.frombuffer(data, dtype), nan=0.0, posinf=1.0, neginf=-1.0)
    pcm: bytes = numpy.clip(numpy.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
    return pcm


_CODINGS: dict[tuple[int, int], tuple[Encoding, Callable[[bytes], bytes]]] = {
    (_PCM, 1): ("s16le", _from_8_bits),
    (_PCM, 2): ("s16le", _same),
    (_PCM, 3): ("s16le", _upper_16_bits(3)),
    (_PCM, 4): ("s16le", _upper_16_bits(4)),
    (_FLOAT, 4): ("s16le", float_to_pcm),
    (_FLOAT, 8): ("s16le", lambda data: float_to_pcm(data, "<f8")),
    (_ALAW, 1): ("alaw", _same),
    (_MULAW, 1): ("mulaw", _same),
}
