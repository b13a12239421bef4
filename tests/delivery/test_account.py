"""The account of every sample, against one that keeps a list entry per sample."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mediaflow import AudioFormat, AudioFrame
from mediaflow.delivery.account import Join, Rate, SinkAccount, Span, Timeline, TrackAccount, carry

RATES = (8000, 11_025, 16_000, 44_100)
FORMAT = AudioFormat("s16le", 8000)


def frame(start: int, end: int, track: str = "inbound") -> AudioFrame:
    """Return a frame that covers these positions."""
    return AudioFrame(bytes(2 * (end - start)), FORMAT, track, start)


@st.composite
def spans(draw: st.DrawFn, start: int, end: int) -> list[Span]:
    """Concealed spans that do not overlap, in order."""
    edges = sorted(draw(st.lists(st.integers(start, end), max_size=8, unique=True)))
    return [Span(a, b, draw(st.sampled_from("xy"))) for a, b in zip(edges[::2], edges[1::2], strict=False)]


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """One or two tracks with offsets and concealed spans."""
    extents: dict[str, Span] = {}
    concealed: dict[str, list[Span]] = {}
    for track in draw(st.sampled_from([("inbound",), ("inbound", "outbound")])):
        start = draw(st.integers(-50, 50)) if extents else 0
        end = start + draw(st.integers(1, 300))
        extents[track], concealed[track] = Span(start, end), draw(spans(start, end))
    return Timeline(extents, concealed)


def by_sample(timeline: Timeline, path: list[Rate | Join]) -> dict[str, dict[int, str]]:
    """Say for every sample of the output which reason conceals it ('' for none), one sample at a time."""
    now = {
        track: {
            position: next((s.reason for s in timeline.concealed[track] if s.start <= position < s.end), "")
            for position in range(extent.start, extent.end)
        }
        for track, extent in timeline.extents.items()
    }
    for step in path:
        if isinstance(step, Join):
            positions = [position for track in now.values() for position in track]
            now = {
                step.track: {
                    position: next((why for t in now.values() if (why := t.get(position, ""))), "")
                    for position in range(min(positions), max(positions) + 1)
                }
            }
        else:
            now = {track: resampled(samples, step) for track, samples in now.items()}
    return now


def resampled(samples: dict[int, str], rate: Rate) -> dict[int, str]:
    """Output sample k of a track stands at the time of input sample floor(k·M/L), counted from the track's first."""
    first = min(samples)
    origin = math.floor(first * rate.rate_out / rate.rate_in + 0.5)
    count = -(-len(samples) * rate.rate_out // rate.rate_in)
    return {origin + k: samples[first + k * rate.rate_in // rate.rate_out] for k in range(count)}


@given(timelines(), st.sampled_from(RATES), st.sampled_from(RATES), st.booleans())
def test_carrying_agrees_with_counting_sample_by_sample(
    timeline: Timeline, first: int, second: int, join: bool
) -> None:
    """Extents and concealed spans come out of rates and joins as if every sample had been followed by itself."""
    path: list[Rate | Join] = [Rate(8000, first)] if first != 8000 else []
    if join:
        path.append(Join("mix", tuple(timeline.extents)))
    if second != first:
        path.append(Rate(first, second))
    slow = by_sample(timeline, path)
    fast = carry(timeline, path)

    assert {track: (e.start, e.end) for track, e in fast.extents.items()} == {
        track: (min(samples), max(samples) + 1) for track, samples in slow.items()
    }
    for track, samples in slow.items():
        concealed = {position for span in fast.concealed[track] for position in range(span.start, span.end)}
        assert concealed == {position for position, why in samples.items() if why}


def test_select_keeps_only_its_track() -> None:
    """A join that keeps one track is as long as that track, and knows only its gaps."""
    timeline = Timeline(
        {"inbound": Span(0, 100), "outbound": Span(20, 500)},
        {"inbound": [Span(5, 7, "gap")], "outbound": [Span(30, 40, "gap")]},
    )
    here = carry(timeline, [Join("inbound", ("inbound",))])
    assert repr(here.extents) == "{'inbound': Span(0, 100, '')}"
    assert repr(here.concealed) == "{'inbound': [Span(5, 7, 'gap')]}"


def settle(account: SinkAccount, timeline: Timeline) -> dict[str, Any]:
    """Return the figures, having checked that they add up."""
    figures = account.figures(timeline)
    assert figures["received"] == (
        figures["delivered"]
        + figures["spooled"]
        + sum(figures["dropped"].values())
        + sum(figures["concealed"].values())
    )
    return figures


@given(
    fates=st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["write", "full", "lost"])), min_size=1, max_size=40),
    steps=st.lists(st.tuples(st.sampled_from(["confirm", "lose"]), st.integers(0, 400)), max_size=6),
    data=st.data(),
)
def test_every_sample_has_exactly_one_fate(
    fates: list[tuple[int, str]], steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    """Whatever is written, dropped, confirmed and lost, the totals are those of a list with each sample's fate."""
    total = sum(length for length, _ in fates)
    timeline = Timeline({"inbound": Span(0, total)}, {"inbound": data.draw(spans(0, total))})
    concealed = {p for span in timeline.concealed["inbound"] for p in range(span.start, span.end)}
    account = SinkAccount(FORMAT, ())
    slow: Counter[str] = Counter()
    written: list[int] = []
    position = 0
    for length, fate in fates:
        one = frame(position, position + length)
        if fate == "write":
            account.write(one)
            written += range(position, position + length)
        else:
            account.drop(one, fate)
            slow[fate] += sum(p not in concealed for p in range(position, position + length))
        position += length
        settle(account, timeline)
    confirmed = delivered = 0
    for step, number in steps:
        taken = [written.pop(0) for _ in range(min(number, len(written)))]
        real = sum(p not in concealed for p in taken)
        if step == "confirm":
            confirmed += len(taken)
            account.confirm(confirmed)
            delivered += real
        else:
            account.lose(len(taken), "broken")
            slow["broken"] += real
        settle(account, timeline)
    account.close("end")
    slow["end"] += sum(p not in concealed for p in written)

    figures = settle(account, timeline)
    assert figures["delivered"] == delivered
    assert figures["dropped"] == {fate: count for fate, count in slow.items() if count}
    assert sum(figures["concealed"].values()) == len(concealed)
    assert figures["spooled"] == 0


def test_what_is_under_way_is_spooled() -> None:
    """Before the call is over, what has neither arrived nor been dropped is under way."""
    account = SinkAccount(FORMAT, ())
    account.write(frame(0, 60))
    account.confirm(20)
    assert settle(account, Timeline({"inbound": Span(0, 100)}, {}))["spooled"] == 80


@pytest.mark.parametrize("samples", [-1, 41])
def test_more_than_there_is_cannot_be_lost(samples: int) -> None:
    """What is delivered already is not lost any more."""
    account = SinkAccount(FORMAT, ())
    account.write(frame(0, 60))
    account.confirm(20)
    with pytest.raises(ValueError, match=f"{samples} samples cannot be lost: 40 are written and not delivered"):
        account.lose(samples, "broken")
    account.lose(40, "broken")
    assert settle(account, Timeline({"inbound": Span(0, 60)}, {}))["dropped"] == {"broken": 40}


def test_audio_that_a_transform_made_is_no_deficit() -> None:
    """A transform that stretches audio delivers more than the formats say; the account still adds up."""
    account = SinkAccount(FORMAT, ())
    account.write(frame(0, 150))
    account.confirm(150)
    account.close("end")
    figures = settle(account, Timeline({"inbound": Span(0, 100)}, {}))
    assert (figures["received"], figures["delivered"], figures["dropped"]) == (150, 150, {})


def test_a_track_knows_what_it_received_and_what_it_made_up() -> None:
    """The source's side: received and concealed make the timeline, dropped stands beside it."""
    track = TrackAccount()
    track.end += 100
    for _ in range(2):
        track.conceal(30, "gap")
        track.end += 30
    track.dropped["duplicate"] += 7
    assert track.figures() == {
        "start": 0,
        "timeline": 160,
        "received": 100,
        "concealed": {"gap": 60},
        "dropped": {"duplicate": 7},
    }
    assert repr(track.concealed) == "[Span(100, 160, 'gap')]"
