"""Chaos profiles: what is shipped, and what is told of one that is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from mediaflow import ConfigError, config, graph, plugins
from mediaflow.lab import CLIP, profile
from mediaflow.lab.flaw import Kind
from mediaflow_plugins._vobiz_quirks import Quirk

PLUGINS = plugins.load()


ROOT = Path(__file__).parents[2]


def test_the_manual_tells_of_every_profile_and_flaw() -> None:
    """`docs/certify.md` has a line for each profile, with its own words, and one for each kind of flaw."""
    manual = (ROOT / "docs" / "certify.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| .* \| .* \|$", manual, re.MULTILINE) == profile.names()
    for name in profile.names():
        assert f"| `{name}` | {profile.load(name, PLUGINS).rehearses} |" in manual
    table = manual[manual.index("| flaw |") : manual.index("## The profiles")]
    told = {
        kind for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for kind in re.findall(r"`([\w-]+)`", cell)
    }
    assert told == set(get_args(Kind))


@pytest.mark.parametrize("name", profile.names())
def test_a_shipped_profile_loads(name: str) -> None:
    """Each says what it rehearses, and one that is about a quirk says what a bridge does about it."""
    loaded = profile.load(name, PLUGINS)
    assert (loaded.name, loaded.rehearses != "") == (name, True)
    assert loaded.hint or not (loaded.carrier.quirks or loaded.service.quirks)


def test_every_quirk_of_the_carrier_is_in_a_profile() -> None:
    """What the carrier can do wrong is rehearsed."""
    shown = {quirk for name in profile.names() for quirk in profile.load(name, PLUGINS).carrier.quirks}
    assert shown == set(get_args(Quirk))


def test_a_profile_as_values(tmp_path: Path) -> None:
    """Options of the carrier, quirks of the service and expectations are what the file says."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "rehearses: both\ntracks: inbound\nseconds: 12\n"
        "carrier: {content_type: audio/x-l16;rate=16000, quirks: [skips]}\n"
        "eka: {quirks: [error_bursts], idle_s: 5}\nexpect: {gaps_ms: 400, flaws: [shift], sessions: 2}\n"
    )
    mine = profile.load(str(file), PLUGINS)
    assert (mine.name, mine.encoding, mine.rate, mine.track_names) == ("mine", "s16le", 16_000, ("inbound",))
    assert (mine.carrier.quirks, mine.service.quirks, mine.service.idle_s) == (("skips",), ("error_bursts",), 5)
    assert (mine.expect.gaps_ms, mine.expect.flaws, mine.expect.sessions, mine.seconds) == (400, ("shift",), 2, 12)


WRONG = """\
tracks: none
carrier:
  quirks: [reconnect]
  url: ws://a
eka: {quirk: [a]}
expect: {lost_ms: a, flaws: [rat]}
more: 1
"""


def test_everything_wrong_is_told_with_its_place(tmp_path: Path) -> None:
    """All at once, as of a pipeline, each with line, column and the nearest right word."""
    file = tmp_path / "wrong.yaml"
    file.write_text(WRONG)
    with pytest.raises(ConfigError) as caught:
        profile.load(str(file), PLUGINS)
    told = sorted(str(problem).removeprefix(f"{file}:") for problem in caught.value.problems)
    starts = [
        "1:1: missing: the profile does not say what it rehearses",
        "1:9: bad-value: tracks: expected one of both, inbound",
        "3:12: bad-value: carrier.quirks[0]: expected one of",
        "4:3: unknown-key: carrier has no option url",
        "5:7: unknown-key: eka has no option quirk (did you mean quirks?)",
        "6:19: bad-value: expect.lost_ms: expected a number of at least 0",
        "6:30: bad-value: expect.flaws[0]:",
        "7:1: unknown-key: a profile has no option more",
    ]
    assert len(told) == len(starts)
    for line, start in zip(told, starts, strict=True):
        assert line.startswith(start), line
    assert "did you mean reconnects?" in told[2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a\n", "1:1: bad-type: a profile is a mapping"),
        ("rehearses: x\ncarrier: [a]\n", "2:10: bad-type: carrier is a mapping"),
        ("rehearses: x\ncarrier: {quirks: [overlaps]}\n", "add reconnects"),
        ("rehearses: x: y\n", "1:13: yaml"),
    ],
)
def test_what_is_no_profile(tmp_path: Path, text: str, problem: str) -> None:
    """A list, a wrong section, quirks that do nothing, and text that is no YAML."""
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=problem.replace("[", r"\[")):
        profile.load(str(file), PLUGINS)


def test_an_unknown_name_lists_the_known() -> None:
    """Neither a file nor a profile: the error names those that there are."""
    with pytest.raises(ConfigError, match=r"neither a file nor a profile.*reconnect_lossy"):
        profile.load("recconnect", PLUGINS)


def test_how_a_profile_changes_a_call() -> None:
    """Its options are those of the sink, all of them, so that nothing of another call is left."""
    wide = profile.load("odd_sizes_l16", PLUGINS)
    assert wide.options == {
        "quirks": ("odd_sizes",),
        "shape": "nested",
        "content_type": "audio/x-l16;rate=16000",
        "byte_order": "little",
        "end": "close",
    }


@pytest.mark.parametrize(
    ("name", "transforms"),
    [
        ("plain", [("resample", 8000), ("mulaw_encode", None)]),
        ("one_track", [("resample", 8000), ("mulaw_encode", None), ("select", None)]),
        ("l16_wide", [("resample", 16_000)]),
    ],
)
def test_a_call_as_a_profile_wants_it(name: str, transforms: list[tuple[str, int | None]]) -> None:
    """The shipped call is brought to the profile's rate, encoding and tracks, and plays to the address given."""
    env = {"LAB_AUDIO": str(CLIP)}
    call = config.load(str(ROOT / "pipelines" / "lab_call.yaml"), PLUGINS, env)
    changed = profile.load(name, PLUGINS).call(call, "ws://127.0.0.1:9/x", PLUGINS)
    found = [(changed.names["transforms", index], each) for index, each in enumerate(changed.transforms)]
    assert [(name, getattr(each, "rate", None)) for name, each in found] == transforms
    sink: Any = changed.sinks[0]
    assert (sink.url.reveal(), sink.end) == ("ws://127.0.0.1:9/x", "close")
    assert graph.check(changed)
