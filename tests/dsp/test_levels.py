"""Every level of the instruction set gives the same bits: each is compiled by itself and compared with the others."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mediaflow import dsp

Array = NDArray[np.generic]
Run = Callable[[ctypes.CDLL], list[Array]]

SOURCES = Path(__file__).parents[2] / "mediaflow" / "_dsp"
LEVELS = {
    "x86-64": "sse2",
    "x86-64-v2": "sse4_2",
    "x86-64-v3": "avx2",
    "x86-64-v4": "avx512bw",
    "x86-64-v4 -mavx512vbmi": "avx512vbmi",  # what levels.h calls byte tables
}
GENERATOR = np.random.default_rng(12)
PCM = np.concatenate([np.arange(-32768, 32768), GENERATOR.integers(-32768, 32768, 5001)]).astype(np.int16)
TAPS = GENERATOR.uniform(-1, 1, 256).astype(np.float32)
FLOATS = GENERATOR.uniform(-40000, 40000, 6000).astype(np.float32)


class Part(ctypes.Structure):
    """struct part of kernels.h."""

    _fields_ = (("taps", ctypes.c_void_p), ("groups", ctypes.c_int64), ("start", ctypes.c_int64))


def pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def number(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> list[ctypes.CDLL]:
    """Compile the kernels for each level that this processor has, plainest first."""
    if platform.machine() != "x86_64" or shutil.which("gcc") is None:
        pytest.skip("the levels are those of x86-64, compiled by gcc")
    flags = Path("/proc/cpuinfo").read_text().split()
    folder = tmp_path_factory.mktemp("levels")
    made = []
    for level, flag in LEVELS.items():
        if flag not in flags:
            continue
        library = folder / f"{level}.so"
        options = ["-O3", "-ffp-contract=off", "-fno-trapping-math", "-DONE_LEVEL", "-shared", "-fPIC"]
        kernels = sorted(map(str, SOURCES.glob("*_kernel.c")))
        subprocess.run(["gcc", *options, *f"-march={level}".split(), *kernels, "-o", str(library)], check=True)
        made.append(ctypes.CDLL(str(library)))
    return made


def codec(library: ctypes.CDLL) -> list[Array]:
    """Encode and decode everything."""
    codes = np.arange(1003, dtype=np.uint32).astype(np.uint8)
    results: list[Array] = []
    for law in ("mulaw", "alaw"):
        encoded, decoded = np.zeros(len(PCM), np.uint8), np.zeros(len(codes), np.int16)
        getattr(library, f"mediaflow_{law}_encode")(pointer(PCM), pointer(encoded), number(len(PCM)))
        getattr(library, f"mediaflow_{law}_decode")(pointer(codes), pointer(decoded), number(len(codes)))
        results += [encoded, decoded]
    return results


def rounding(library: ctypes.CDLL) -> list[Array]:
    """Make floats of samples, deal them out, and round them back."""
    results: list[Array] = []
    floats = np.zeros(len(PCM), np.float32)
    library.mediaflow_from_pcm(pointer(PCM), number(len(PCM)), pointer(floats))
    results.append(floats)
    for step in (1, 2, 3, 7):
        picked, pcm = np.zeros(800, np.float32), np.zeros(step * 701, np.int16)
        library.mediaflow_pick(pointer(FLOATS), number(step), number(800), pointer(picked))
        library.mediaflow_to_pcm(pointer(FLOATS), number(750), number(step), number(701), pointer(pcm))
        results += [picked, pcm]
    return results


def filters(library: ctypes.CDLL) -> list[Array]:
    """Filter with tiles of every size and with rows."""
    results: list[Array] = []
    for groups in (0, 1, 2, 3, 4, 5, 8, 11):
        for count in (1, 16, 80, 81, 161, 441):
            parts = (Part * 2)(Part(TAPS.ctypes.data, groups, 0), Part(TAPS.ctypes.data + 64, 2, 5))
            sums = np.zeros(count + 400, np.float32)
            library.mediaflow_polyphase(
                ctypes.byref(parts), number(1), number(2), pointer(FLOATS), number(2000),
                number(count), pointer(sums), number(count + 200),
            )  # fmt: skip
            results.append(sums[:count])
    for count in (1, 3, 4, 320):
        sums = np.zeros(count + 4, np.float32)
        library.mediaflow_rows(
            pointer(FLOATS), pointer(TAPS), number(32), number(3), number(5), number(1), number(count), pointer(sums)
        )
        results.append(sums[:count])
    return results


def bands(library: ctypes.CDLL) -> list[Array]:
    """Measure the energies of frames."""
    results: list[Array] = []
    for step, count in ((1, 160), (1, 220), (2, 160), (5, 176), (48, 160)):
        work, energies = np.zeros(count + 8, np.float32), np.zeros(2, np.float32)
        for start in (0, 777):
            library.mediaflow_band_energies(
                pointer(PCM[start:]), number(step), number(count), pointer(work),
                pointer(energies), ctypes.c_void_p(energies.ctypes.data + 4),
            )  # fmt: skip
            results += [energies.copy(), work.copy()]
    return results


@pytest.mark.parametrize("run", [codec, rounding, filters, bands])
def test_levels_agree(run: Run, levels: list[ctypes.CDLL]) -> None:
    """What the plainest level computes, every other computes to the bit."""
    first, *others = [[result.tobytes() for result in run(level)] for level in levels]

    assert others
    for other in others:
        assert other == first


def test_the_installed_level_agrees(levels: list[ctypes.CDLL]) -> None:
    """The level that the processor gets in the installed module is one of them."""
    encoded = codec(levels[0])[0]

    assert dsp.mulaw_encode(PCM.data) == encoded.tobytes()
