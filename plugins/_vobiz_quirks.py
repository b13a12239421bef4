"""What ``vobiz_call`` can be told to do wrong, so that a bridge is rehearsed before a carrier shows it the same.

What happens once happens ``AT_MS`` into the audio.  ``Conduct`` decides, without I/O; ``_vobiz_line`` does it::

    quirk               what the carrier does                              what a good bridge does with it
    late_start          says start ``WAIT_S`` after the socket opened      waits: detection by a first message hangs
    slow_start          sends no audio for ``WAIT_S`` behind start         waits: the call is not over
    media_before_start  sends ``EARLY_MS`` of audio before start           keeps it, and reads it once it knows how
    second_start        says start once more on the same socket            goes on: it is the same call
    cut_off             tears the line at the end: no stop, no close       finishes the call as after a stop
    reconnects          tears the line, and comes back with another        goes on in the same session: the call id is
                        stream id, the same call id, nothing lost          the call's name, the stream id is not
    restarts_count      … and counts sequence and chunk anew               takes no new number for a repeat
    restarts_clock      … and its timestamps begin at 0                    does not fill the jump with silence
    overlaps            … and leaves the old socket open behind it         reads the newest, or refuses it; not both
    phantom             connects once more when the call is over           opens no second session for it
    media_after_stop    sends ``AFTER_MS`` of old audio behind stop        stores none of it
    skips               loses ``LOST_MS`` of audio: a jump in the stamps   puts as much silence there, and says so
    duplicates          sends every 25th frame twice                       stores it once
    swaps_frames        sends every 50th frame behind the one after it     puts them in order, or silence in its place
    drifts              stamps run 0.2 % fast on inbound, slow on          follows them: no gap, nothing cut
                        outbound
    bursts              holds a second of audio back, then sends it whole  takes it: nothing is late that has its stamp
    odd_sizes           cuts frames at any whole number of samples         asks for no length of a frame
    huge_message        puts ``HUGE_B`` of audio into one message          takes at least 64 KiB
    bad_base64          spoils the payload of one frame                    puts silence there and goes on
    unknown_events      sends events and keys that nobody knows            ignores them
    reformats           turns the keys' order, adds spaces, writes         reads JSON as JSON, and numbers as either
                        numbers as text
    snake_case          writes ``stream_id`` for ``streamId``, …           reads both
    dtmf                tells of a pressed key in the middle               goes on
    silent_track        sends nothing of a track that it announces         does not wait for it
    lying_rate          announces twice or half the rate of its L16        tells: samples and stamps disagree
    mislabelled_law     sends A-law under the name of µ-law                tells: it is static

Why each is here.  Vobiz's own pages say that a socket only closes, and that ``maxRetries`` brings a new socket with a
fresh start.  Reported from bridges in production are media before start (VoicEra 8), sessions opened by a phantom
reconnect (bolna 745, dograh 82), two sockets for one call (call-gpt 61), A-law read as µ-law (dograh 256), a silently
wrong rate (pipecat 3844), audio that comes in gaps and bursts (pipecat 4561, 5071), a start with silence behind it
(Vobiz's page on Pipecat) and a runner that hangs on its first two messages (Pipecat's).  That order, spelling and
numbers differ is what the sister wires do (``dialects``), Telnyx for the order of frames; the restarted clock is
Twilio's way of stamping.
"""

from __future__ import annotations

import math
import uuid
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from mediaflow import dsp

Quirk = Literal[
    "late_start",
    "slow_start",
    "media_before_start",
    "second_start",
    "cut_off",
    "reconnects",
    "restarts_count",
    "restarts_clock",
    "overlaps",
    "phantom",
    "media_after_stop",
    "skips",
    "duplicates",
    "swaps_frames",
    "drifts",
    "bursts",
    "odd_sizes",
    "huge_message",
    "bad_base64",
    "unknown_events",
    "reformats",
    "snake_case",
    "dtmf",
    "silent_track",
    "lying_rate",
    "mislabelled_law",
]

AT_MS, LOST_MS, EARLY_MS, AFTER_MS, BURST_MS = 2000, 400, 200, 200, 1000
HUGE_B = 30_000
"""40 000 characters of base64: under the 64 KiB that a reader has to take."""

DRIFT = 0.002
WAIT_S = 1.0
SIZES = (33, 161, 320, 7, 160, 401)
"""Lengths of odd frames, in samples."""

_OF_A_RECONNECT = {"restarts_count", "restarts_clock", "overlaps"}

Message: TypeAlias = dict[str, Any]


class Wait(NamedTuple):
    """Say nothing for so long."""

    seconds: float


class Reconnect(NamedTuple):
    """Come back on another socket, behind the old one or beside it."""

    overlapping: bool = False


Step: TypeAlias = str | Wait | Reconnect


def check(quirks: Collection[Quirk], end: str) -> None:
    """Raise ValueError for quirks that would do nothing."""
    alone = sorted(_OF_A_RECONNECT.intersection(quirks))
    if alone and "reconnects" not in quirks:
        raise ValueError(f"the quirk {alone[0]} is a way to reconnect: add reconnects")
    if "media_after_stop" in quirks and end != "stop":
        raise ValueError("the quirk media_after_stop needs `end: stop`")


class Conduct:
    """What becomes of the messages of one call, as they should be said.  No I/O."""

    def __init__(self, quirks: Collection[Quirk]) -> None:
        self._quirks = frozenset(quirks)
        self.done: Counter[str] = Counter()
        """How often each quirk was shown."""
        self.withheld: dict[str, list[tuple[float, float]]] = {}
        """Audio that was never said: spans of milliseconds, by track."""
        self._once: set[str] = set()
        self._start: Message = {}
        self._early: Message | None = None  # start, while it waits behind audio
        self._sample_bytes, self._rate = 1, 8000
        self._ms: dict[str, float] = {}  # of each track, so far
        self._frames: Counter[str] = Counter()
        self._swapped: dict[str, Message] = {}
        self._joined: dict[str, Message] = {}
        self._burst: list[Message] = []
        self._odd: dict[str, Message] = {}
        self._first_stamp: dict[str, int] = {}
        self._cut: Counter[str] = Counter()  # samples in odd frames
        self._numbers: Counter[str] = Counter()
        self._bases: dict[str, int] = {}  # chunk of the last frame before a reconnect that counts anew
        self._sequence_base = 0
        self._clock: int | None = None  # the stamp that is 0 now
        self._last: dict[str, Message] = {}  # of each track
        self._sequence = 0
        self._renewed = False

    def take(self, text: str) -> list[Step]:
        """Return what is said and done in the place of a message."""
        message: Message = msgspec.json.decode(text)
        if message["event"] == "start":
            return list(self._begin(message))
        if message["event"] == "media":
            return list(self._media(message))
        if message["event"] == "stop":
            return [*self.rest(), *map(self._spell, self._stop(message))]
        return [self._spell(message)]

    def rest(self) -> list[Step]:
        """Return what is still held back."""
        self.done["bursts"] += bool(self._burst)
        self.done["huge_message"] += bool(self._joined)
        steps: list[Step] = []
        for message in (*self._swapped.values(), *self._burst, *self._joined.values()):
            steps += self._say(message)
        self._swapped, self._burst, self._joined = {}, [], {}
        for message in self._odd.values():
            steps += self._write(message)
        self._odd = {}
        if self._early is not None:
            steps.append(self._spell(self._early))
            self._early = None
        return steps

    def another_start(self) -> str:
        """Return the start of another socket of the same call."""
        start = msgspec.json.decode(msgspec.json.encode(self._start))
        place = start.get("start", start)
        place["streamId"] = str(uuid.uuid4())
        self._start = start
        return self._spell(start)

    def echo(self) -> list[str]:
        """Return ``AFTER_MS`` of audio that was said before, as if it were new."""
        copies = []
        for number in range(1, AFTER_MS // 20 + 1):
            for message in self._last.values():
                media = message["media"]
                again = {**media, "timestamp": _like(media["timestamp"], int(media["timestamp"]) + 20 * number)}
                if "chunk" in media:
                    again["chunk"] = media["chunk"] + number
                copies.append(self._spell({**message, "media": again}))
        return copies

    # The beginning.

    def _begin(self, start: Message) -> Iterator[Step]:
        self._start = start
        announced = str(start.get("start", {}).get("mediaFormat") or start.get("contentType"))
        self._sample_bytes = 2 if "l16" in announced else 1
        self._rate = 16_000 if "16000" in announced else 8000
        if self._shows("lying_rate"):
            lie = 24_000 - self._rate
            if "start" in start:
                start["start"]["mediaFormat"]["sampleRate"] = lie
            else:
                start["contentType"] = f"audio/x-l16;rate={lie}"
        if self._shows("late_start"):
            yield Wait(WAIT_S)
        if self._shows("unknown_events"):
            yield '{"event":"connected","protocol":"Call","version":"1.0.0"}'
        if self._shows("media_before_start"):
            self._early = start
        else:
            yield self._spell(start)
        if self._shows("slow_start"):
            yield Wait(WAIT_S)

    # Audio.

    def _media(self, message: Message) -> Iterator[Step]:
        media = message["media"]
        track = media.get("track", "inbound")
        payload = b64decode(media["payload"])
        at = self._ms.get(track, 0.0)
        length = len(payload) / self._sample_bytes * 1000 / self._rate
        self._ms[track] = at + length
        if self._early is not None and at >= EARLY_MS:
            yield self._spell(self._early)
            self._early = None
        if track == "outbound" and self._shows("silent_track"):
            self._withhold(track, at, length)
            return
        if AT_MS <= at < AT_MS + LOST_MS and self._shows("skips"):
            self._withhold(track, at, length)
            return
        if at >= AT_MS:
            yield from self._at_once(message, track)
        if "bad_base64" in self._once and f"bad_base64 {track}" not in self._once:
            self._once.add(f"bad_base64 {track}")
            self._withhold(track, at, length)
            media["payload"] = "~" * len(media["payload"])
        elif self._shows("mislabelled_law"):
            media["payload"] = b64encode(dsp.alaw_encode(dsp.mulaw_decode(payload))).decode()
        if "drifts" in self._quirks:
            drift = DRIFT if track == "inbound" else -DRIFT
            media["timestamp"] = _like(media["timestamp"], int(media["timestamp"]) + round(at * drift))
            self.done["drifts"] += 1
        for each in self._in_order(message, track, at):
            yield from self._say(each)

    def _at_once(self, message: Message, track: str) -> Iterator[Step]:
        """Do what is done once, in the middle."""
        if self._first("reconnects"):
            yield from self.rest()
            yield Reconnect(self._shows("overlaps"))
            yield self.another_start()
            if self._shows("restarts_clock"):
                self._clock = int(message["media"]["timestamp"])
            if self._shows("restarts_count") or self._clock is not None:
                self._renewed = True
                self._sequence_base = message.get("sequenceNumber", 1) - 1
        if self._first("second_start"):
            yield self._spell(self._start)
        if self._first("dtmf"):
            stream_id = self._start.get("start", self._start)["streamId"]
            yield self._spell({"event": "dtmf", "streamId": stream_id, "dtmf": {"digit": "5", "track": "inbound"}})
        if self._first("unknown_events"):
            yield '{"event":"weather","sky":{"clouds":[1,2,null]},"é":"\\u0000"}'
        self._first("bad_base64")

    def _in_order(self, message: Message, track: str, at: float) -> Iterable[Message]:
        """Return the frames that go now, where they do not go one by one as they come."""
        self._frames[track] += 1
        number = self._frames[track]
        if track in self._swapped:
            return [message, self._swapped.pop(track)]
        if number % 50 == 0 and self._shows("swaps_frames"):
            self._swapped[track] = message
            return []
        if number % 25 == 0 and self._shows("duplicates"):
            return [message, message]
        if "bursts" in self._quirks:
            if AT_MS <= at < AT_MS + BURST_MS:
                self._burst.append(message)
                return []
            if self._burst:
                self.done["bursts"] += 1
                held, self._burst = self._burst, []
                return [*held, message]
        if at >= AT_MS and "huge_message" in self._quirks:
            return self._join(message, track)
        return [message]

    def _join(self, message: Message, track: str) -> list[Message]:
        held = self._joined.setdefault(track, message)
        if held is not message:
            data = b64decode(held["media"]["payload"]) + b64decode(message["media"]["payload"])
            held["media"]["payload"] = b64encode(data).decode()
        if len(held["media"]["payload"]) * 3 // 4 < HUGE_B:
            return []
        self.done["huge_message"] += 1
        return [self._joined.pop(track)]

    def _say(self, message: Message) -> Iterator[str]:
        if not self._shows("odd_sizes"):
            yield from self._write(message)
            return
        media = message["media"]
        track = media.get("track", "inbound")
        held = self._odd.pop(track, None)
        data = b64decode(media["payload"])
        first = self._first_stamp.setdefault(track, int(media["timestamp"]))
        if held is not None:
            data = b64decode(held["media"]["payload"]) + data
        while data:
            stamp = first + round(self._cut[track] * 1000 / self._rate)
            size = SIZES[self._numbers[track] % len(SIZES)] * self._sample_bytes
            cut = {**media, "timestamp": _like(media["timestamp"], stamp)}
            cut["payload"] = b64encode(data[:size]).decode()
            if len(data) < size:
                self._odd[track] = {**message, "media": cut}
                return
            data = data[size:]
            self._cut[track] += size // self._sample_bytes
            yield from self._write({**message, "media": cut})

    def _write(self, message: Message) -> Iterator[str]:
        """Number the frame, where its own number would be wrong, and put it into words."""
        media = message["media"]
        track = media.get("track", "inbound")
        self._numbers[track] += 1
        self._sequence += 1
        if "odd_sizes" in self._quirks and "chunk" in media:
            media["chunk"] = self._numbers[track]
            message["sequenceNumber"] = self._sequence
        if "sequenceNumber" in message and not self._renewed:
            self._bases[track] = media["chunk"]
        self._last[track] = message
        said = {**message, "media": dict(media)}
        if self._renewed and "chunk" in media:
            said["media"]["chunk"] -= self._bases.get(track, 0)
            said["sequenceNumber"] -= self._sequence_base
        if self._clock is not None:
            said["media"]["timestamp"] = _like(media["timestamp"], int(media["timestamp"]) - self._clock)
        if self._shows("unknown_events"):
            said["media"]["mood"] = {"level": 3}
            said["priority"] = None
        if "start" not in self._start:
            yield self._spell(said)
            return
        place = self._start["start"]
        yield self._spell({**said, "streamId": place["streamId"]})

    # The end.

    def _stop(self, stop: Message) -> Iterator[Message]:
        yield {**stop, "streamId": self._start.get("start", self._start)["streamId"]}

    # Words.

    def _spell(self, message: Message) -> str:
        if self._shows("snake_case"):
            message = _rename(message)
        if not self._shows("reformats"):
            return msgspec.json.encode(message).decode()
        return msgspec.json.format(msgspec.json.encode(_turn(message)), indent=3).decode()

    def _withhold(self, track: str, at: float, length: float) -> None:
        spans = self.withheld.setdefault(track, [])
        if spans and math.isclose(spans[-1][1], at):
            spans[-1] = (spans[-1][0], at + length)
        else:
            spans.append((at, at + length))

    def _shows(self, quirk: Quirk) -> bool:
        if quirk not in self._quirks:
            return False
        self.done[quirk] += 1
        return True

    def _first(self, quirk: Quirk) -> bool:
        if quirk in self._once or not self._shows(quirk):
            return False
        self._once.add(quirk)
        return True


def _like(value: object, number: int) -> object:
    """Write a number as ``value`` was."""
    return str(number) if isinstance(value, str) else number


def _rename(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            "".join(f"_{c.lower()}" if c.isupper() else c for c in key): _rename(each) for key, each in value.items()
        }
    return value


def _turn(value: Any) -> Any:
    """Put the keys of ``value`` in the other order and write its numbers as text."""
    if isinstance(value, dict):
        return {key: _turn(each) for key, each in reversed(value.items())}
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
