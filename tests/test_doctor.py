"""The doctor finds what is wrong, says what to do, and is itself harmed by nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
import vobiz_service
from ingest_kit import running

from mediaflow import Component, Finding, PathTemplate, Secret, config, doctor, http, plugins
from mediaflow.testing import RecordingEngine
from mediaflow_plugins.sink_disk import Disk
from mediaflow_plugins.sink_eka_raw import EkaRaw
from mediaflow_plugins.source_vobiz import Vobiz

pytestmark = pytest.mark.anyio


async def findings(folder: Path, text: str, *extra: object) -> dict[str, list[Finding]]:
    """Examine a pipeline and return what is found by part."""
    file = folder / "p.yaml"
    file.write_text(text)
    installed = plugins.load()
    for number, plugin in enumerate(extra):
        installed.add(plugin, f"extra {number}")
    found: dict[str, list[Finding]] = {}
    async for part, finding in doctor.examine(config.load(str(file), installed, {}), installed, {}):
        found.setdefault(part, []).append(finding)
    return found


async def test_the_machine_is_named(tmp_path: Path) -> None:
    """Without a pipeline the versions are told: what a report of a fault needs."""
    found = [finding async for _, finding in doctor.examine(None, plugins.load(), {})]
    assert found[0].text.startswith("mediaflow 0.1.0, Python 3.")
    assert "websockets 17." in found[1].text
    assert all(finding.ok for finding in found)


async def test_a_folder_that_can_be_written_to(tmp_path: Path) -> None:
    """A disk sink says how much room there is, also where its folder has still to be made."""
    sink = Disk(path=PathTemplate(f"{tmp_path}/not/yet/{{call_id}}.wav"))
    (finding,) = [each async for each in sink.diagnose()]
    assert finding.ok is not False
    assert finding.text.startswith(f"{tmp_path} has room for ")


async def test_a_folder_that_cannot(tmp_path: Path) -> None:
    """A path through something that is no folder is wrong, with the fix."""
    (tmp_path / "file").write_bytes(b"")
    sink = Disk(path=PathTemplate(f"{tmp_path}/file/{{call_id}}.wav"))
    (finding,) = [each async for each in sink.diagnose()]
    assert finding == Finding(False, f"{tmp_path}/file is no folder", "remove it, or change path")


async def test_what_a_reply_depends_on(tmp_path: Path) -> None:
    """The parts of a reply are examined like the others, under their own names."""
    from mediaflow import Engine, Register, Source, hookimpl

    class Tape(Source, frozen=True):
        """Play a tape."""

        def formats(self) -> list[object]:  # type: ignore[override]
            return []

        async def serve(self, engine: Engine) -> None: ...

        async def diagnose(self) -> AsyncIterator[Finding]:
            yield Finding(False, "the tape is torn", "glue it")

    class Plugin:
        @hookimpl
        def register_components(self, register: Register) -> None:
            register("tape", Tape)

    text = f"source: {{use: vobiz, listen: 'ws://127.0.0.1:0/x'}}\nsinks: [{{use: disk, path: '{tmp_path}/x.wav'}}]\n"
    found = await findings(tmp_path, text + "reply: {source: {use: tape}}\n", Plugin())
    assert found["reply.source tape"] == [Finding(False, "the tape is torn", "glue it")]


async def test_a_component_that_breaks_is_a_finding(tmp_path: Path) -> None:
    """A plugin whose examination raises is reported beside what it had found before; the others are examined."""
    from mediaflow import Register, Transform, hookimpl

    class Broken(Transform, frozen=True):
        """Breaks when it is examined."""

        async def diagnose(self) -> AsyncIterator[Finding]:
            yield Finding(True, "so far so good")
            raise RuntimeError("oh")

        def open(self, format: object) -> None:  # type: ignore[override]
            pass

    class Plugin:
        @hookimpl
        def register_components(self, register: Register) -> None:
            register("broken", Broken)

    found = await findings(
        tmp_path,
        f"source: {{use: mic}}\ntransforms: [{{use: broken}}]\nsinks: [{{use: disk, path: '{tmp_path}/a.wav'}}]\n",
        Plugin(),
    )
    assert [(each.ok, each.text) for each in found["transforms[0] broken"]] == [
        (True, "so far so good"),
        (False, "could not be examined: RuntimeError: oh"),
    ]
    assert found["sinks[0] disk"]


async def diagnosed(component: Component) -> list[tuple[bool | None, str]]:
    """Return what a component finds."""
    return [(finding.ok, finding.text) async for finding in component.diagnose()]


async def test_a_service_that_takes_us() -> None:
    """A sink to EkaScribe says that the service answers, knows the token and lists the template."""
    async with running(token=Secret("t0ken")) as ingest:
        sink = EkaRaw(base_url=ingest.url, token=Secret("t0ken"))
        found = await diagnosed(sink)
    host = ingest.url.removeprefix("http://")
    assert found == [
        (True, f"the service answers at {host}"),
        (True, "the clock agrees with the service's to within 3 s"),
        (True, "the service takes the credentials"),
    ]


@pytest.mark.parametrize(
    ("ahead", "ok", "text"),
    [(30, None, "30 s behind the service's"), (-30, None, "30 s ahead of the service's"), (90, False, "90 s behind")],
)
async def test_a_clock_that_is_wrong(monkeypatch: pytest.MonkeyPatch, ahead: float, ok: bool | None, text: str) -> None:
    """The service's Date tells; it is wrong when signatures begin to suffer."""
    monkeypatch.setattr(http, "time", SimpleNamespace(time=lambda: time.time() - ahead))
    async with running(token=Secret("t0ken")) as ingest:
        found = await diagnosed(EkaRaw(base_url=ingest.url, token=Secret("t0ken")))
    assert found[1][0] is ok
    # The Date has whole seconds, and the answer takes a moment.
    assert abs(int(found[1][1].split(" is ")[1].split()[0]) - abs(ahead)) <= 2
    assert text.partition(" ")[2] in found[1][1]


async def test_a_service_that_refuses_us() -> None:
    """A wrong token is told apart from a service that is not there, and neither is shown."""
    async with running(token=Secret("t0ken")) as ingest:
        refused = await diagnosed(EkaRaw(base_url=ingest.url, token=Secret("wr0ng")))
    assert [ok for ok, _ in refused] == [True, True, False]
    assert "wr0ng" not in str(refused)


async def test_a_port_that_is_free(tmp_path: Path) -> None:
    """A carrier's source says that it can listen, and that loopback is for this machine."""
    found = await diagnosed(Vobiz(listen="ws://127.0.0.1:0/vobiz"))
    assert found == [
        (True, "127.0.0.1:0 is free to listen at"),
        (None, "127.0.0.1:0 is this machine only: a carrier cannot reach it by itself"),
    ]


async def test_a_port_that_is_taken() -> None:
    """What listens there already is in the way, and so is a certificate that cannot be read."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as taken:
        port = taken.extra(anyio.abc.SocketAttribute.local_port)
        source = Vobiz(listen=f"wss://127.0.0.1:{port}/vobiz", certificate="no.pem", key="no.key")
        found = await diagnosed(source)
    assert [ok for ok, _ in found] == [False, False, None]
    assert found[0][1].startswith(f"cannot listen at 127.0.0.1:{port}: ")
    assert "no.pem" in found[1][1]


async def test_a_port_that_a_pipeline_has() -> None:
    """It may be the one that is examined, so it is only worth knowing."""
    engine = RecordingEngine()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Vobiz(listen="ws://127.0.0.1:0/vobiz").serve, engine)
            url = await engine.url()
            found = await diagnosed(Vobiz(listen=url))
            tasks.cancel_scope.cancel()
    place = url.removeprefix("ws://").removesuffix("/vobiz")
    assert found[0] == (None, f"a pipeline takes calls at {place} already, 0 at the moment")


async def asked_vobiz(**environment: str) -> list[Finding]:
    """Return what is found of the account that the environment names."""
    found = doctor.examine(None, plugins.load(), environment)
    return [finding async for part, finding in found if part == "account at Vobiz"]


async def test_the_account_at_vobiz() -> None:
    """Credentials that Vobiz takes are told from others, and from a service that is not there."""
    with vobiz_service.running() as service:
        good = {"VOBIZ_BASE_URL": service.url, "VOBIZ_AUTH_ID": vobiz_service.ACCOUNT}
        assert await asked_vobiz(**good, VOBIZ_AUTH_TOKEN=vobiz_service.TOKEN) == [
            Finding(True, "Vobiz takes the credentials")
        ]
        (wrong,) = await asked_vobiz(**good, VOBIZ_AUTH_TOKEN="hush-hush")
        service.answers = [(404, {"error": "no such call"}, {})]
        (unknown,) = await asked_vobiz(**good, VOBIZ_AUTH_TOKEN=vobiz_service.TOKEN)
        service.answers = [(400, {"error": "what is this"}, {})]
        (odd,) = await asked_vobiz(**good, VOBIZ_AUTH_TOKEN=vobiz_service.TOKEN)
    assert (wrong.ok, wrong.text) == (False, "Vobiz does not take the credentials (HTTP 401)")
    assert "hush" not in str(wrong)
    assert unknown.ok is True
    assert odd.ok is None and "what is this" in odd.text
    assert (await asked_vobiz(**good, VOBIZ_AUTH_TOKEN=vobiz_service.TOKEN))[0].text.startswith("Vobiz does not answer")


async def test_half_of_an_account_at_vobiz() -> None:
    """An id without a token is a slip, and neither is nothing to tell."""
    assert await asked_vobiz(VOBIZ_AUTH_ID="MA_X") == [
        Finding(False, "VOBIZ_AUTH_ID is set and VOBIZ_AUTH_TOKEN is not", "set both, or none")
    ]
    assert await asked_vobiz() == []


async def test_a_vobiz_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor waits no longer than for any other, also where a line is taken and nobody answers."""
    monkeypatch.setattr(doctor, "TIMEOUT_S", 0.2)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        found = await asked_vobiz(VOBIZ_BASE_URL=f"http://127.0.0.1:{port}", VOBIZ_AUTH_ID="a", VOBIZ_AUTH_TOKEN="b")
    assert found == [Finding(False, "did not answer within 0.2 s", "look at the network and at the peer")]
