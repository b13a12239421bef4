"""Bridges under the chaos profiles: ours passes them all, and those of others are convicted of exactly their faults."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, Literal, get_args

import anyio
import msgspec
import pytest
import stamina
from anyio.abc import SocketAttribute
from anyio.streams.text import TextReceiveStream

from mediaflow import SinkError, SourceError, config, intake, plugins
from mediaflow.config import Pipeline
from mediaflow.lab import certify, profile
from mediaflow.lab.certify import Certifier, certifying
from mediaflow.lab.flaw import Kind
from mediaflow.runner import Runner
from mediaflow_plugins import _eka_quirks, _vobiz_quirks

pytestmark = pytest.mark.anyio

PIPELINES = Path(__file__).parents[2] / "pipelines"
PEERS = Path(__file__).parents[1] / "peers"
PIPECAT = PEERS.parents[1] / "build" / "pipecat" / "bin" / "python"
PLUGINS = plugins.load()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wait as long as a machine of this kind needs, not as long as the world does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(certify, "SETTLE_S", 0.15)
    monkeypatch.setattr(certify, "POLL_S", 0.0)
    monkeypatch.setattr(_eka_quirks, "CHUNK_S", 4.0)
    monkeypatch.setattr(_eka_quirks, "STORE_S", 0.05)
    monkeypatch.setattr(_vobiz_quirks, "WAIT_S", 0.1)


def load(name: str) -> profile.Profile:
    """Return a shipped profile, with a shorter call."""
    return msgspec.structs.replace(profile.load(name, PLUGINS), seconds=4.5)


@asynccontextmanager
async def certifier(patience_s: float = 20.0, speed: float | Literal["max"] = "max") -> AsyncIterator[Certifier]:
    """Give a certifier that listens somewhere, and fail after a minute."""
    with anyio.fail_after(60):
        async with certifying(
            "ws://127.0.0.1:1", PLUGINS, speed=speed, eka="http://127.0.0.1:0", pcm="ws://127.0.0.1:0/pcm",
            patience_s=patience_s,
        ) as each:  # fmt: skip
            yield each


# --- Our own pipelines


def shipped(eka_url: str, json_mode: bool, reconnect_s: float) -> Pipeline:
    """Load the shipped pipeline, with that patience for the carrier's return and, if wanted, the other way to Eka."""
    env = {
        "VOBIZ_LISTEN": "ws://127.0.0.1:0/vobiz",
        "EKA_BASE_URL": eka_url,
        "EKA_CLIENT_ID": "id",
        "EKA_CLIENT_SECRET": "secret",
    }
    file = PIPELINES / "vobiz_to_eka.yaml"
    if json_mode:
        text = file.read_text().replace("use: eka_raw", "use: eka_json").replace("  - use: resample\n", "")
        file = Path("json.yaml")
        file.write_text(text.replace("    rate: 16000\n", ""))
    pipeline = config.load(str(file), PLUGINS, env)
    source: Any = pipeline.source
    sink: Any = pipeline.sinks[0]
    return msgspec.structs.replace(
        pipeline,
        source=msgspec.structs.replace(source, reconnect_s=reconnect_s),
        sinks=(msgspec.structs.replace(sink, poll_s=0.01),),
    )


async def rehearse(chosen: profile.Profile, json_mode: bool = False) -> None:
    """Carry a call through the shipped pipeline: nothing is found, and its own ledger says what the profile wants."""
    # A carrier that comes back does so at once, but a busy machine may take its time.
    reconnect_s = 2.0 if "reconnects" in chosen.carrier.quirks else 0.2
    # A stream can be gone on with only while there is audio to go on with, so the call must last longer than the news.
    speed: float | Literal["max"] = 2.0 if "drops_stream" in chosen.service.quirks else "max"
    async with certifier(speed=speed) as lab:
        bridge = Runner(shipped(lab.eka_url, json_mode, reconnect_s), PLUGINS)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge.run)
            await bridge.up.wait()
            lab.url = bridge.url
            with stamina.set_testing(True, attempts=5):
                verdict = await lab.certify(chosen)
                await bridge.over(1)
            bridge.stop()
    assert verdict.flaws == ()
    (account,) = bridge.accounts
    assert account["status"] == chosen.expect.ends
    for figures in account["tracks"].values():
        assert sum(figures["concealed"].values()) * 1000 / account["sample_rate"] >= chosen.expect.gaps_ms


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("name", profile.names())
async def test_our_pipeline_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every profile against the pipeline as it is shipped."""
    chosen = load(name)
    if "restarts_clock" in chosen.carrier.quirks:
        # Only our clock says then how long the carrier was gone: for no time, however busy the machine is.
        now = time.monotonic()
        monkeypatch.setattr(intake, "monotonic", lambda: now)
    await rehearse(chosen)


# What differs by backend is how sockets break and come back, and how a sink fails.
ON_TRIO = ["plain", "stop", "cut_off", "reconnect", "reconnect_overlapping", "phantom", "eka_drops_stream"]


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize("name", ON_TRIO)
async def test_our_pipeline_passes_on_trio(name: str) -> None:
    """The profiles that break connections, on the other backend."""
    await rehearse(load(name))


SHAPES = [
    ("nested", "audio/x-l16;rate=8000"),
    ("nested", "audio/x-l16;rate=16000"),
    ("flat", "audio/x-mulaw;rate=8000"),
    ("flat", "audio/x-l16;rate=16000"),
]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("name", ["plain", "skip", "reconnect_lossy", "odd_sizes", "burst"])
@pytest.mark.parametrize(("shape", "content_type"), SHAPES)
async def test_shapes_and_formats(name: str, shape: str, content_type: str) -> None:
    """The same troubles in the other shape and the other formats, and on the JSON way to Eka."""
    chosen = load(name)
    carrier = msgspec.structs.replace(chosen.carrier, shape=shape, content_type=content_type)
    await rehearse(msgspec.structs.replace(chosen, carrier=carrier), json_mode=True)


# --- Bridges of others


@asynccontextmanager
async def foreign(lab: Certifier, kind: str, *faults: str) -> AsyncIterator[None]:
    """Run a bridge that is not ours, in a process of its own, and let ``lab`` call it."""
    if kind == "node":
        command = ["node", str(PEERS / "bridge_node.js"), lab.pcm_url]
    elif kind == "pipecat":
        command = [str(PIPECAT), str(PEERS / "bridge_pipecat.py"), lab.pcm_url]
    else:
        command = [sys.executable, str(PEERS / "bridge_python.py"), lab.eka_url]
    async with await anyio.open_process([*command, *faults], stderr=DEVNULL if kind == "pipecat" else None) as process:
        assert process.stdout is not None
        line = await TextReceiveStream(process.stdout).receive()
        lab.url = f"ws://127.0.0.1:{json.loads(line)['port']}/call"
        try:
            yield
        finally:
            process.kill()


async def verdicts(lab: Certifier, *names: str) -> dict[str, set[Kind]]:
    """Return the kinds of flaws that are found by each profile."""
    found: dict[str, set[Kind]] = {}
    for name in names:
        verdict = await lab.certify(load(name))
        found[name] = {flaw.kind for flaw in verdict.flaws}
        assert (verdict.judgement == "failed") == bool(verdict.flaws) == bool(verdict.hint)
        assert json.loads(msgspec.json.encode(verdict.as_json()))["scenario"] == name
    return found


# What the two bridges really do wrong without any fault being planted: neither knows a byte order, one looks at no
# stamps, the other lives by them, and neither reads other spellings.
CLEAN: dict[str, dict[str, set[Kind]]] = {
    "node": {
        "plain": set(), "flat": set(), "media_before_start": set(), "reconnect": set(), "phantom": set(),
        "media_after_stop": set(), "odd_sizes": set(), "skip": {"shift"}, "bad_base64": {"shift"},
        "duplicates": {"doubled"}, "out_of_order": {"reordered"}, "l16_big_endian": {"byte-order"},
    },
    "python": {
        "plain": set(), "flat": set(), "media_before_start": set(), "reconnect_lossy": set(), "phantom": set(),
        "duplicates": set(), "out_of_order": set(), "drift": set(), "bad_base64": set(),
        "odd_sizes": {"lost"}, "reconnect_reclock": {"lost"}, "l16_big_endian": {"byte-order"},
    },
}  # fmt: skip

# bridge, fault, and what is found by which profile
PLANTED: list[tuple[str, str, dict[str, set[Kind]]]] = [
    ("node", "drops_tail", {"plain": {"lost"}}),
    ("node", "needs_start", {"plain": set(), "media_before_start": {"lost"}}),
    ("node", "big_endian", {"plain": set(), "l16": {"byte-order"}, "l16_big_endian": set()}),
    ("node", "one_track", {"plain": {"track"}, "one_track": set()}),
    ("node", "restarts", {"plain": set(), "reconnect": {"sessions"}}),
    ("node", "in_turns", {"plain": {"interleaved"}, "one_track": set()}),
    ("node", "a_law", {"plain": {"law"}, "l16": set()}),
    ("node", "undecoded", {"plain": {"undecoded"}, "l16": set()}),
    ("node", "no_resampling", {"plain": {"rate"}, "l16_wide": set()}),
    ("node", "sends_big_endian", {"plain": {"byte-order"}}),
    ("node", "waits_for_stop", {"stop": set(), "plain": {"unfinished"}}),
    ("node", "after_stop", {"stop": set(), "media_after_stop": {"added"}}),
    ("python", "no_flush", {"plain": {"lost"}}),
    ("python", "no_end", {"plain": {"unfinished"}}),
    ("python", "no_stamps", {"plain": set(), "skip": {"shift"}, "duplicates": {"doubled"}}),
    ("python", "rate_as_text", {"plain": {"rate"}, "l16_wide": set()}),
    ("python", "hangs_up", {"plain": {"carrier", "lost"}}),
    ("python", "per_socket", {"plain": set(), "reconnect": {"sessions"}}),
]


def node(needs: Any) -> None:
    """Skip where Node or its library is not there."""
    needs("node", "npm")
    if not (PEERS / "node_modules" / "ws").exists():
        pytest.skip("needs tests/peers/node_modules, which `npm ci` in tests/peers brings")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kind", CLEAN)
async def test_a_foreign_bridge_is_convicted_of_what_it_does(kind: str, needs: Any) -> None:
    """Nothing planted: it passes what it was written for, and fails where it really loses something."""
    if kind == "node":
        node(needs)
    async with certifier() as lab, foreign(lab, kind):
        assert await verdicts(lab, *CLEAN[kind]) == CLEAN[kind]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("kind", "fault", "expected"), PLANTED, ids=[f"{kind}-{fault}" for kind, fault, _ in PLANTED])
async def test_a_planted_fault_is_found(
    kind: str, fault: str, expected: dict[str, set[Kind]], needs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bridge is convicted of exactly that, where it shows, and of nothing where it does not."""
    if kind == "node":
        node(needs)
    monkeypatch.setattr(certify, "END_S", 0.5)
    patience_s = 2.0 if {"unfinished"} in expected.values() else 20.0
    async with certifier(patience_s) as lab, foreign(lab, kind, fault):
        assert await verdicts(lab, *expected) == expected


# What Pipecat loses by itself is the end of every call, which its resampler keeps, and the tracks, which it does not
# tell apart.
PIPECAT_FLAWS: list[tuple[tuple[str, ...], dict[str, set[Kind]]]] = [
    ((), {"one_track": {"lost"}, "plain": {"interleaved"}}),
    (("wrong_rate",), {"one_track": {"rate"}}),
    (("drops_frames",), {"one_track": {"lost", "shift"}}),
]


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("faults", "expected"), PIPECAT_FLAWS, ids=["clean", "wrong_rate", "drops_frames"])
async def test_pipecat(faults: tuple[str, ...], expected: dict[str, set[Kind]]) -> None:
    """A pipeline of Pipecat is convicted of what it loses by itself and of what is planted; it wants a real pace."""
    if not PIPECAT.exists():
        pytest.skip("needs build/pipecat, which `make pipecat` brings: half a gigabyte")
    async with certifier(speed=2.0) as lab, foreign(lab, "pipecat", *faults):
        assert await verdicts(lab, *expected) == expected


# --- The certifier itself


async def test_nobody_there() -> None:
    """A bridge that does not listen is no failed scenario but an error."""
    async with certifier() as lab:
        with pytest.raises(SinkError, match="the bridge takes no call") as caught:
            await lab.certify(load("plain"))
    assert caught.value.code == "unreachable"


async def test_an_address_that_is_taken() -> None:
    """Where the lab cannot listen it says so, with the address."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with listener:
        with pytest.raises(SourceError, match=f"cannot listen at 127.0.0.1:{port}"):
            async with certifying("ws://127.0.0.1:1", PLUGINS, eka="http://127.0.0.1:0", pcm=f"ws://127.0.0.1:{port}/"):
                pass


def test_every_kind_of_flaw_has_a_hint() -> None:
    """Whatever is found, the table says what to do."""
    assert set(certify.HINTS) == set(get_args(Kind))
