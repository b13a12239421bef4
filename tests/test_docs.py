"""What the documents say is so: their pipelines load, their commands run, their code works."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from urllib.parse import urlencode

import cli_kit
import pytest
import vobiz_service

from mediaflow import config, graph, plugins
from mediaflow.delivery import ledger
from mediaflow.lab import CLIP
from mediaflow.listening import reserved

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
    },
    "media_streams_to_eka": {
        "MEDIA_STREAMS_LISTEN",
        "MEDIA_STREAMS_SECRET",
        "EKA_BASE_URL",
        "EKA_TOKEN",
        "EKA_CLIENT_ID",
        "EKA_CLIENT_SECRET",
    },
}

# Commands of the documents that are not run from here, and where they are.
ELSEWHERE = {
    "make test": "this is what runs this test",
    "pip install .": "`make test` installs the package so for the other Pythons",
    "pip install 'mediaflow[server]'": "the same, with the extra that the tests have anyway",
    "mediaflow lab call ws://127.0.0.1:8080/vobiz/s3cret --calls 5": "tests/cli/test_lab.py has a server for it",
}

# The page whose commands belong together: they are run one after the other, by a test of their own.
WALK = ROOT / "docs" / "from-zero.md"


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
    """Return every command of the documents, once; the walk and docs/lab.md's rehearsal have tests of their own."""
    found = {line for page in PAGES if page != WALK for line in commands_of(page)}
    return sorted(found - set(ELSEWHERE))


def commands_of(page: Path) -> list[str]:
    """Return the commands of a page in their order."""
    return [
        line[2:]
        for block in blocks(page, "console")
        for line in block.splitlines()
        if line[:2] == "$ " and ("clinic.yaml" not in block or page == WALK)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_documents_runs(line: str, tmp_path: Path) -> None:
    """A command of a console block ends well; one that serves for ever does so when it is told to stop."""
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "EKA_TOKEN": "t"}
    env["VOBIZ_LISTEN"] = "ws://127.0.0.1:0/vobiz"
    words = shlex.split(line)
    serves = words[0] == "mediaflow" and "--lab" not in words  # a rehearsal ends by itself
    if words == ["make", "demo"]:
        words.append("SPEED=max")
    with subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for output in process.stdout:
            if "listens at" in output and serves:
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


@pytest.mark.slow
def test_the_walk_from_zero_arrives(tmp_path: Path) -> None:
    """All its commands, in their order, with nobody's accounts at addresses of this machine: there is a result."""
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    (tmp_path / "clinic.yaml").write_text(next(blocks(WALK, "yaml")))
    call, secret = vobiz_service.CALL, "s3cret"
    with vobiz_service.running() as carrier, ExitStack() as stack:
        ports = [stack.enter_context(reserved("127.0.0.1")) for _ in range(3)]
        listen, control, eka = (f"127.0.0.1:{port}" for port in ports)
        said = {
            "EKA_CLIENT_ID": "me",
            "EKA_CLIENT_SECRET": "pw",
            "VOBIZ_AUTH_ID": vobiz_service.ACCOUNT,
            "VOBIZ_AUTH_TOKEN": vobiz_service.TOKEN,
            "VOBIZ_SECRET": secret,
            "PUBLIC_URL": f"http://{control}",
            "VOBIZ_STREAM_URL": f"ws://{listen}/vobiz/{secret}",
            "DOCTOR_NUMBER": "+911140001000",
            "CALLER_ID": "+911140002000",
        }
        [exports] = blocks(WALK, "sh")
        assert set(re.findall(r"\b([A-Z_]+)=", exports)) == set(said)
        places = {
            "VOBIZ_LISTEN": f"ws://{listen}/vobiz",
            "VOBIZ_CONTROL": f"http://{control}",
            "VOBIZ_BASE_URL": carrier.url,
            "EKA_BASE_URL": f"http://{eka}",
        }
        vendor = tmp_path / "vendor.yaml"
        vendor.write_text(
            f"source: {{use: eka_ingest, listen: 'http://{eka}', client_id: me, client_secret: pw}}\n"
            "sinks: [{use: disk, path: 'vendor/{session_id}.wav'}]\nstate: vendor\n"
        )
        stack.enter_context(cli_kit.running(tmp_path, "run", str(vendor))).wait_for("listens at")
        told, bridge = "", None
        for line in commands_of(WALK):
            words = shlex.split(line)
            if line in ELSEWHERE:
                continue
            if line == "mediaflow run clinic.yaml":
                bridge = stack.enter_context(cli_kit.running(tmp_path, *words[1:], **said, **places))
                bridge.wait_for("listens at")
                continue
            lab = "--lab" in words
            env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **({} if lab else said | places)}
            done = subprocess.run(
                ["sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=cli_kit.LIMIT_S
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            told += done.stdout
            if line == f"mediaflow vobiz stream start {call}":
                _ring(tmp_path, carrier.seen[-1].body["service_url"], call, f"http://{control}/hangup/{secret}")
                assert bridge is not None
                bridge.wait_for(f"call {call}: ended")
                deadline = time.monotonic() + cli_kit.LIMIT_S
                while "'Hangup'" not in str(ledger.read(tmp_path / "mediaflow-data", call)):
                    assert time.monotonic() < deadline  # what is told after the end is written within a second
        assert bridge is not None
        bridge.process.send_signal(signal.SIGTERM)
        assert bridge.end() == 0
    assert "all is well" in told
    assert f"ok    source vobiz: http://{control}/healthz leads to us" in told
    assert '"event": "Hangup"' in told
    result = json.loads(told.splitlines()[-1])
    assert result["status"] == "completed"
    assert result["additional_data"] == {"call_id": call}
    assert result["audio"]["seconds"] == pytest.approx(24.3, abs=0.1)


def _ring(folder: Path, url: str, call: str, hangup: str) -> None:
    """Play the call that Vobiz would fork, and hang up."""
    env = {"LAB_URL": url, "LAB_CALL": call, "LAB_SPEED": "max", "LAB_AUDIO": str(CLIP)}
    done = cli_kit.run(folder, "run", "pipelines/lab_call.yaml", **env)
    assert done.returncode == 0, done.stdout + done.stderr
    form = urlencode({"CallUUID": call, "HangupCauseName": "Normal Hangup"}).encode()
    with urllib.request.urlopen(hangup, form, timeout=10) as reply:
        assert reply.status == 200


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
