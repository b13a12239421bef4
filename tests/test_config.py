"""A pipeline file becomes components, or every mistake in it is told with its place and nothing secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings, strategies as st
from pipeline_kit import Shout, Voice, make_audio, with_shout

from mediaflow import ConfigError, PathTemplate, Secret, config, graph
from mediaflow.config import Pipeline
from mediaflow.plugins import Plugins
from mediaflow_plugins.sink_disk import Disk
from mediaflow_plugins.source_file import File
from mediaflow_plugins.source_media_streams import MediaStreams
from mediaflow_plugins.source_vobiz import Vobiz
from mediaflow_plugins.transform_mix import Mix
from mediaflow_plugins.transform_resample import Resample

ENV = {"SECRET": "hush-hush", "NAN": "nan", "EMPTY": "", "STRUCTURE": "a\n- use: disk: {b: [c"}
GOOD = "source:\n  use: file\n  path: call.wav\nsinks: [{use: disk}]\n"


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    """Load what is installed, once."""
    return with_shout()


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder with the audio files that the pipelines name."""
    folder = tmp_path_factory.mktemp("pipelines")
    make_audio(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def load(text: str | bytes, plugins: Plugins, env: Mapping[str, str] = ENV) -> Pipeline:
    """Load a pipeline of this text, and see that its parts fit."""
    Path("p.yaml").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    pipeline = config.load("p.yaml", plugins, env)
    graph.check(pipeline)
    return pipeline


def corpus() -> list[Any]:
    """Read the catalogue of broken pipelines."""
    text = (Path(__file__).parent / "broken_pipelines.txt").read_text(encoding="utf-8")
    cases = []
    for case in re.split(r"(?m)^=== ", text)[1:]:
        name, _, rest = case.partition("\n")
        file, *said = rest.split("-->")
        cases.append(pytest.param(file, [line.strip() for line in said], id=name))
    return cases


def test_the_catalogue_is_long() -> None:
    """It was read as a whole, and no case stands in it twice."""
    names = [case.id for case in corpus()]
    assert len(names) > 120
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("text", "said"), corpus())
def test_broken_pipelines(text: str, said: list[str], plugins: Plugins) -> None:
    """Every mistake is told at its place, in the order of the file, with the fix; no environment value is shown."""
    with pytest.raises(ConfigError) as caught:
        load(text, plugins)
    problems = [str(problem) for problem in caught.value.problems]
    assert len(problems) == len(said), problems
    for problem, expected in zip(problems, said, strict=True):
        pattern = ".*".join(re.escape(part.strip()) for part in expected.split("…"))
        assert re.fullmatch(f"p\\.yaml:{pattern}", problem), problem
    assert not any(value in str(caught.value) for value in ("hush", "- use: disk: {b"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "1:1: yaml: the file is empty"),
        (b"\n\n  \n", "1:1: yaml: the file is empty"),
        (b"\xef\xbb\xbf", "1:1: yaml: the file is empty"),
        (b"source:\n  use: caf\xe9\n", "2:11: unreadable: byte 0xe9 is not UTF-8"),
        ("source: {use: file}".encode("utf-16"), "1:1: unreadable: byte 0xff is not UTF-8"),
        (b"source:\n  \xc3\xa9\xff", "2:4: unreadable: byte 0xff is not UTF-8"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "1:6: yaml: the character U+0000 cannot stand in YAML"),
        (b"source:\n  use: a\x07b\n", "2:9: yaml: the character U+0007 cannot stand in YAML"),
        ("source:\n  use: é\x07b\n".encode(), "2:9: yaml: the character U+0007 cannot stand in YAML"),
        (b"#" * (1 << 20) + b"\n", "1:1: unreadable: is longer than 1048576 bytes"),
        (b"{", "1:2: yaml: while parsing a flow node"),
        (b"[" * 1_000_000, "1:21: yaml: values are nested more than 20 deep"),
        (b"? " * 1000, "1:41: yaml: values are nested more than 20 deep"),
        (b"\xef\xbb\xbfsource: {use: 5}\nsinks: [{use: disk}]", "1:15: bad-type: use takes the name"),
        (b"source: {use: file, path: call.wav}\r\nsinks: [{use: dsk}]\r\n", "2:15: unknown-component: "),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_files_that_are_no_text(data: bytes, said: str, plugins: Plugins) -> None:
    """What is empty, binary, too long or in another encoding is refused at once, at the byte where it shows."""
    with pytest.raises(ConfigError) as caught:
        load(data, plugins)
    assert str(caught.value.problems[-1]).startswith(f"p.yaml:{said}")


@pytest.mark.parametrize(
    ("file", "said"),
    [("missing.yaml", "No such file or directory"), (".", "Is a directory"), ("/dev/zero", "is longer")],
)
def test_what_is_no_file(file: str, said: str, plugins: Plugins) -> None:
    """A path that leads nowhere, to a folder or to a device without end is a problem like any other."""
    with pytest.raises(ConfigError, match=said) as caught:
        config.load(file, plugins, ENV)
    assert [(problem.file, problem.line, problem.code) for problem in caught.value.problems] == [
        (file, 1, "unreadable")
    ]


def test_a_pipeline_as_components(plugins: Plugins) -> None:
    """Everything in the file arrives where it belongs, in the types that the components declare."""
    pipeline = load(
        """
source: {use: vobiz, secret: 'no', idle_s: 5}
transforms:
  - use: mulaw_decode
  - {use: resample, rate: 16000}
  - use: shout
    loud: true
    words: [no, 8:30, "1", 2024-01-01, ~x]
    grid: [[012, -3], []]
    levels: {low: 1}
    voice: {pitch: +5}
  - use: mix
sinks:
  - use: disk
    path: "{call_id}.wav"
drain_s: 1e1
state: elsewhere
""",
        plugins,
    )
    assert pipeline.source == Vobiz(secret=Secret("no"), idle_s=5.0)
    assert pipeline.transforms[1] == Resample(rate=16000)
    assert pipeline.transforms[2] == Shout(
        loud=True,
        words=["no", "8:30", "1", "2024-01-01", "~x"],
        grid=[[12, -3], []],
        levels={"low": 1},
        voice=Voice(5),
    )
    assert pipeline.sinks == (Disk(path=PathTemplate("{call_id}.wav")),)
    assert (pipeline.name, pipeline.state, pipeline.drain_s) == ("p", "elsewhere", 10.0)
    assert pipeline.label(("transforms", 1)) == "transforms[1] resample"
    assert str(pipeline.problem(("sinks", 0), "x", "y")) == "p.yaml:14:5: x: sinks[0] disk: y"


def test_a_reply_is_a_pipeline_in_the_pipeline(plugins: Plugins) -> None:
    """Its parts are components like any, with labels and places of their own; its sink is the source's speaker."""
    pipeline = load(
        """
source: {use: media_streams, dialect: twilio}
transforms: [{use: mulaw_decode}, {use: mix}, {use: energy_vad}]
sinks: [{use: disk}]
reply:
  source: {use: file, path: stereo.wav}
  transforms: [{use: mix}]
  barge_in: ${BARGE_IN}
state: elsewhere
""",
        plugins,
        {"BARGE_IN": "true"},
    )
    reply = pipeline.reply
    assert reply is not None
    assert reply.source == File(path="stereo.wav")
    assert reply.transforms == (Mix(),)
    assert reply.sinks == (MediaStreams.speaker,)
    assert (reply.barge_in, reply.reply, reply.state) == (True, None, "elsewhere")
    assert reply.label(("transforms", 0)) == "reply.transforms[0] mix"
    assert str(reply.problem(("source",), "x", "y")) == "p.yaml:6:11: x: reply.source file: y"
    assert set(pipeline.names) == {("source",), ("sinks", 0), *(("transforms", n) for n in range(3))}
    assert load(GOOD, plugins).reply is None


@pytest.mark.parametrize("transforms", ["", "transforms:\n", "transforms: []\n"])
def test_transforms_may_be_missing(transforms: str, plugins: Plugins) -> None:
    """A pipeline without steps carries its source to its sinks as it is."""
    assert load(transforms + GOOD, plugins).transforms == ()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("call.wav", "call.wav"),
        ('"${FILE}"', "call.wav"),
        ("${FILE}", "call.wav"),
        ("'${FILE}'", "call.wav"),
        ("${NAME}.wav", "call.wav"),
        ("${FILE:-other.wav}", "call.wav"),
        ("${EMPTY:-call.wav}", "call.wav"),
        ("${NOT_SET:-call.wav}", "call.wav"),
        ("${NOT_SET:-call}${NOT_SET:-}${EMPTY}.wav", "call.wav"),
    ],
)
def test_the_environment(text: str, path: str, plugins: Plugins) -> None:
    """Values come from the environment in every way of quoting, whole or in part, with and without a default."""
    pipeline = load(GOOD.replace("call.wav", text), plugins, {"FILE": "call.wav", "NAME": "call", "EMPTY": ""})
    assert pipeline.source == File(path=path)


def test_numbers_from_the_environment(plugins: Plugins) -> None:
    """What the environment gives is text; where a number, a choice or true is wanted it is taken for one."""
    text = """
source: {use: file, path: call.wav, speed: "${SPEED:-2}"}
transforms: [{use: shout, loud: "${LOUD}", grid: [["${PITCH}"]], voice: {pitch: "${PITCH}"}}]
sinks: [{use: disk, queue_ms: "${QUEUE}"}]
drain_s: ${DRAIN}
"""
    pipeline = load(text, plugins, {"LOUD": "true", "PITCH": "3", "QUEUE": "100", "DRAIN": "0.5"})
    assert pipeline.source == File(path="call.wav", speed=2.0)
    assert pipeline.transforms == (Shout(loud=True, grid=[[3]], voice=Voice(3)),)
    assert pipeline.sinks == (Disk(queue_ms=100),)
    assert pipeline.drain_s == 0.5


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("$${HOME}", "${HOME}"),
        ("$$", "$$"),
        ("$HOME", "$HOME"),
        ("a$", "a$"),
        ("${DEFAULT:-{call_id}/{track}}", "{call_id}/{track}"),
        ("${DEFAULT:-a: b}", "a: b"),
    ],
)
def test_dollars_that_stay(text: str, id: str, plugins: Plugins) -> None:
    """Only ``${`` is special, ``$${`` is a way to write it, and a default may hold the places of a path."""
    source = f"source: {{use: file, path: call.wav, id: '{text}'}}\nsinks: [{{use: disk}}]\n"
    assert load(source, plugins, {}).source == File(path="call.wav", id=id)


@given(value=st.text())
@example(value="a\nsinks: []")
@example(value="x: {y: [z")
@example(value="*a")
@example(value="!!python/object:os.system")
@example(value="${SECRET}")
@example(value='"')
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_environment_never_changes_the_structure(value: str, plugins: Plugins) -> None:
    """Whatever a variable holds, it is the text of the one value where its name stands."""
    text = GOOD.replace("call.wav", "call.wav\n  id: '${ID}'")
    for quoted in (text, text.replace("'", ""), text.replace("'", '"')):
        assert load(quoted, plugins, {"ID": value}).source == File(path="call.wav", id=value)


@given(secret=st.text(st.characters(codec="utf-8"), min_size=12).filter(lambda value: value not in GOOD))
@example(secret="multi\nline 'secret'")
@example(secret="back\\slash\\secret")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_of_the_environment_is_shown(secret: str, plugins: Plugins) -> None:
    """Whatever is wrong, wherever a secret was put by mistake, no message and no component's repr shows it."""
    text = """
source: {use: vobiz, secret: '${S}', listen: 'x${S}y', idle_s: '${S}', byte_order: '${S}'}
transforms: [{use: '${S}'}, {use: resample, rate: '${S}'}, '${S}', {use: shout, words: '${S}', grid: ['${S}']}]
sinks: [{use: disk, path: '{${S}', when_full: '${S}'}, {use: eka_raw, base_url: '${S}', token: '${S}'}]
drain_s: ${S}
"""
    with pytest.raises(ConfigError) as caught:
        load(text, plugins, {"S": secret})
    assert len(caught.value.problems) >= 9
    assert secret not in str(caught.value)
    assert repr(secret)[1:-1] not in str(caught.value)
    assert secret not in repr(Secret(secret))


def lines_of(text: str) -> int:
    return len(re.split(r"\r\n|[\r\n\x85\u2028\u2029]", text))


def load_anything(text: str, plugins: Plugins) -> None:
    """Load what may be anything; see that it is a pipeline, or wrong at places that are in the file."""
    try:
        pipeline = load(text, plugins, {"A": "b"})
    except ConfigError as error:
        assert error.problems
        assert list(error.problems) == sorted(error.problems)
        for problem in error.problems:
            assert problem.file == "p.yaml"
            assert 1 <= problem.line <= lines_of(text)
            assert 1 <= problem.column <= len(text) + 1
            assert problem.code and problem.text
    else:
        assert pipeline.sinks


WORDS = st.sampled_from(
    ["source", "sinks", "transforms", "use", "file", "disk", "resample", "shout", "path", "rate", "call.wav", "grid",
     "words", "voice", "pitch", "levels", "when_full", "${A}", "${A:-x}", "${", "$${", "<<", "*a", "&a", "!t", "{a}"]
)  # fmt: skip
PIECES = st.sampled_from(
    ["\n", "  ", "    ", "- ", ": ", ":", "{", "}", "[", "]", ",", "'", '"', "|", ">", "?", "#", "\t"]
)
NUMBERS = st.sampled_from(["1e999", "9" * 5000, "-0", ".5", "0x10", "012", "8:30", "no", "~", "null", ".nan", "1_0"])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5),
    max_leaves=20,
)
COMPONENTS = st.dictionaries(WORDS, TREES, max_size=5)


@given(text=st.text() | st.lists(WORDS | PIECES | NUMBERS, max_size=40).map("".join))
@example(text="9" * 5000)
@example(text="source: {use: file, path: call.wav, frame_ms: " + "9" * 5000 + "}\nsinks: [{use: disk}]")
@example(text="a: " + "- " * 5000)
@example(text="a: &a [*a]")
@example(text="- &a [x, x]\n" + "".join(f"- &a{i} [*a, *a]\n" for i in range(30)))
@example(text="\x85\u2028sinks: x")
@example(text="source: {use: \ud800}")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=2000)
def test_any_text(text: str, plugins: Plugins) -> None:
    """Any text is a pipeline or a list of problems in it, and quickly."""
    load_anything(text, plugins)


@given(
    tree=TREES
    | st.fixed_dictionaries({"source": COMPONENTS, "sinks": st.lists(COMPONENTS), "transforms": st.lists(COMPONENTS)}),
    flow=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=2000)
def test_any_tree(tree: Any, flow: bool, plugins: Plugins) -> None:
    """Any YAML tree is a pipeline or a list of problems in it."""
    load_anything(yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True), plugins)
