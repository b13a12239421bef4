"""What the calls of the load consist of: 20 ms blocks that are known again at the other end.

A block is 10 ms of noise with 5 ms of silence before and behind it.  The silence is longer than any resampler here
reaches, so that what becomes of a block does not depend on its neighbours: blocks can be played in any order, and what
must come of each is computed once.  Noise never repeats, so a block that was lost, doubled, swapped or damaged shows.

    5 ms    10 ms    5 ms
    ─────▓▓▓▓▓▓▓▓▓▓▓▓─────
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mediaflow import dsp

COUNT = 4096
"""How many there are: 82 s.  Each of 16 000 calls begins at another one than its neighbours."""

SAMPLES, RATE_IN, RATE_OUT = 160, 8000, 16_000
_SILENCE = 40
_PEAK = 6000

Convert = Literal["filtered", "linear", "nothing"]
"""What a bridge makes of 8 kHz: through mediaflow's filter, with the mean between neighbours, or always silence."""

HELD = round(dsp.Resampler(RATE_IN, RATE_OUT).latency * RATE_OUT)
"""How many samples the filter waits for."""

assert HELD <= 2 * _SILENCE


class Files(NamedTuple):
    """The two files that the load reads."""

    media: Path
    media_length: int
    blocks: Path


def write(folder: Path, convert: Convert, encoding: str, tracks: int) -> Files:
    """Write the base64 texts that are played and the blocks that must come of them."""
    noise = np.random.default_rng(1).integers(-_PEAK, _PEAK, (COUNT, SAMPLES), dtype=np.int16)
    noise[:, :_SILENCE] = noise[:, -_SILENCE:] = 0
    if encoding == "audio/x-mulaw":
        played = [dsp.mulaw_encode(block.tobytes()) for block in noise]
        heard = [dsp.mulaw_decode(codes) for codes in played]
    else:
        played = heard = [block.tobytes() for block in noise]
    if tracks == 2:
        heard = [dsp.mix(block, heard[(number + COUNT // 2) % COUNT]) for number, block in enumerate(heard)]
    texts = [base64.b64encode(data) for data in played]
    files = Files(folder / "media", len(texts[0]), folder / f"blocks-{convert}")
    files.media.write_bytes(b"".join(texts))
    files.blocks.write_bytes(_converted(np.frombuffer(b"".join(heard), np.int16), convert))
    return files


def _converted(pcm: NDArray[np.int16], convert: Convert) -> bytes:
    if convert == "nothing":
        return bytes(4 * len(pcm))
    if convert == "filtered":
        resampler = dsp.Resampler(RATE_IN, RATE_OUT)
        return resampler.process(pcm.tobytes()) + resampler.flush()
    wide = np.empty(2 * len(pcm), np.int16)
    wide[0::2] = pcm
    wide[1::2] = (pcm.astype(np.int32) + np.append(pcm[1:], 0)) >> 1
    return wide.tobytes()
