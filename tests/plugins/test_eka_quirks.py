"""Every quirk of the ingest against every sink that it concerns, with a ledger that is exact each time."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest
import stamina
from engine_kit import call, make_runner

from mediaflow import PathTemplate, Secret, Sink
from mediaflow.testing import RecordingEngine
from mediaflow_plugins import _eka_quirks, sink_eka_upload
from mediaflow_plugins.sink_eka_json import EkaJson
from mediaflow_plugins.sink_eka_upload import EkaUpload
from mediaflow_plugins.source_eka_ingest import EkaIngest
from mediaflow_plugins.transform_mix import Mix

pytestmark = pytest.mark.anyio

SECOND = bytes(range(250)) * 64
"""A second at 8000 Hz."""

BOTH = ("json", "upload")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Try again at once, as often as for real."""
    monkeypatch.setattr(sink_eka_upload, "AGAIN_S", 0.0)
    with stamina.set_testing(True, attempts=5):
        yield


@asynccontextmanager
async def ingest(*quirks: str, **options: object) -> AsyncIterator[tuple[RecordingEngine, str]]:
    """Run the service with ``quirks``, and fail after twenty seconds."""
    engine = RecordingEngine()
    source = EkaIngest(listen="http://127.0.0.1:0", quirks=quirks, **options)  # type: ignore[arg-type]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.serve, engine)
            yield engine, await engine.url()
            tasks.cancel_scope.cancel()


def make_sink(kind: str, url: str, folder: Path, **options: object) -> Sink:
    """Return a sink that goes to the service."""
    options = {
        "poll_s": 0.001,
        "result_timeout_s": 10.0,
        "results": PathTemplate(f"{folder}/{{session_id}}.json"),
        "token": Secret("t"),
    } | options
    if kind == "json":
        return EkaJson(base_url=url, **options)  # type: ignore[arg-type]
    return EkaUpload(base_url=url, chunk_s=1, retry_s=0, **options)  # type: ignore[arg-type]


async def carry(sink: Sink, folder: Path, seconds: int = 4) -> dict[str, Any]:
    """Carry a call of some seconds into ``sink`` and return the ledger of it, once it is found to add up."""
    runner = make_runner(folder, call(*[SECOND] * seconds), sink, transforms=[Mix()])
    await runner.run()
    [ledger] = runner.accounts[0]["sinks"]
    assert ledger["received"] == seconds * 8000
    assert ledger["received"] == ledger["delivered"] + sum(ledger["dropped"].values())
    assert ledger["spooled"] == 0 and not ledger["concealed"]
    return dict(ledger)


# quirk, sinks, code of the failure, what is delivered of four seconds (None: not all)
REPORTED = [
    ("streaming_disabled", ("json",), "session-refused", 0),
    ("forgets_stream", ("json",), "stream-unknown", 0),
    ("loses_chunks", ("upload",), "chunks-missing", 32000),
    ("token_ends", BOTH, "login-refused", None),
    ("refuses_end", BOTH, "end-refused", 32000),
    ("result_failed", BOTH, "result-failed", 32000),
    ("result_expired", BOTH, "result-expired", 32000),
    ("result_missing", BOTH, "result-missing", 32000),
]


@pytest.mark.parametrize(
    ("quirk", "kind", "code", "delivered"),
    [(quirk, kind, code, delivered) for quirk, kinds, code, delivered in REPORTED for kind in kinds],
)
async def test_what_a_sink_has_to_report(
    tmp_path: Path, quirk: str, kind: str, code: str, delivered: int | None
) -> None:
    """The failure has its code, and what did not arrive is booked under it."""
    async with ingest(quirk, token=Secret("t")) as (_, url):
        ledger = await carry(make_sink(kind, url, tmp_path), tmp_path)
    assert ledger["failure"]["code"] == code
    if delivered is not None:
        assert ledger["delivered"] == delivered
    assert set(ledger["dropped"]) <= {code}


# quirk, sinks, status of the outcome
BORNE = [
    ("error_bursts", BOTH, "completed"),
    ("loses_end", BOTH, "completed"),
    ("result_partial", BOTH, "partial"),
    ("slow_storing", ("json",), "completed"),
]


@pytest.mark.parametrize(
    ("quirk", "kind", "status"), [(quirk, kind, status) for quirk, kinds, status in BORNE for kind in kinds]
)
async def test_what_a_sink_has_to_bear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quirk: str, kind: str, status: str
) -> None:
    """Everything arrives, byte by byte, and there is a result."""
    monkeypatch.setattr(_eka_quirks, "CHUNK_S", 1.0)
    monkeypatch.setattr(_eka_quirks, "STORE_S", 0.01)
    async with ingest(quirk, token=Secret("t")) as (engine, url):
        ledger = await carry(make_sink(kind, url, tmp_path), tmp_path)
        [session] = await engine.ended()
        assert status == "partial" or engine.counts[f"quirk-{quirk}"] >= 1
    assert session.audio["inbound"] == SECOND * 4
    assert ledger["failure"] is None
    assert (ledger["delivered"], ledger["outcome"]["status"]) == (32000, status)


@pytest.mark.parametrize("kind", BOTH)
async def test_a_token_that_ends_in_a_call_is_replaced(tmp_path: Path, kind: str) -> None:
    """With a client id the sink logs in once more, and nothing is lost."""
    pair = {"client_id": "me", "client_secret": Secret("pw")}
    async with ingest("token_ends", **pair) as (engine, url):
        ledger = await carry(make_sink(kind, url, tmp_path, token=Secret(""), **pair), tmp_path)
        [session] = await engine.ended()
        assert engine.counts["refused-token"] == 1
    assert session.audio["inbound"] == SECOND * 4
    assert ledger["failure"] is None and ledger["delivered"] == 32000


@pytest.mark.parametrize("kind", BOTH)
async def test_processing_for_ever_has_an_end(tmp_path: Path, kind: str) -> None:
    """The audio is delivered; only the note is missing."""
    async with ingest("result_never", token=Secret("t")) as (_, url):
        ledger = await carry(make_sink(kind, url, tmp_path, result_timeout_s=0.05), tmp_path)
    assert ledger["failure"]["code"] == "result-timeout"
    assert ledger["delivered"] == 32000


async def test_a_stream_that_is_never_closed_is_in_doubt(tmp_path: Path) -> None:
    """What no pong has confirmed is not counted as delivered; the result is fetched."""
    async with ingest("never_closes", token=Secret("t")) as (_, url):
        ledger = await carry(make_sink("json", url, tmp_path, close_timeout_s=0.05), tmp_path)
    assert ledger["failure"]["code"] == "not-closed"
    assert ledger["outcome"]["status"] == "completed"


def test_every_quirk_is_rehearsed_and_written_down() -> None:
    """None is without a test here, nor without a line in the module's table and in the manual's."""
    quirks = set(get_args(_eka_quirks.Quirk))
    tested = {quirk for quirk, *_ in (*REPORTED, *BORNE)} | {"result_never", "never_closes"}
    tested |= {"short_sessions", "drops_stream"}  # in test_eka_relay
    assert tested == quirks
    assert set(re.findall(r"^    ([a-z]+_[a-z]+) ", _eka_quirks.__doc__ or "", re.MULTILINE)) == quirks
    manual = (ROOT / "docs" / "eka.md").read_text(encoding="utf-8")
    table = manual[manual.index("| quirk |") :]
    assert set(re.findall(r"`([a-z]+_[a-z]+)`(?=.*\|.*\|)", table)) == quirks


def test_every_code_is_in_the_manual() -> None:
    """Whatever a sink or the client may report, `docs/eka.md` says what it means."""
    files = [*ROOT.glob("plugins/*eka*.py"), *ROOT.glob("mediaflow/eka/*.py")]
    codes = {
        code
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        for code in re.findall(r'"([a-z]+-[a-z]+)"', line)
    }
    told = set(re.findall(r"`([a-z]+-[a-z]+)`", (ROOT / "docs" / "eka.md").read_text(encoding="utf-8")))
    counted = {
        "bad-signature",
        "old-signature",
        "bad-json",
        "bad-event",
    }  # of webhooks, which answer them with 400, 401
    counted |= {"unknown-stream", "odd-message", "half-sample", "rate-ignored", "rate-refused", "unknown-event"}
    counted |= {"bad-base64", "webhook-failed", "refused-login", "refused-token", "refused-session", "client-id"}
    assert codes - counted <= told
