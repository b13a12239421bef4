"""What the documents say is so: their pipelines load, their commands run, their code works."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from mediaflow import config, graph, plugins

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PIPELINES = sorted((ROOT / "pipelines").glob("*.yaml"))
BIN = Path(sys.executable).parent

# The variables that a shipped pipeline may read, and nothing else.
VARIABLES = {
    "vobiz_to_eka": {
        "VOBIZ_LISTEN",
        "VOBIZ_SECRET",
        "EKA_BASE_URL",
        "EKA_TOKEN",
        "EKA_CLIENT_ID",
        "EKA_CLIENT_SECRET",
    }
}

# Commands of the documents that are not run from here, and where they are.
ELSEWHERE = {
    "make test": "this is what runs this test",
    "pip install .": "`make test` installs the package so for the other Pythons",
    "mediaflow lab call ws://127.0.0.1:8080/vobiz/s3cret --calls 5": "tests/cli/test_lab.py has a server for it",
}


def blocks(page: Path, language: str) -> Iterator[str]:
    """Return the fenced blocks of one language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def in_pages(language: str) -> list[pytest.ParameterSet]:
    """Return every fenced block of one language, named by its page."""
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, language))
    ]


def load(file: Path, env: dict[str, str]) -> config.Pipeline:
    """Load a pipeline from the repository's root, where the documents say to stand."""
    return config.load(str(file), plugins.load(), env)


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_a_shipped_pipeline_works_as_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loads with nothing set but a token, fits together, and is short enough to be read at a glance."""
    monkeypatch.chdir(ROOT)
    assert graph.check(load(file, {"EKA_TOKEN": "t"}))
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) <= 20


@pytest.mark.parametrize(("name", "variables"), VARIABLES.items())
def test_a_shipped_pipeline_reads_only_what_the_readme_names(name: str, variables: set[str]) -> None:
    """The environment that a pipeline reads is the one that is documented."""
    text = (ROOT / "pipelines" / f"{name}.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == variables
    assert variables <= set(re.findall(r"`([A-Z_]+)`", (ROOT / "README.md").read_text()))


@pytest.mark.parametrize("block", in_pages("yaml"))
def test_every_pipeline_in_the_documents_loads(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A YAML block is a pipeline, and it fits together."""
    monkeypatch.chdir(ROOT)
    file = tmp_path / "block.yaml"
    file.write_text(block)
    assert graph.check(load(file, {"EKA_TOKEN": "t"}))


def commands() -> list[str]:
    """Return every command of the documents, once; the rehearsal of docs/lab.md runs in tests/cli/test_lab.py."""
    found = [
        line[2:]
        for page in PAGES
        for block in blocks(page, "console")
        for line in block.splitlines()
        if line[:2] == "$ " and "clinic.yaml" not in block
    ]
    return sorted(set(found) - set(ELSEWHERE))


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_documents_runs(line: str, tmp_path: Path) -> None:
    """A command of a console block ends well; one that serves for ever does so when it is told to stop."""
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "EKA_TOKEN": "t"}
    env["VOBIZ_LISTEN"] = "ws://127.0.0.1:0/vobiz"
    words = shlex.split(line)
    if words == ["make", "demo"]:
        words.append("SPEED=max")
    with subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for output in process.stdout:
            if "listens at" in output and words[0] == "mediaflow" and "--chaos" not in words:  # which goes to its end
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def module(name: str, code: str, folder: Path) -> ModuleType:
    """Import a Python block as a plugin's module."""
    file = folder / f"{name}.py"
    file.write_text(code)
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.anyio
async def test_the_plugins_of_the_guide_work_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's source, transform and sink, pasted as they stand, make a pipeline that carries its samples."""
    from mediaflow.runner import Runner

    installed = plugins.load()
    for number, code in enumerate(blocks(ROOT / "docs" / "plugins.md", "python")):
        installed.add(module(f"guide_{number}", code, tmp_path), f"guide {number}")
    assert not installed.broken
    file = tmp_path / "guide.yaml"
    file.write_text(
        textwrap.dedent(f"""\
            source: {{use: silence, seconds: 0.5}}
            transforms: [{{use: gain, factor: 2.0}}]
            sinks: [{{use: count}}]
            state: {tmp_path}
            """)
    )
    runner = Runner(config.load(str(file), installed, {}), installed)
    await runner.run()
    assert runner.accounts[0]["status"] == "complete"
    assert runner.accounts[0]["sinks"][0]["outcome"] == {"samples": 8000}


@pytest.mark.anyio
async def test_the_client_of_the_manual_fetches_a_note(tmp_path: Path) -> None:
    """The manual's code for EkaScribe, pasted as it stands, against a service that takes what it sends."""
    import anyio

    from mediaflow import AudioFormat, wav
    from mediaflow.testing import RecordingEngine
    from mediaflow_plugins.source_eka_ingest import EkaIngest

    [code] = blocks(ROOT / "docs" / "eka.md", "python")
    guide = module("guide_eka", code, tmp_path)
    header = wav.wav_header(AudioFormat("s16le", 8000), 800)
    engine = RecordingEngine()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(EkaIngest(listen="http://127.0.0.1:0").serve, engine)
            state = await guide.note(await engine.url(), "me", "pw", [header + bytes(1600)] * 3)
            tasks.cancel_scope.cancel()
    assert (state.status, state.body["audio"]["samples"]) == ("completed", 2400)


def test_the_code_of_the_core_page_runs() -> None:
    """The first example of docs/dsp.md, given some codes, does what it says."""
    names: dict[str, object] = {"codes": bytes(range(256)) * 400, "out": bytearray(2 * 256 * 400)}
    exec(next(blocks(ROOT / "docs" / "dsp.md", "python")), names)
    assert names["pcm"] == names["out"]
    # The chain has not been flushed: what its resampler holds back is missing.
    held_back = round(names["resampler"].latency * 16_000)  # type: ignore[attr-defined]
    assert len(names["wide"]) == 2 * (2 * 256 * 400 - held_back)  # type: ignore[arg-type]


def test_a_transform_takes_fifteen_lines() -> None:
    """The guide's first plugin is as short as the guide says, counting every line of code."""
    code = next(blocks(ROOT / "docs" / "plugins.md", "python"))
    inside = [
        line for line in code.splitlines() if line.strip() and not line.strip().startswith(('"""', "import", "from"))
    ]
    assert len(inside) <= 15


def test_the_components_page_is_up_to_date() -> None:
    """docs/components.md is what `python docs/make_components.py` writes."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import make_components
    finally:
        sys.path.pop(0)
    assert make_components.PAGE.read_text() == make_components.render()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository finds it."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
