"""Where arriving frames stand: gaps, pauses, repeats, clocks that wander."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, strategies as st

from mediaflow.timeline import IN_ORDER, Numbering, Place, Timeline

EPOCH = 1_778_597_597_091
FRAME = 160

Stamp = tuple[str, int | None, int | None]


def _place(stamps: Iterable[Stamp], timeline: Timeline | None = None) -> list[Place]:
    timeline = timeline or Timeline(8000)
    return [timeline.place(track, FRAME, chunk, timestamp) for track, chunk, timestamp in stamps]


def _missing(places: Iterable[Place]) -> list[int]:
    return [place.missing for place in places]


@pytest.mark.parametrize("epoch", [0, EPOCH])
@pytest.mark.parametrize("chunks", [True, False])
@pytest.mark.parametrize("times", [True, False])
def test_a_steady_stream_is_in_order(epoch: int, chunks: bool, times: bool) -> None:
    """Frames that follow one another are in order, whatever they are stamped with."""
    stamps = [("inbound", n if chunks else None, epoch + 20 * n if times else None) for n in range(1000)]
    assert _place(stamps) == [Place(begin=0), *[IN_ORDER] * 999]


@pytest.mark.parametrize("chunks", [True, False])
@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("lost", [1, 2, 7, 3000])
def test_a_loss_is_measured(chunks: bool, times: bool, lost: int) -> None:
    """Frames that did not come are missing, exactly, whichever of the stamps tells it."""
    numbers = [0, 1, 2, 3 + lost, 4 + lost]
    stamps = [("inbound", n if chunks else None, EPOCH + 20 * n if times else None) for n in numbers]
    expected = lost * FRAME if chunks or times else 0
    places = _place(stamps)
    assert _missing(places) == [0, 0, 0, expected, 0]
    assert places[3].reason == ("gap" if expected else "")


def test_without_numbers_three_quarters_of_a_frame_are_a_gap() -> None:
    """Without chunk numbers, 14 ms too late is jitter, 15 ms is a lost frame, and 30 ms is 30 ms."""
    assert _missing(_place([("inbound", None, t) for t in (0, 34)])) == [0, 0]
    assert _missing(_place([("inbound", None, t) for t in (0, 35)])) == [0, FRAME]
    assert _missing(_place([("inbound", None, t) for t in (0, 50)])) == [0, 240]


def test_with_numbers_sixty_milliseconds_are_a_pause() -> None:
    """Where the chunk numbers say that nothing was lost, only a jump of 60 ms is one of the carrier's own."""
    assert _missing(_place([("inbound", 1, 0), ("inbound", 2, 79)])) == [0, 0]
    assert _missing(_place([("inbound", 1, 0), ("inbound", 2, 80)])) == [0, 480]
    assert _missing(_place([("inbound", 1, 0), ("inbound", 2, 131)])) == [0, 888]


def test_the_number_rounds_the_timestamp() -> None:
    """Where a number is missing and the time agrees up to jitter, exactly that frame is missing."""
    assert _missing(_place([("inbound", 1, 0), ("inbound", 3, 51)])) == [0, FRAME]
    assert _missing(_place([("inbound", 1, 0), ("inbound", 4, 67)])) == [0, 2 * FRAME]


def test_a_number_that_jumps_too_far_inserts_nothing() -> None:
    """Without timestamps, a chunk that skips more than ten minutes is broken, and the next one follows it."""
    places = _place([("inbound", 1, None), ("inbound", 10**9, None), ("inbound", 10**9 + 1, None)])
    assert places[1:] == [Place(broken=True), IN_ORDER]


def test_the_timestamp_outweighs_the_number() -> None:
    """A number that skips inserts nothing where the timestamps go on without a hole."""
    assert _missing(_place([("inbound", 1, 0), ("inbound", 6, 20), ("inbound", 7, 40)])) == [0, 0, 0]


@pytest.mark.parametrize("chunks", [True, False])
@pytest.mark.parametrize("times", [True, False])
def test_a_repeat_has_no_place(chunks: bool, times: bool) -> None:
    """A frame that was here already is a repeat, and the stream goes on as if it had not come."""
    numbers = [0, 1, 2, 1, 2, 3]
    stamps = [("inbound", n if chunks else None, EPOCH + 20 * n if times else None) for n in numbers]
    places = _place(stamps)
    assert [place.repeated for place in places] == [False, False, False, *[chunks or times] * 2, False]
    assert _missing(places) == [0] * 6


def test_numbers_that_begin_anew_are_not_repeats() -> None:
    """Where the chunk goes back to 1 and the time goes on, nothing is lost and nothing repeated."""
    places = _place([("inbound", c, 20 * n) for n, c in enumerate([7, 8, 9, 1, 2, 3])])
    assert places[1:] == [IN_ORDER] * 5


@pytest.mark.parametrize("step_ms", [-100_000, -3_000, 700_000, 10**15])
def test_a_clock_that_jumps_inserts_nothing(step_ms: int) -> None:
    """A timestamp that cannot be true sets the clock anew; the next loss is measured by the new one."""
    stamps = [("inbound", n, EPOCH + 20 * n + (step_ms if n > 2 else 0)) for n in (0, 1, 2, 3, 4, 6)]
    places = _place(stamps)
    assert [place.broken for place in places] == [False, False, False, True, False, False]
    assert _missing(places) == [0, 0, 0, 0, 0, FRAME]


def test_a_clock_set_back_a_little_does_not_eat_numbered_audio() -> None:
    """Half a second back with chunks that go on is new audio with a wrong stamp."""
    places = _place([("inbound", n, EPOCH + 20 * n - (500 if n > 2 else 0)) for n in range(6)])
    assert not any(place.repeated for place in places)
    assert [place.broken for place in places] == [False, False, False, True, False, False]


@pytest.mark.parametrize(("chunk", "timestamp"), [(None, 5), (5, None), (5, 5)])
def test_stamps_that_stand_still_are_given_up(chunk: int | None, timestamp: int | None) -> None:
    """A sender whose stamps never move loses four seconds at most, and not the call."""
    places = _place([("inbound", chunk, timestamp)] * 1000)
    assert sum(place.repeated for place in places) <= 200
    assert places[300:] == [IN_ORDER] * 700


@pytest.mark.parametrize("timestamp", [10**400, -(10**400), 2**60])
def test_a_number_no_clock_shows_is_ignored(timestamp: int) -> None:
    """A timestamp beyond every clock counts as none."""
    assert _place([("inbound", 1, timestamp), ("inbound", 2, 20), ("inbound", 3, 40)])[1:] == [IN_ORDER] * 2


@pytest.mark.parametrize(("offset_ms", "position"), [(0, 0), (20, 160), (5_000, 40_000), (-40, -320), (7, 56)])
def test_a_second_track_begins_at_its_time(offset_ms: int, position: int) -> None:
    """A track that begins later, or whose first frame is the earlier one, starts there."""
    places = _place([("inbound", 1, EPOCH), ("inbound", 2, EPOCH + 20), ("outbound", 1, EPOCH + offset_ms)])
    assert places[2].begin == position


@pytest.mark.parametrize("timestamp", [None, 3])
def test_a_second_track_without_a_common_clock_begins_beside_the_first(timestamp: int | None) -> None:
    """Where the timestamps of two tracks do not compare, the second begins beside the last frame of the first."""
    places = _place([("inbound", None, EPOCH), ("inbound", None, EPOCH + 20), ("outbound", None, timestamp)])
    assert places[2].begin == FRAME


def _two_tracks(numbering: Numbering, count: int, burst: int = 1) -> list[Stamp]:
    stamps: list[Stamp] = []
    for n in range(0, count, burst):
        for track in ("inbound", "outbound"):
            stamps += [(track, n + k if numbering == "track" else len(stamps) + k, 20 * (n + k)) for k in range(burst)]
    return stamps


@pytest.mark.parametrize("burst", [1, 2, 5])
@pytest.mark.parametrize("numbering", ["track", "socket"])
@pytest.mark.parametrize("times", [True, False])
def test_two_tracks_are_in_order_however_they_are_counted(numbering: Numbering, burst: int, times: bool) -> None:
    """Chunks that count the track's frames or the socket's, in turns or in bursts: nothing is missing."""
    timeline = Timeline(8000)
    stamps = _two_tracks(numbering, 50, burst)
    places = _place([(t, c, ms if times else None) for t, c, ms in stamps], timeline)
    assert not any(place.missing or place.repeated or place.broken for place in places)
    assert timeline.numbering == numbering


@pytest.mark.parametrize("numbering", ["track", "socket"])
@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("index", range(20, 28))
def test_a_loss_on_two_tracks_is_measured(numbering: Numbering, times: bool, index: int) -> None:
    """A frame lost on either of two tracks is missing on that track, whatever the chunks count."""
    stamps = [(t, c, ms if times else None) for t, c, ms in _two_tracks(numbering, 30)]
    track = stamps[index][0]
    del stamps[index]
    places = _place(stamps)
    gaps = [(stamp[0], place.missing) for stamp, place in zip(stamps, places, strict=True) if place.missing]
    assert gaps == [(track, FRAME)]


def test_a_repeat_on_two_tracks_is_seen_by_the_sockets_number() -> None:
    """Where chunks count the socket's frames, one that goes back is a repeat, also without timestamps."""
    stamps = [(track, chunk, None) for track, chunk, _ in _two_tracks("socket", 10)]
    places = _place([*stamps, stamps[-1], stamps[-2]])
    assert [place.repeated for place in places] == [False] * 20 + [True] * 2


def test_a_loss_inside_a_burst_is_measured_by_the_time() -> None:
    """Where the socket's numbers skip and either track may be meant, the timestamps know which."""
    stamps = _two_tracks("socket", 30, burst=3)
    track = stamps.pop(19)[0]
    places = _place(stamps)
    assert [(stamp[0], p.missing) for stamp, p in zip(stamps, places, strict=True) if p.missing] == [(track, FRAME)]


@pytest.mark.parametrize("numbering", ["track", "socket"])
def test_certainty_holds_with_two_tracks(numbering: Numbering) -> None:
    """Jitter of 40 ms inserts nothing where the chunks of either kind show that nothing was lost."""
    stamps = _two_tracks(numbering, 30)
    track, chunk, _ = stamps[31]
    stamps[31] = (track, chunk, 20 * 15 + 40)
    assert not any(_missing(_place(stamps)))


def test_a_reconnect_is_measured_by_the_time() -> None:
    """On a new socket the chunks begin anew and the timestamps tell what is missing, and why."""
    timeline = Timeline(8000)
    _place([("inbound", n, EPOCH + 20 * n) for n in range(1, 4)], timeline)
    timeline.reconnected()
    places = _place(
        [("inbound", 1, EPOCH + 1080), ("inbound", 2, EPOCH + 1100), ("inbound", 4, EPOCH + 1140)], timeline
    )
    assert [(place.missing, place.reason) for place in places] == [(8000, "reconnect"), (0, ""), (FRAME, "gap")]


@pytest.mark.parametrize("own_clock", [True, False])
@pytest.mark.parametrize(("epoch", "seconds"), [(0, 500), (EPOCH, 2)])
def test_a_clock_that_begins_anew_is_set_by_ours(own_clock: bool, epoch: int, seconds: int) -> None:
    """What has passed by our clock, without the frame that has come, is missing; then the new clock tells, for both."""
    timeline = Timeline(8000)
    for n in range(seconds * 50):
        _place([("inbound", n, epoch + 20 * n), ("outbound", n, epoch + 20 * n)], timeline)
    timeline.reconnected(lambda: 2500.0, own_clock)
    places = _place([("inbound", 0, 7), ("outbound", 0, 47), ("outbound", 3, 107), ("inbound", 1, 27)], timeline)
    missing = [2480 * 8, 2520 * 8, 320, 0]
    assert [(place.missing, place.reason) for place in places] == [
        (samples, reason) for samples, reason in zip(missing, ["reconnect", "reconnect", "gap", ""], strict=True)
    ]


def test_a_new_clock_is_set_by_ours_once() -> None:
    """A further reconnect measures its own hole; one without a frame in between is part of the next."""
    timeline = Timeline(8000)
    _place([("inbound", n, 20 * n) for n in range(3)], timeline)
    timeline.reconnected(lambda: 1020.0, True)
    timeline.reconnected(lambda: 2020.0, True)
    assert [place.missing for place in _place([("inbound", 0, 0), ("inbound", 1, 20)], timeline)] == [16000, 0]
    timeline.reconnected(lambda: 520.0, True)
    assert [place.missing for place in _place([("inbound", 0, 0), ("inbound", 1, 20)], timeline)] == [4000, 0]


def test_a_track_that_begins_with_a_new_clock_stands_where_it_was_heard() -> None:
    """Behind the hole, beside the track that was there before."""
    timeline = Timeline(8000)
    _place([("inbound", n, 20 * n) for n in range(3)], timeline)
    timeline.reconnected(lambda: 1020.0, True)
    assert timeline.place("outbound", FRAME, 0, 0) == Place(begin=3 * FRAME + 8000)
    assert timeline.place("inbound", FRAME, 0, 20).missing == 8160


def test_a_hole_that_nothing_measures_inserts_nothing() -> None:
    """Where nobody says how much time has passed, or more than ten minutes, the new clock is taken as it is."""
    timeline = Timeline(8000)
    _place([("inbound", n, 20 * n) for n in range(500)], timeline)
    timeline.reconnected(lambda: 601_000.0, own_clock=True)
    assert _place([("inbound", 0, 0), ("inbound", 1, 20)], timeline) == [Place(broken=True), IN_ORDER]
    timeline.reconnected()
    assert _place([("inbound", n, 20 * n) for n in range(2, 500)], timeline) == [IN_ORDER] * 498
    timeline.reconnected()
    assert _place([("inbound", 0, 0), ("inbound", 1, 20)], timeline) == [Place(broken=True), IN_ORDER]


def test_a_reconnect_that_is_known_to_have_a_new_clock_begins_anew() -> None:
    """Early in a call, too, frames of a new socket whose timestamps begin anew are not taken for repeats."""
    timeline = Timeline(8000)
    _place([("inbound", n, 20 * n) for n in range(3)], timeline)
    timeline.reconnected(own_clock=True)
    assert _place([("inbound", n, 20 * n) for n in range(3)], timeline) == [IN_ORDER] * 3


def test_the_usual_frame_is_the_last() -> None:
    """A frame that cannot be read is as long as the last of its track, or 20 ms if there was none."""
    timeline = Timeline(8000)
    assert timeline.usual_frame("inbound") == FRAME
    timeline.place("inbound", 240, 1, 0)
    assert (timeline.usual_frame("inbound"), timeline.usual_frame("outbound")) == (240, FRAME)


@given(st.lists(st.integers(-7, 7), min_size=2, max_size=300), st.booleans())
def test_jitter_inserts_nothing(jitter: list[int], chunks: bool) -> None:
    """Timestamps that wobble by less than 3/4 frame from peak to peak never insert and never drop."""
    places = _place([("inbound", n if chunks else None, EPOCH + 20 * n + j) for n, j in enumerate(jitter)])
    assert places[1:] == [IN_ORDER] * (len(jitter) - 1)


@given(st.floats(-0.01, 0.01), st.booleans())
def test_drift_inserts_nothing(drift: float, chunks: bool) -> None:
    """A clock that is up to 1 % off for a minute never adds up to a gap or a repeat."""
    places = _place([("inbound", n if chunks else None, EPOCH + round(20 * n * (1 + drift))) for n in range(3000)])
    assert places[1:] == [IN_ORDER] * 2999


@given(
    st.lists(st.sampled_from(["send", "send", "send", "lose", "repeat"]), max_size=200),
    st.integers(0, 2**42),
    st.sampled_from([(True, True), (True, False), (False, True)]),
)
def test_what_is_lost_is_what_is_missing(acts: list[str], epoch: int, stamped: tuple[bool, bool]) -> None:
    """However frames are lost and repeated, each one that is kept stands where it was sent."""
    timeline = Timeline(8000)
    position = sent = -1
    end = 0
    for act in ["send", *acts]:
        if act != "repeat":
            sent += 1
        if act == "lose":
            continue
        if act == "repeat" and sent != position:
            continue  # what was lost cannot be repeated
        place = timeline.place(
            "inbound", FRAME, sent if stamped[0] else None, epoch + 20 * sent if stamped[1] else None
        )
        assert place.repeated == (act == "repeat")
        if not place.repeated:
            end += place.missing + FRAME
            position = sent
            assert end == (sent + 1) * FRAME


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["inbound", "outbound"]),
            st.none() | st.integers(),
            st.none() | st.integers(),
            st.integers(1, 640),
            st.booleans(),
        ),
        max_size=100,
    )
)
def test_no_stamps_break_it(frames: list[tuple[str, int | None, int | None, int, bool]]) -> None:
    """Whatever the stamps say, a gap is positive and bounded and a frame is kept or dropped."""
    timeline = Timeline(8000)
    for track, chunk, timestamp, samples, again in frames:
        if again:
            timeline.reconnected()
        place = timeline.place(track, samples, chunk, timestamp)
        assert 0 <= place.missing <= 600 * 8000
        assert (place.missing > 0) == bool(place.reason)
        assert not (place.repeated and place.missing)
