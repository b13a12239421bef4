"""Plugins are found by their entry points; one that is broken is told and does no harm."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta
from pipeline_kit import make_audio

from mediaflow import (
    AudioFormat,
    Engine,
    Joiner,
    PathTemplate,
    Processor,
    Register,
    Secret,
    Sink,
    Source,
    Transform,
    hookimpl,
)
from mediaflow.plugins import Plugins, load

LOUDER = '''
"""Make audio twice as loud."""

from typing import Annotated

from msgspec import Meta

from mediaflow import AudioFormat, Processor, Transform, dsp, hookimpl


class Louder(Transform, frozen=True):
    """Make audio louder."""

    times: Annotated[int, Meta(ge=2, le=8, description="how much louder")] = 2

    def open(self, format: AudioFormat) -> Processor:
        return _Louder(self.times)


class _Louder(Processor):
    def __init__(self, times):
        self._times = times

    def process(self, frame):
        louder = frame.data
        for _ in range(1, self._times):
            louder = dsp.mix(louder, frame.data)
        yield frame.replace(louder)


@hookimpl
def register_components(register):
    register("louder", Louder)
'''


def install(folder: Path, name: str, code: str, entries: str = "") -> None:
    """Put a package with a module and its entry points where pip would."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[mediaflow]\n{entries or f'{name} = {module}'}\n")


Mediaflow = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def mediaflow(tmp_path: Path) -> Mediaflow:
    """Return a function that runs the command line, in a folder of its own, where the packages of it are installed."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from mediaflow.cli import main; main()", *arguments]
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    return run


class TestOutOfTree:
    """A package that nobody here knows, in a process of its own."""

    @pytest.fixture(autouse=True)
    def louder(self, tmp_path: Path) -> None:
        """Install a plugin that works, and write a pipeline that uses it."""
        install(tmp_path, "acme-louder", LOUDER)
        make_audio(tmp_path)
        (tmp_path / "call.raw").write_bytes(b"\x01\x00\xff\xff" * 4000)
        (tmp_path / "p.yaml").write_text(
            textwrap.dedent("""
                source: {use: file, path: call.raw, sample_rate: 8000}
                transforms: [{use: louder, times: 3}]
                sinks: [{use: disk, path: "out.wav"}]
            """)
        )

    def test_it_is_like_ours(self, tmp_path: Path, mediaflow: Mediaflow) -> None:
        """It is listed, inspected, checked, explained and run as the built-in ones are."""
        listed = mediaflow("plugins", "list")
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "  louder         Make audio louder.  [acme-louder 1.2]\n" in listed.stdout
        inspected = mediaflow("plugins", "inspect", "louder")
        assert inspected.stdout.splitlines() == [
            "louder: transform from acme-louder 1.2",
            "",
            "Make audio louder.",
            "",
            "options",
            "  times: a whole number from 2 to 8; default 2",
            "      how much louder",
        ]
        assert mediaflow("check", "p.yaml").stdout == "p.yaml: ok\n"
        assert "  transforms[0] louder → s16le 8000 Hz mono\n" in mediaflow("explain", "p.yaml").stdout
        run = mediaflow("run", "p.yaml")
        assert run.returncode == 0, run.stderr
        assert (tmp_path / "out.wav").read_bytes().endswith(b"\x03\x00\xfd\xff" * 4000)

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("import not_installed_anywhere", "ModuleNotFoundError: No module named 'not_installed_anywhere'"),
            ("raise RuntimeError('boom')", "RuntimeError: boom"),
            ("def f(:", "SyntaxError: "),
            ("import sys; sys.exit('usage: …')", "SystemExit: usage: …"),
            (LOUDER + "    raise RuntimeError('boom')", "ValueError: component 'louder' is brought by acme-louder 1.2"),
            (
                LOUDER.replace('register("louder", Louder)', 'register("l", Louder); raise OSError("boom")'),
                "OSError: boom",
            ),
            (LOUDER.replace("(register)", "(registre)"), "PluginValidationError: "),
            (LOUDER.replace("register_components(", "register_component("), "PluginValidationError: unknown hook"),
            (LOUDER.replace("@hookimpl", ""), "TypeError: it has no hook"),
        ],
        ids=["import", "raises", "syntax", "exits", "taken", "hook", "argument", "misspelt", "unmarked"],
    )
    def test_a_broken_neighbour(self, tmp_path: Path, mediaflow: Mediaflow, code: str, reason: str) -> None:
        """Whatever a plugin does when it is loaded, it is named with the reason, and the others work."""
        install(tmp_path, "zzz-broken", code)
        listed = mediaflow("plugins", "list")
        assert listed.returncode == 1
        assert listed.stderr.startswith("broken: zzz-broken 1.2 did not load: ")
        assert reason in listed.stderr and listed.stderr.count("\n") == 1
        assert "zzz-broken" not in listed.stdout
        assert "[acme-louder 1.2]" in listed.stdout
        assert mediaflow("check", "p.yaml").stdout == "p.yaml: ok\n"
        (tmp_path / "p.yaml").write_text("source: {use: file, path: call.wav}\nsinks: [{use: zzz}]\n")
        missed = mediaflow("check", "p.yaml")
        assert missed.returncode == 2
        assert "there is no sink 'zzz'" in missed.stderr and f"zzz-broken 1.2 did not load: {reason}" in missed.stderr

    def test_two_entries_of_one_package(self, tmp_path: Path, mediaflow: Mediaflow) -> None:
        """A package may bring several plugins; naming one twice is told."""
        quieter = LOUDER.replace('"louder"', '"quieter"')
        (tmp_path / "second.py").write_text(quieter)
        install(tmp_path, "two", LOUDER.replace('"louder"', '"loudest"'), "a = two\nb = second\nc = second")
        listed = mediaflow("plugins", "list")
        assert "  loudest " in listed.stdout and "  quieter " in listed.stdout
        assert listed.stderr == "broken: two 1.2 did not load: ValueError: it is named by two entry points\n"

    def test_without_docstrings(self, tmp_path: Path, mediaflow: Mediaflow, monkeypatch: pytest.MonkeyPatch) -> None:
        """Under ``python -OO``, which takes docstrings away, the components are still there."""
        monkeypatch.setenv("PYTHONOPTIMIZE", "2")
        listed = mediaflow("plugins", "list")
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "  louder           [acme-louder 1.2]\n" in listed.stdout
        assert mediaflow("check", "p.yaml").stdout == "p.yaml: ok\n"


class Good(Transform, frozen=True):
    """Do nothing."""

    def open(self, format: AudioFormat) -> Processor:
        return Processor()


class Undocumented(Transform, frozen=True):
    def open(self, format: AudioFormat) -> Processor:
        return Processor()


class HalfASource(Source, frozen=True):
    """Lack ``formats``."""

    async def serve(self, engine: Engine) -> None: ...


class NoSink(Sink, frozen=True):
    """Lack ``open``."""


class NoJoiner(Joiner, frozen=True):
    """Lack ``open``."""


class NoSource(Source, frozen=True):
    """Lack both."""


class StrangeOption(Good, frozen=True, kw_only=True):
    """Take what YAML cannot give."""

    where: Path


class UnknownAnnotation(Good, frozen=True, kw_only=True):
    """Have an option of a type that is not there."""

    what: NotThere  # type: ignore[name-defined]  # noqa: F821


class Use(Good, frozen=True, kw_only=True):
    """Have an option that would hide the component's name."""

    use: str


def add(*registered: tuple[Any, Any]) -> Plugins:
    """Return plugins with one that registers these, one after the other."""

    class Plugin:
        @hookimpl
        def register_components(self, register: Register) -> None:
            for name, component in registered:
                register(name, component)

    plugins = Plugins()
    plugins.add(Plugin(), "acme")
    return plugins


@pytest.mark.parametrize(
    ("name", "component", "reason"),
    [
        ("bad-name", Good, "ValueError: component name 'bad-name' is not lower_case_with_underscores"),
        ("Good", Good, "ValueError: component name 'Good' is not lower_case"),
        ("", Good, "ValueError: component name '' is not lower_case"),
        (7, Good, "ValueError: component name 7 is not lower_case"),
        ("x", object, "TypeError: component 'x' is not a class made of Source, Transform, Joiner or Sink"),
        ("x", Good(), "TypeError: component 'x' is not a class"),
        ("x", None, "TypeError: component 'x' is not a class"),
        ("x", Undocumented, "TypeError: component 'x' has no docstring"),
        ("x", HalfASource, "TypeError: component 'x' does not define formats"),
        ("x", NoSource, "TypeError: component 'x' does not define serve and formats"),
        ("x", NoSink, "TypeError: component 'x' does not define open"),
        ("x", NoJoiner, "TypeError: component 'x' does not define open"),
        ("x", StrangeOption, "TypeError: component 'x' has options that cannot be read: an option cannot be of type"),
        ("x", UnknownAnnotation, "options that cannot be read: name 'NotThere' is not defined"),
        ("x", Use, "TypeError: component 'x' has an option `use`"),
        ("good", Good, "ValueError: component 'good' is brought by acme already"),
    ],
)
def test_what_cannot_be_used_is_refused(name: Any, component: Any, reason: str) -> None:
    """A component that would fail later is refused when it is registered, and all that its plugin brought with it."""
    plugins = add(("good", Good), (name, component))
    assert plugins.components == {}
    assert list(plugins.broken) == ["acme"]
    assert reason in plugins.broken["acme"]


@pytest.mark.parametrize("misspelt", [False, True])
def test_a_broken_plugin_hears_no_news(misspelt: bool) -> None:
    """Of a plugin that was refused nothing is kept, not even its ears."""
    heard: list[str] = []

    class Plugin:
        @hookimpl
        def register_components(self, register: Register) -> None:
            if not misspelt:
                raise OSError("boom")

        @hookimpl
        def source_listening(self, pipeline: str, url: str) -> None:
            heard.append(url)

        if misspelt:

            @hookimpl
            def sesion_started(self) -> None: ...

    plugins = Plugins()
    plugins.add(Plugin(), "acme")
    plugins.hook.source_listening(pipeline="p", url="u")
    assert heard == [] and list(plugins.broken) == ["acme"]


def test_a_plugin_may_only_listen() -> None:
    """A plugin that brings no component is heard all the same."""
    heard: list[str] = []

    class Plugin:
        @hookimpl
        def source_listening(self, url: str) -> None:
            heard.append(url)

    plugins = Plugins()
    plugins.add(Plugin(), "acme")
    plugins.hook.source_listening(pipeline="p", url="u")
    assert heard == ["u"] and not plugins.broken


class Everything(Good, frozen=True, kw_only=True):
    """Take every type that an option may have."""

    token: Secret = Secret("hush")
    path: PathTemplate = PathTemplate("{call_id}.wav")
    rate: Annotated[int, Meta(ge=8000, description="samples per second")] | None = None
    names: Annotated[list[str], Meta(min_length=1, description="names")]


def test_the_options_of_a_component() -> None:
    """What an option takes is known from the moment its component is; a secret's default is not told."""
    assert add(("good", Good)).components["good"].options == {}
    assert add(("x", Everything)).components["x"].options == {
        "token": {"type": "string", "writeOnly": True, "default": ""},
        "path": {"type": "string", "minLength": 1, "format": "path", "default": "{call_id}.wav"},
        "rate": {
            "anyOf": [{"type": "integer", "minimum": 8000}, {"type": "null"}],
            "description": "samples per second",
            "default": None,
        },
        "names": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "names"},
    }


def test_what_is_built_in() -> None:
    """The components of this package load, each from the file that its name says."""
    plugins = load()
    assert not plugins.broken
    ours = [
        found for found in plugins.components.values() if found.component.__module__.startswith("mediaflow_plugins")
    ]
    assert len(ours) >= 18
    for found in ours:
        assert found.component.__module__ == f"mediaflow_plugins.{found.kind}_{found.name}"
        assert found.plugin.startswith("mediaflow ")
        about = found.component.__doc__ or ""
        assert about.partition("\n")[0].endswith("."), f"{found.name} begins with more than a line"
        for option, spec in found.options.items():
            assert spec.get("description") or found.name in ("select",), f"{found.name} does not say what {option} is"
