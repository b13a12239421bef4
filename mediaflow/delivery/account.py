"""The account of one call: what became of every sample.

The source's side is kept per track in the source's sample rate::

    timeline = received + concealed          dropped = arrived, but has no place in the timeline

and the sink's side per sink in the rate at its end of the pipeline::

    received = delivered + spooled + dropped(reason) + concealed(reason)

``received`` is not what happened to reach the sink: it is what the source's timeline comes to at the sink's end,
worked out from the formats alone.  So whatever a transform keeps back or throws away shows up.  ``spooled`` is what is
under way; when the call is over it is nothing, and what was not delivered is dropped for a reason.

``concealed`` are samples of silence that stand in the place of lost audio.  They are known as spans of the source's
timeline and are carried over to the sink's in the same arithmetic.  Where tracks are joined, a sample counts as
concealed if any of its tracks was.

All figures are counted in samples, exactly: a resampler makes ceil(n·L/M) samples of n.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..frame import AudioFormat, AudioFrame, rescale


class Rate(NamedTuple):
    """A step of a pipeline after which positions count in another sample rate."""

    rate_in: int
    rate_out: int


class Join(NamedTuple):
    """A step of a pipeline after which there is one track, ``track``, made of the tracks ``kept``."""

    track: str
    kept: tuple[str, ...]


class Span:
    """Samples ``start`` to ``end`` (not included) of a track, and why they matter."""

    def __init__(self, start: int, end: int, reason: str = "") -> None:
        self.start, self.end, self.reason = start, end, reason

    def __repr__(self) -> str:
        return f"Span({self.start}, {self.end}, {self.reason!r})"


class Timeline:
    """Per track: how far the audio reaches, and the concealed spans in it, in order."""

    def __init__(self, extents: dict[str, Span], concealed: dict[str, list[Span]]) -> None:
        self.extents, self.concealed = extents, concealed


def carry(timeline: Timeline, path: Sequence[Rate | Join]) -> Timeline:
    """Work out what ``timeline`` is at the end of ``path``."""
    for step in path:
        timeline = _joined(timeline, step) if isinstance(step, Join) else _scaled(timeline, step)
    return timeline


def _joined(timeline: Timeline, join: Join) -> Timeline:
    joined: Span | None = None
    concealed: list[Span] = []
    for track, extent in timeline.extents.items():
        if track in join.kept:
            if joined is None:
                joined = Span(extent.start, extent.end)
            else:
                joined = Span(min(joined.start, extent.start), max(joined.end, extent.end))
            concealed += timeline.concealed.get(track, ())
    if joined is None:
        return Timeline({}, {})
    return Timeline({join.track: joined}, {join.track: _union(concealed)})


def _scaled(timeline: Timeline, rate: Rate) -> Timeline:
    """Scale positions: k samples of a resampler's input begin at output sample ceil(k·L/M)."""
    extents: dict[str, Span] = {}
    concealed: dict[str, list[Span]] = {}
    rate_in, rate_out = rate.rate_in, rate.rate_out
    for track, extent in timeline.extents.items():
        origin = extent.start
        start = rescale(origin, rate_in, rate_out)
        extents[track] = Span(start, start - (origin - extent.end) * rate_out // rate_in)
        concealed[track] = spans = []
        for span in timeline.concealed.get(track, ()):
            span_start = start - (origin - span.start) * rate_out // rate_in
            spans.append(Span(span_start, start - (origin - span.end) * rate_out // rate_in, span.reason))
    return Timeline(extents, concealed)


def _order(span: Span) -> tuple[int, int]:
    return span.start, -span.end


def _union(spans: list[Span]) -> list[Span]:
    """Merge spans of several tracks so that no sample is in two of them; the one that begins first keeps it.

    Of two that begin together the longer does.
    """
    merged: list[Span] = []
    if spans:
        spans.sort(key=_order)
        reached = spans[0].start
        for span in spans:
            start = max(span.start, reached)
            if start < span.end:
                merged.append(Span(start, span.end, span.reason))
                reached = span.end
    return merged


class TrackAccount:
    """What the source brought of one track, in the source's rate."""

    def __init__(self) -> None:
        self.start = self.end = 0
        self.concealed: list[Span] = []
        self.dropped: Counter[str] = Counter()

    def conceal(self, samples: int, reason: str) -> None:
        """Book the next ``samples`` of the timeline as silence."""
        last = self.concealed[-1] if self.concealed else None
        if last is not None and last.end == self.end and last.reason == reason:
            self.concealed[-1] = Span(last.start, self.end + samples, reason)
        else:
            self.concealed.append(Span(self.end, self.end + samples, reason))

    def figures(self) -> dict[str, Any]:
        """Return the totals."""
        timeline = self.end - self.start
        return {
            "start": self.start,
            "timeline": timeline,
            "received": timeline - _total(self.concealed),
            "concealed": _by_reason([self.concealed]),
            "dropped": dict(self.dropped),
        }


class _Run:
    """Samples ``start`` to ``end`` (not included) of a track."""

    def __init__(self, track: str, start: int, end: int) -> None:
        self.track, self.start, self.end = track, start, end


class _Runs:
    """Runs of samples in the order in which they came."""

    def __init__(self) -> None:
        self.runs: list[_Run] = []
        self._last: _Run | None = None

    def add(self, track: str, start: int, end: int) -> None:
        last = self._last
        if last is not None and last.end == start and last.track == track:
            last.end = end
        else:
            self._last = _Run(track, start, end)
            self.runs.append(self._last)

    def move(self, samples: int, to: _Runs) -> None:
        """Move the first ``samples`` to another place."""
        done = 0
        for run in self.runs:
            if samples <= 0:
                break
            taken = min(samples, run.end - run.start)
            to.add(run.track, run.start, run.start + taken)
            samples -= taken
            run.start += taken
            if run.start < run.end:
                break
            done += 1
        del self.runs[:done]
        if not self.runs:
            self._last = None

    def total(self) -> int:
        """Count the samples."""
        total = 0
        for run in self.runs:
            total += run.end - run.start
        return total

    def real(self, concealed: dict[str, list[Span]]) -> int:
        """Count the samples that are not concealed."""
        total = self.total()
        for run in self.runs:
            for span in concealed.get(run.track, ()):
                total -= max(0, min(run.end, span.end) - max(run.start, span.start))
        return total


class SinkAccount:
    """What became of the samples on their way into one sink, in the rate at its end."""

    def __init__(self, format: AudioFormat, path: Sequence[Rate | Join]) -> None:
        self.format, self._path = format, tuple(path)
        self._sample_bytes = format.sample_bytes
        self._written = _Runs()
        # What was written last, as far as it is not in ``_written``: every frame comes here, and most go on there.
        self._track, self._start, self._end = "", 0, 0
        self._confirmed = 0
        self._delivered = _Runs()
        self._dropped: dict[str, _Runs] = {}
        self._closed = ""

    def write(self, frame: AudioFrame) -> None:
        """Book a frame as given to the writer."""
        start, track = frame.position, frame.track
        if start != self._end or track != self._track:
            self._gather()
            self._track, self._start = track, start
        self._end = start + len(frame.data) // self._sample_bytes

    def _gather(self) -> None:
        """Have all that was written in ``_written``."""
        if self._start < self._end:
            self._written.add(self._track, self._start, self._end)
            self._start = self._end

    def drop(self, frame: AudioFrame, reason: str) -> None:
        """Book a frame as dropped before it reached the writer."""
        self._dropped.setdefault(reason, _Runs()).add(frame.track, frame.position, frame.end)

    def confirm(self, delivered: int) -> None:
        """Book the first ``delivered`` samples that were written as delivered."""
        newly = delivered - self._confirmed
        if newly <= 0:
            return
        self._confirmed = delivered
        self._gather()
        self._written.move(newly, self._delivered)

    def lose(self, samples: int, reason: str) -> None:
        """Book the next ``samples`` that were written, behind those that are delivered, as dropped for ``reason``.

        Raises ValueError for more than there are.
        """
        self._gather()
        if not 0 <= samples <= self._written.total():
            raise ValueError(f"{samples} samples cannot be lost: {self._written.total()} are written and not delivered")
        if samples:
            self._written.move(samples, self._dropped.setdefault(reason, _Runs()))

    @property
    def is_delivered(self) -> bool:
        """True if all that was written is delivered."""
        self._gather()
        return not self._written.runs

    def close(self, reason: str) -> None:
        """Book everything that is not delivered by now as dropped for ``reason``."""
        self._closed = reason
        self._gather()
        if self._written.runs:
            self._written.move(self._written.total(), self._dropped.setdefault(reason, _Runs()))

    def figures(self, source: Timeline) -> dict[str, Any]:
        """Return the totals, given what the source has brought so far."""
        here = carry(source, self._path)
        received = _total(here.extents.values())
        delivered = self._delivered.real(here.concealed)
        spooled = received - delivered
        dropped: dict[str, int] = {}
        for reason, runs in self._dropped.items():
            dropped[reason] = samples = runs.real(here.concealed)
            spooled -= samples
        for spans in here.concealed.values():
            spooled -= _total(spans)
        if self._closed and spooled > 0:
            # It came in at the source and never reached this end: a transform kept it.
            dropped["transforms"] = dropped.get("transforms", 0) + spooled
        if self._closed or spooled < 0:
            # More arrived than the formats account for: a transform made audio of its own.
            received -= min(spooled, 0)
            spooled = 0
        return {
            "sample_rate": self.format.sample_rate,
            "received": received,
            "delivered": delivered,
            "spooled": spooled,
            "dropped": {reason: samples for reason, samples in dropped.items() if samples},
            "concealed": _by_reason(here.concealed.values()),
        }


def has_failed(account: Mapping[str, Any]) -> bool:
    """Say whether a call, or what was to be played into it, did not come to its end."""
    lives = (account, account.get("reply", account))
    return any(each["status"] in ("failed", "interrupted") for each in lives)


def _total(spans: Iterable[Span]) -> int:
    """Count samples."""
    total = 0
    for span in spans:
        total += span.end - span.start
    return total


def _by_reason(tracks: Iterable[list[Span]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for spans in tracks:
        for span in spans:
            if span.start < span.end:
                totals[span.reason] = totals.get(span.reason, 0) + span.end - span.start
    return totals
