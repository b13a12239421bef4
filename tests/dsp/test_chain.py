"""A chain does what its stages do one after the other, whoever wrote them."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mediaflow import dsp

CODES = np.random.default_rng(6).integers(0, 256, 20_000, dtype=np.uint8).tobytes()


def telephone() -> tuple[dsp.Chain, dsp.EnergyVad]:
    """Make the chain of a call, and its detector."""
    vad = dsp.EnergyVad(16000)
    return dsp.Chain([dsp.mulaw_decode, dsp.Resampler(8000, 16000), vad]), vad


@settings(max_examples=60)
@given(cuts=st.lists(st.integers(0, len(CODES)), max_size=30))
def test_equals_its_stages(cuts: list[int]) -> None:
    """Any slicing gives the bytes and the decisions of the stages called one by one."""
    chain, vad = telephone()
    bounds = [0, *sorted(cuts), len(CODES)]

    result = b"".join(chain.process(CODES[start:end]) for start, end in itertools.pairwise(bounds)) + chain.flush()

    resampler, alone = dsp.Resampler(8000, 16000), dsp.EnergyVad(16000)
    expected = resampler.process(dsp.mulaw_decode(CODES)) + resampler.flush()
    found = alone.process(expected)
    assert result == expected
    assert vad.take() == dsp.VadResult(found.speech, found.scores, found.events + alone.flush().events)
    assert vad.take() == dsp.VadResult([], [], [])


@pytest.mark.parametrize(
    ("decode", "encode"), [(dsp.mulaw_decode, dsp.mulaw_encode), (dsp.alaw_decode, dsp.alaw_encode)]
)
def test_codecs(decode: Callable[..., bytes], encode: Callable[..., bytes]) -> None:
    """Each codec function is a stage."""
    assert dsp.Chain([decode]).process(CODES) == decode(CODES)
    assert dsp.Chain([decode, encode]).process(bytearray(CODES)) == encode(decode(CODES))


def test_two_resamplers() -> None:
    """What the first stage still holds at the end goes through those after it."""
    pcm = dsp.mulaw_decode(CODES)
    up, down = dsp.Resampler(8000, 48000), dsp.Resampler(48000, 8000, "strict")
    chain = dsp.Chain([dsp.Resampler(8000, 48000), dsp.Resampler(48000, 8000, "strict")])

    first = up.process(pcm) + up.flush()

    assert chain.process(pcm) + chain.flush() == down.process(first) + down.flush()
    assert chain.latency == up.latency + down.latency


@given(sizes=st.lists(st.integers(0, 900) | st.integers(2000, 5000), max_size=20))
def test_chains_of_a_thread_take_turns(sizes: list[int]) -> None:
    """Their outputs share room, and lie in their own where that is too small; either way none sees the other's."""
    chains = [dsp.Chain([dsp.mulaw_decode, dsp.Resampler(8000, 16000), dsp.Resampler(16000, 8000)]) for _ in range(2)]
    streams = CODES, CODES[::-1]
    results = [b"", b""]
    at = 0

    for size in sizes:
        for number, (chain, codes) in enumerate(zip(chains, streams, strict=True)):
            results[number] += chain.process(codes[at : at + size])
        at += size

    for chain, codes, result in zip(chains, streams, results, strict=True):
        up, down = dsp.Resampler(8000, 16000), dsp.Resampler(16000, 8000)
        first = up.process(dsp.mulaw_decode(codes[:at])) + up.flush()
        assert result + chain.flush() == down.process(first) + down.flush()


def test_flush_and_reset_start_anew() -> None:
    """After flush, and after reset in the middle, the next stream sounds as from a new chain."""
    chain, _ = telephone()

    first = chain.process(CODES) + chain.flush()
    second = chain.process(CODES) + chain.flush()
    chain.process(CODES)
    chain.reset()

    assert first == second == chain.process(CODES) + chain.flush()


def test_threads() -> None:
    """Several threads with a chain each give the same bytes as one."""
    expected = telephone()[0].process(CODES * 20)

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: telephone()[0].process(CODES * 20), range(12)))

    assert set(results) == {expected}


def used_stage() -> dsp.Stage:
    stage = dsp.Resampler(8000, 16000)
    dsp.Chain([stage])
    return stage


@pytest.mark.parametrize(
    ("stages", "error", "message"),
    [
        ([], ValueError, "a chain needs at least one stage"),
        ([len], TypeError, "a stage must be a codec function or a Stage, not <built-in function len>"),
        ([dsp.Resampler(8000, 16000), dsp.EnergyVad(8000)], ValueError, "takes 8000 Hz, but .* gives 16000"),
        ([dsp.mulaw_decode, dsp.alaw_decode], ValueError, "takes samples of 1 bytes, but those before it have 2"),
        ([used_stage()], ValueError, "is in a chain already"),
        ([dsp.EnergyVad(8000)] * 2, ValueError, "is in a chain already"),
    ],
)
def test_what_does_not_fit(stages: list[Any], error: type[Exception], message: str) -> None:
    """Stages that do not fit together are refused when the chain is made."""
    with pytest.raises(error, match=message):
        dsp.Chain(stages)


def test_a_stage_from_outside(tmp_path: Path) -> None:
    """A stage that a plugin compiled against the installed .pxd files takes part like ours."""
    source = Path(__file__).with_name("plugin") / "gain.pyx"
    (tmp_path / "gain.pyx").write_text(source.read_text())
    # An installed package is found without the include path; one that is being developed is not.
    build = (
        "from setuptools import setup; from Cython.Build import cythonize; "
        f"setup(ext_modules=cythonize('gain.pyx', include_path=[{str(Path(dsp.__file__).parents[1])!r}]))"
    )
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, "build_ext", "--inplace"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    [binary] = tmp_path.glob("gain.*.so")
    spec = importlib.util.spec_from_file_location("gain", binary)
    assert spec is not None and spec.loader is not None
    gain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gain)

    chain = dsp.Chain([dsp.mulaw_decode, gain.Gain(3), dsp.mulaw_encode])

    louder = np.clip(np.frombuffer(dsp.mulaw_decode(CODES), np.int16).astype(int) * 3, -32768, 32767)
    assert chain.process(CODES) == dsp.mulaw_encode(louder.astype(np.int16).data)
