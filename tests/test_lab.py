"""The lab: a pipeline between both vendors' stand-ins, and what it refuses to rehearse."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Literal

import anyio
import pytest

from mediaflow import ConfigError, plugins
from mediaflow.dialects import DIALECTS
from mediaflow.lab import CLIP, NOTICE, Lab, profile

pytestmark = pytest.mark.anyio

PIPELINES = Path(__file__).parents[1] / "pipelines"
PLUGINS = plugins.load()


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped pipelines write below the working directory, and read variables that a developer may have set."""
    monkeypatch.chdir(tmp_path)
    for name in ("VOBIZ_LISTEN", "VOBIZ_SECRET", "MEDIA_STREAMS_LISTEN", "MEDIA_STREAMS_SECRET"):
        monkeypatch.delenv(name, raising=False)
    for name in ("EKA_BASE_URL", "EKA_TOKEN", "EKA_CLIENT_ID", "EKA_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)


def clip_samples() -> int:
    """Return the length of the shipped clip."""
    with wave.open(str(CLIP)) as clip:
        return int(clip.getnframes())


async def test_a_call_reaches_eka(tmp_path: Path) -> None:
    """The whole product on one machine: nothing is dropped, and every sample is in the stored chunks."""
    lab = Lab(str(PIPELINES / "vobiz_to_eka.yaml"), PLUGINS, "max")
    with anyio.fail_after(30):
        await lab.run()

    samples = 2 * clip_samples()
    target, eka, caller = (runner.accounts[0] for runner in lab.runners)
    for account in (target, eka, caller):
        assert account["status"] == "complete"
        assert not account["sinks"][0]["dropped"]
    assert target["sinks"][0]["delivered"] == eka["sinks"][0]["delivered"] == samples
    assert {track: figures["received"] for track, figures in target["tracks"].items()} == {
        "inbound": clip_samples(),
        "outbound": clip_samples(),
    }
    stored = lab.stored()
    assert len(stored) >= 2
    total = 0
    for path, seconds in stored:
        with wave.open(path) as chunk:
            assert chunk.getframerate() == 16_000
            assert chunk.getnframes() == round(seconds * 16_000)
            total += chunk.getnframes()
    assert total == samples
    assert (tmp_path / "mediaflow-data/results" / f"{target['call']}/{eka['call']}.json").exists()


async def test_a_call_reaches_eka_in_chunks(tmp_path: Path) -> None:
    """Uploaded where it pauses, at the telephone's rate: every sample is in the stored chunks."""
    file = tmp_path / "chunks.yaml"
    file.write_text(
        """\
        source: {use: vobiz, listen: "${VOBIZ_LISTEN:-ws://127.0.0.1:0/vobiz}"}
        transforms: [{use: mulaw_decode}, {use: mix}, {use: energy_vad}, {use: speech_chunks}]
        sinks: [{use: eka_upload, base_url: "${EKA_BASE_URL:-https://api.eka.care}", token: "${EKA_TOKEN}"}]
        """
    )
    lab = Lab(str(file), PLUGINS, "max")
    with anyio.fail_after(30):
        await lab.run()
    target, eka, _ = (runner.accounts[0] for runner in lab.runners)
    assert target["sinks"][0]["delivered"] == eka["sinks"][0]["delivered"] == clip_samples()
    assert target["sinks"][0]["outcome"]["status"] == "completed"


async def test_a_notice_is_played_in_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped pipeline with a reply, with a shorter notice: the lab's carrier confirms it, Eka has the call."""
    with wave.open(str(NOTICE)) as notice, wave.open(str(tmp_path / "short.wav"), "wb") as short:
        short.setparams(notice.getparams())
        short.writeframes(notice.readframes(4000))
    monkeypatch.setenv("CONSENT_NOTICE", "short.wav")
    lab = Lab(str(PIPELINES / "vobiz_consent_to_eka.yaml"), PLUGINS, 8.0)
    with anyio.fail_after(30):
        await lab.run()
    account = lab.runners[0].accounts[0]
    assert account["sinks"][0]["delivered"] == 2 * clip_samples()
    assert (account["status"], account["reply"]["status"]) == ("complete", "complete")
    assert account["reply"]["sinks"][0]["delivered"] == 4000
    carrier = lab.runners[-1].accounts[0]["sinks"][0]["outcome"]
    assert carrier["play_audio_bytes"] == 4000


async def test_every_carrier_is_spoken_to_in_the_lab(tmp_path: Path) -> None:
    """A pipeline for all carriers with a reply: each of their calls is told it, and confirms it."""
    with wave.open(str(NOTICE)) as notice, wave.open(str(tmp_path / "short.wav"), "wb") as short:
        short.setparams(notice.getparams())
        short.writeframes(notice.readframes(4000))
    file = tmp_path / "all.yaml"
    file.write_text(
        """\
        source: {use: media_streams, listen: "${MEDIA_STREAMS_LISTEN:-ws://127.0.0.1:0/call}"}
        transforms: [{use: mulaw_decode}, {use: alaw_decode}, {use: mix}]
        sinks: [{use: disk, path: "{call_id}.wav"}]
        reply: {source: {use: file, path: short.wav}}
        """
    )
    lab = Lab(str(file), PLUGINS, 8.0)
    with anyio.fail_after(30):
        await lab.run()
    accounts = lab.runners[0].accounts
    assert {account["call"] for account in accounts} == set(DIALECTS)
    for account in accounts:
        assert account["reply"]["status"] == "complete"
        assert account["reply"]["sinks"][0]["delivered"] == 4000


async def test_a_call_reaches_the_disk() -> None:
    """A pipeline without EkaScribe gets only the caller."""
    lab = Lab(str(PIPELINES / "vobiz_to_disk.yaml"), PLUGINS, "max")
    with anyio.fail_after(30):
        await lab.run()
    assert [runner.pipeline.name for runner in lab.runners] == ["vobiz_to_disk", "lab_call"]
    (file,) = lab.runners[0].accounts[0]["sinks"][0]["outcome"]["files"]
    with wave.open(file["path"]) as recording:
        assert (recording.getnchannels(), recording.getnframes()) == (2, clip_samples())


@pytest.mark.parametrize("dialect", ["auto", *DIALECTS])
async def test_every_carrier_calls(tmp_path: Path, dialect: str) -> None:
    """A call of each carrier that the source takes, all in its own messages, arrives whole; Exotel's is of one side."""
    file = tmp_path / "any.yaml"
    file.write_text(
        f"source: {{use: media_streams, listen: '${{MEDIA_STREAMS_LISTEN}}', dialect: {dialect}}}\n"
        "transforms: [{use: mulaw_decode}, {use: alaw_decode}]\n"
        "sinks: [{use: disk, path: '{call_id}-{track}.wav'}]\n"
    )
    lab = Lab(str(file), PLUGINS, "max")
    with anyio.fail_after(60):
        await lab.run()
    target = lab.runners[0]
    callers = tuple(DIALECTS) if dialect == "auto" else (dialect,)
    assert all(account["status"] == "complete" for runner in lab.runners for account in runner.accounts)
    assert not [name for name in target.counts if not name.startswith(("chunks-per-", "byte-order-"))]
    for account in target.accounts:
        received = {track: figures["received"] for track, figures in account["tracks"].items() if figures["received"]}
        tracks = ("inbound",) if "exotel" in (account["call"], dialect) else ("inbound", "outbound")
        assert received == dict.fromkeys(tracks, clip_samples())
    assert {account["call"] for account in target.accounts} == (set(callers) if dialect == "auto" else {CLIP.stem})


async def test_a_source_of_its_own_plays_itself(tmp_path: Path) -> None:
    """A pipeline whose source is no carrier gets only EkaScribe."""
    file = tmp_path / "own.yaml"
    file.write_text(
        f"source: {{use: file, path: {CLIP}}}\n"
        "transforms: [{use: mix}, {use: resample, rate: 16000}]\n"
        'sinks: [{use: eka_json, base_url: "${EKA_BASE_URL:-https://api.eka.care}", token: "${EKA_TOKEN:-}"}]\n'
    )
    lab = Lab(str(file), PLUGINS)
    with anyio.fail_after(30):
        await lab.run()
    assert [runner.pipeline.name for runner in lab.runners] == ["own", "eka_ingest"]
    assert sum(seconds for _, seconds in lab.stored()) == pytest.approx(clip_samples() / 8000)


def delivered(lab: Lab) -> bool:
    """Say whether EkaScribe has confirmed any audio of the call yet."""
    sessions = lab.runners[0].sessions.values() if lab.runners else ()
    return any(session.account()["sinks"][0]["delivered"] for session in sessions)


async def test_stopping_the_lab_loses_nothing_that_was_said() -> None:
    """A stop in the middle of the call: what the caller has sent is delivered, all the way."""
    lab = Lab(str(PIPELINES / "vobiz_to_eka.yaml"), PLUGINS, 1.0)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lab.run)
            while not delivered(lab):  # noqa: ASYNC110 (a ledger tells nobody that it has changed)
                await anyio.sleep(0.02)
            lab.stop()
    target = lab.runners[0].accounts[0]
    figures = target["sinks"][0]
    assert target["status"] == "complete"
    assert 0 < figures["delivered"] == figures["received"] < 2 * clip_samples()
    assert sum(seconds for _, seconds in lab.stored()) == figures["delivered"] / 16_000


CHAOS: list[tuple[str, float | Literal["max"]]] = [
    *((name, "max") for name in ("plain", "reconnect_lossy", "one_track", "l16_wide", "eka_token_ends")),
    ("eka_drops_stream", 2.0),  # so fast that the audio is over when the news comes, there is no going on
]


@pytest.mark.parametrize(("name", "speed"), CHAOS)
async def test_chaos_comes_out_as_it_must(name: str, speed: float | Literal["max"]) -> None:
    """Both vendors misbehave as the profile says, and the ledger tells what it wants told."""
    lab = Lab(str(PIPELINES / "vobiz_to_eka.yaml"), PLUGINS, speed, profile.load(name, PLUGINS))
    with anyio.fail_after(30):
        await lab.run()
    assert lab.unmet() == []


async def test_chaos_that_came_out_otherwise_is_told(tmp_path: Path) -> None:
    """What the profile wants and the ledger does not show stands in a sentence each."""
    file = tmp_path / "greedy.yaml"
    file.write_text("rehearses: nothing\nexpect: {gaps_ms: 100, ends: failed}\n")
    lab = Lab(str(PIPELINES / "vobiz_to_eka.yaml"), PLUGINS, "max", profile.load(str(file), PLUGINS))
    assert lab.unmet() == ["no call arrived"]
    with anyio.fail_after(30):
        await lab.run()
    assert lab.unmet() == [
        "the call's status is complete, not failed",
        "the ledger tells of 0 ms of gaps on inbound, not of 100",
        "the ledger tells of 0 ms of gaps on outbound, not of 100",
    ]


async def test_a_pipeline_with_nothing_to_stand_in_for_is_refused() -> None:
    """The lab says so rather than run a pipeline as it would run without it."""
    with pytest.raises(ConfigError, match="neither a carrier's source nor an Eka sink"):
        Lab(str(PIPELINES / "eka_ingest.yaml"), PLUGINS)


@pytest.mark.parametrize(
    ("source", "sink", "problem"),
    [
        ("listen: ws://127.0.0.1:8080/x", "base_url: ${EKA_BASE_URL}", r"2:3: lab: source vobiz: listen does not come"),
        (
            "listen: ${VOBIZ_LISTEN}",
            "base_url: https://api.eka.care",
            r"5:5: lab: sinks\[0\] eka_raw: base_url does not",
        ),
    ],
)
async def test_an_address_that_is_written_out_is_refused(tmp_path: Path, source: str, sink: str, problem: str) -> None:
    """A rehearsal must never reach a vendor: an address that the lab cannot replace is an error with its place."""
    file = tmp_path / "fixed.yaml"
    file.write_text(
        f"source:\n  use: vobiz\n  {source}\nsinks:\n  - use: eka_raw\n    {sink}\n    token: ${{EKA_TOKEN}}\n"
    )
    with pytest.raises(ConfigError, match=problem):
        Lab(str(file), PLUGINS)
