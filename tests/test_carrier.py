"""What carriers say: the golden messages that are read in test_dialects, written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_dialects import OTHERS, START

from mediaflow.carrier import Carrier
from mediaflow.dialects import DIALECTS, Name
from mediaflow.envelope import Connected, Dtmf, Media, Message, Played, Stop, parse


def _carrier(name: Name) -> Carrier:
    """Return the carrier of the golden start."""
    _, start = START[name]
    return Carrier(
        dialect=DIALECTS[name],
        call_id=start.call_id,
        stream_id=start.stream_id,
        account_id=start.account_id,
        format=start.format,
        tracks=start.tracks or ("inbound",),
        metadata=start.metadata,
    )


@pytest.mark.parametrize("name", DIALECTS)
def test_the_golden_start_is_written(name: Name) -> None:
    """Key by key, behind ``connected`` where there is one, and it is read as what it was written from."""
    wire, start = START[name]
    *connected, text = _carrier(name).opening()
    golden = wire | ({"sequenceNumber": 0} if name == "plivo" else {})  # it counts like Vobiz here
    assert json.loads(text) == golden
    assert parse(text, DIALECTS[name]) == start
    assert [parse(each, None) for each in connected] == [Connected()] * (name not in ("vobiz", "plivo"))


WRITTEN = [(name, wire, message) for name, wire, message in OTHERS if isinstance(message, Media | Dtmf | Played | Stop)]
"""All but what a simulated carrier has no use for: its errors."""


@pytest.mark.parametrize(("name", "wire", "message"), WRITTEN)
def test_every_other_golden_message_is_written(name: Name, wire: dict[str, Any], message: Message) -> None:
    """With the ids, numbers and tracks that it has, and it is read as what it was written from."""
    carrier = _carrier(name)
    sequence = int(wire.get("sequenceNumber", wire.get("sequence_number", 7)))
    if isinstance(message, Media):
        assert message.chunk is not None and message.timestamp_ms is not None
        text = carrier.media(sequence, message.track or "inbound", message.chunk, message.timestamp_ms, message.payload)
    elif isinstance(message, Dtmf):
        text = carrier.dtmf(sequence, message.digit, message.track or "inbound")
    elif isinstance(message, Played):
        text = carrier.played(sequence, message.name)
    else:
        assert isinstance(message, Stop)
        text = carrier.stop(sequence, message.reason)
    assert parse(text, DIALECTS[name]) == message
    # What some examples leave out (numbers of marks, Plivo's ids in dtmf) is said; what says more (the time of day of
    # a key, Plivo's headers in every message) is not.
    written, extra = json.loads(text), {"occurred_at", "extra_headers"}
    assert {key: written[key] for key in wire if key not in extra} == {
        key: value for key, value in wire.items() if key not in extra
    }
