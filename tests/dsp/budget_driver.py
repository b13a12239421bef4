"""What the instruction budget counts of kernels: ``python budget_driver.py COUNTER CALLS`` calls each so many times.

COUNTER is ``counter.c``, built.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from mediaflow import dsp
from mediaflow._wire.frames import Decoder, encode

# Something like a signal, the same on every machine, and no numpy, which takes valgrind seconds to import.
PCM8 = b"".join((i * i * 7919 % 16001 - 8000).to_bytes(2, "little", signed=True) for i in range(160))
CODES = dsp.mulaw_encode(PCM8)
PCM48 = PCM8 * 6
WARM = 50


def chain() -> Callable[[bytes], object]:
    detector = dsp.EnergyVad(16000)
    fused = dsp.Chain([dsp.mulaw_decode, dsp.Resampler(8000, 16000), detector])
    return lambda codes: (fused.process(codes), detector.take())


TEXT = encode(1, bytes(380), True)  # the size of a carrier's message with 20 ms of µ-law
PCM16 = PCM8 * 2


def read_frame() -> Callable[[bytes], object]:
    decoder = Decoder(True, 1 << 20)

    def read(frame: bytes) -> None:
        decoder.feed(frame)
        decoder.deliver(bool)

    return read


WORK: dict[str, tuple[Callable[[], Callable[[bytes], object]], bytes]] = {
    "mulaw_decode": (lambda: dsp.mulaw_decode, CODES),
    "alaw_decode": (lambda: dsp.alaw_decode, CODES),
    "mulaw_encode": (lambda: dsp.mulaw_encode, PCM8),
    "alaw_encode": (lambda: dsp.alaw_encode, PCM8),
    "resample_8_16_fast": (lambda: dsp.Resampler(8000, 16000, "fast").process, PCM8),
    "resample_8_16_strict": (lambda: dsp.Resampler(8000, 16000, "strict").process, PCM8),
    "resample_48_8_fast": (lambda: dsp.Resampler(48000, 8000, "fast").process, PCM48),
    "resample_44_16_fast": (lambda: dsp.Resampler(44100, 16000, "fast").process, PCM48[:1764]),
    "vad": (lambda: dsp.EnergyVad(8000).process, PCM8),
    "chain": (chain, CODES),
    "read_frame": (read_frame, TEXT),
    "write_frame": (lambda: lambda pcm: encode(2, pcm, True), PCM16),
    # One kernel twice a call: the slow-down that the budget must notice.
    "planted": (lambda: lambda codes: (dsp.mulaw_decode(codes), dsp.mulaw_decode(codes)), CODES),
}

if __name__ == "__main__":
    counter = ctypes.PyDLL(sys.argv[1])
    for name, (make, data) in WORK.items():
        call = make()
        for _ in range(WARM):
            call(data)
        counter.begin()
        for _ in range(int(sys.argv[2])):
            call(data)
        counter.end(name.encode())
