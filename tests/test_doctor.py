"""The doctor finds what is wrong, says what to do, and is itself harmed by nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mediaflow import Finding, PathTemplate, config, doctor, plugins
from mediaflow_plugins.sink_disk import Disk

pytestmark = pytest.mark.anyio


async def findings(folder: Path, text: str, *extra: object) -> dict[str, list[Finding]]:
    """Examine a pipeline and return what is found by part."""
    file = folder / "p.yaml"
    file.write_text(text)
    installed = plugins.load()
    for number, plugin in enumerate(extra):
        installed.add(plugin, f"extra {number}")
    found: dict[str, list[Finding]] = {}
    async for part, finding in doctor.examine(config.load(str(file), installed, {}), installed):
        found.setdefault(part, []).append(finding)
    return found


async def test_the_machine_is_named(tmp_path: Path) -> None:
    """Without a pipeline the versions are told: what a report of a fault needs."""
    found = [finding async for _, finding in doctor.examine(None, plugins.load())]
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
