"""The lab's EkaScribe: a client logs in, streams and fetches a result, and the lab tells what it stored."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import anyio
import pytest

from mediaflow import AudioFormat, AudioFrame, Secret, Stream, plugins
from mediaflow.cli.lab import QUIRKS
from mediaflow.lab.eka import LOGIN, Scribe
from mediaflow.testing import write_all
from mediaflow_plugins._eka_quirks import Quirk
from mediaflow_plugins.sink_eka_raw import EkaRaw

pytestmark = pytest.mark.anyio

PCM = AudioFormat("s16le", 16000)


@pytest.mark.parametrize(("quirks", "status"), [((), "completed"), (("result_partial",), "partial")])
async def test_a_session_from_login_to_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quirks: tuple[str, ...], status: str
) -> None:
    """A sink of ours finishes with the lab's login; each stored chunk and the end are told, and quirks are obeyed."""
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    scribe = Scribe(plugins.load(), "http://127.0.0.1:0", quirks, said.append)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scribe.run)
            await scribe.runner.up.wait()
            sink = EkaRaw(base_url=scribe.runner.url, client_id=LOGIN, client_secret=Secret(LOGIN))
            audio = b"".join((k * 37 % 2000).to_bytes(2, "little") for k in range(16_000))
            writer = await write_all(sink, Stream("call-1", PCM), [AudioFrame(audio, PCM)])
            scribe.stop()
    assert writer.outcome["status"] == status
    session = writer.outcome["session_id"]
    stored = tmp_path / f"mediaflow-data/eka/{session}/0001.wav"
    assert stored.stat().st_size > len(audio)
    mine = [line.removeprefix(f"session {session}: ") for line in said]
    assert mine == [
        "streaming, s16le 16000 Hz mono",
        f"stored mediaflow-data/eka/{session}/0001.wav, 1.00 s",
        "complete, 1.00 s",
    ]


def test_the_command_knows_every_quirk() -> None:
    """The switches of the command are those of the source."""
    assert get_args(Quirk) == QUIRKS
