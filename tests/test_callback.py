"""Callbacks of Vobiz in every dress they come in, and what tells them from others' requests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from urllib.parse import parse_qsl, urlencode

import pytest

from mediaflow import Secret, WireError, callback
from mediaflow.callback import Memory, Signatures
from mediaflow.httpd import Request

PUBLIC = "https://calls.example.org/voice"
TOKEN = "t0ken"
FIELDS = {
    "Event": "DroppedStream",
    "CallUUID": "call-1",
    "StreamID": "stream-1",
    "From": "+919800000000",
    "To": "+911140001000",
    "ParentAuthID": "MA_X",
    "Timestamp": "2025-11-06 09:58:40",
    "Error": "connection disconnected with the remote service",
    "X-VH-clinic": "7",
}


def _request(body: str = "", query: str = "", headers: dict[str, str] | None = None) -> Request:
    return Request("POST" if body else "GET", "/status", query, headers or {}, body.encode())


@pytest.mark.parametrize(
    "request_",
    [
        _request(urlencode(FIELDS)),
        _request(json.dumps(FIELDS), headers={"content-type": "application/x-www-form-urlencoded"}),
        _request(" " + json.dumps({**FIELDS, "To": None, "Duration": None})),
        _request(query=urlencode(FIELDS)),
    ],
    ids=["form", "JSON under a form's header", "JSON with nulls", "query"],
)
def test_a_callback_in_every_dress(request_: Request) -> None:
    """Form, JSON and query say the same, and what may be logged holds no number."""
    found = callback.parse(request_)
    assert found[:3] == ("DroppedStream", "call-1", "stream-1")
    assert found.facts == {
        "error": "connection disconnected with the remote service",
        "carrier_time": "2025-11-06 09:58:40",
    }
    assert found.key == callback.parse(_request(urlencode(FIELDS))).key


# One of each event, with the fields that the carrier's pages on callbacks and on the Stream verb list for it.
USUAL = "CallUUID=c-1&From=%2B919800000000&To=%2B911140001000&ParentAuthID=MA_X"
STREAM = f"{USUAL}&StreamID=s-1&Timestamp=2025-11-06+09%3A58%3A40"
TIME = {"carrier_time": "2025-11-06 09:58:40"}
GOLDEN: list[tuple[str, str, dict[str, str]]] = [
    (f"Event=StartApp&{USUAL}&Direction=inbound&CallStatus=in-progress", "", {}),
    (f"Event=Ring&{USUAL}&CallStatus=ringing", "", {}),
    (f"Event=StartStream&{STREAM}&ServiceURL=wss%3A%2F%2Fcalls.example.org%2Fvobiz%2FSECRET", "s-1", TIME),
    (f"Event=PlayedStream&{STREAM}&Name=greeting", "s-1", {"name": "greeting"} | TIME),
    (f"Event=ClearedAudio&{STREAM}", "s-1", TIME),
    (f"Event=DegradedStream&{STREAM}&Error=connection+degraded", "s-1", {"error": "connection degraded"} | TIME),
    (
        f"Event=DroppedStream&{STREAM}&Error=connection+disconnected+with+the+remote+service&X-VH-clinic=7&maxRetries=3",
        "s-1",
        {"error": "connection disconnected with the remote service"} | TIME,
    ),
    (f"Event=MediaError&{STREAM}&Error=bad+frame", "s-1", {"error": "bad frame"} | TIME),
    (f"Event=StopStream&{STREAM}&bidirectional=false&audioTrack=both&streamTimeout=86400", "s-1", TIME),
    (
        (
            f"Event=Hangup&{USUAL}&HangupCause=NORMAL_CLEARING&HangupCauseCode=4000&HangupCauseName=Normal+Hangup"
            "&HangupSource=Caller&Duration=44&EndTime=2025-11-06+09%3A59%3A24"
        ),
        "",
        {"cause": "Normal Hangup", "code": "4000", "source": "Caller", "duration": "44"},
    ),
]


@pytest.mark.parametrize(("form", "stream", "facts"), GOLDEN, ids=lambda value: None)
def test_every_event_of_the_carrier(form: str, stream: str, facts: dict[str, str]) -> None:
    """Each is read as it comes, and what may be put on record of it holds neither numbers nor addresses."""
    found = callback.parse(_request(form))
    assert (found.event, found.call_id, found.stream_id, found.facts) == (
        form[6 : form.index("&")],
        "c-1",
        stream,
        facts,
    )
    assert callback.parse(_request(json.dumps(dict(parse_qsl(form))))) == found


def test_every_event_has_a_golden_form() -> None:
    """None that is known is without."""
    assert {form[6 : form.index("&")] for form, *_ in GOLDEN} == callback.EVENTS


def test_what_makes_callbacks_different() -> None:
    """Another stream, event, time or checkpoint is another callback; another error text is the same one again."""
    keys = [
        callback.parse(_request(urlencode(FIELDS | change))).key
        for change in (
            {},
            {"StreamID": "stream-2"},
            {"Event": "StopStream"},
            {"Timestamp": "2025-11-06 09:58:41"},
            {"Name": "greeting"},
        )
    ]
    assert len(set(keys)) == len(keys)
    assert callback.parse(_request(urlencode(FIELDS | {"Error": "x"}))).key == keys[0]


def test_a_hang_up() -> None:
    """It may leave its event to the address, has no stream, and its reasons are kept; numbers in them are not."""
    fields = {
        "CallUUID": "call-1",
        "HangupCause": "NORMAL_CLEARING",
        "HangupCauseName": "Normal Hangup",
        "HangupCauseCode": "4000",
        "HangupSource": "+919800000000",
        "Duration": 44,
    }
    found = callback.parse(_request(json.dumps(fields)), "Hangup")
    assert found[:3] == ("Hangup", "call-1", "")
    assert found.facts == {"cause": "Normal Hangup", "code": "4000", "source": "…", "duration": "44"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "bad-callback"),
        ("hello", "bad-callback"),
        ("{", "bad-callback"),
        ('{"Event": "Hangup"}', "bad-callback"),
        ("CallUUID=c", "bad-callback"),
        ("Event=Moo&CallUUID=c", "unknown-event"),
    ],
)
def test_what_is_no_callback(body: str, code: str) -> None:
    """It is refused by name, and not quoted."""
    with pytest.raises(WireError) as caught:
        callback.parse(_request(body))
    assert caught.value.code == code and "Moo" not in str(caught.value)


def test_a_long_fact_is_cut() -> None:
    """What others send has its bounds in our records."""
    found = callback.parse(_request(urlencode(FIELDS | {"Error": "x" * 1000})))
    assert len(found.facts["error"]) == callback.LONGEST_FACT


def _signed(version: str, nonce: str, token: str = TOKEN, parent: bool = False, url: str = "") -> dict[str, str]:
    """Sign as Vobiz describes it, by the standard library's longer way."""
    text = (url or f"{PUBLIC}/status") + ("." if version == "v3" else "") + nonce
    signature = base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha256).digest()).decode()
    name = f"x-vobiz-signature-{'ma-' if parent else ''}{version}"
    return {name: signature, f"x-vobiz-signature-{version}-nonce": nonce}


def test_a_signature_as_it_was_computed_elsewhere() -> None:
    """The formula gives what OpenSSL's command line gives for it."""
    # printf 'https://calls.example.org/voice/status.05429567804466091622' |
    #   openssl dgst -sha256 -hmac t0ken -binary | base64
    known = "HFaMToI4iyhZ//6t32s6PexXSI1XbhI25EsPlX5yWec="
    headers = {"x-vobiz-signature-v3": known, "x-vobiz-signature-v3-nonce": "05429567804466091622"}
    assert Signatures(Secret(TOKEN), PUBLIC).check(_request(headers=headers)) == {"05429567804466091622"}


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("parent", [False, True])
@pytest.mark.parametrize("public", [PUBLIC, f"{PUBLIC}/"])
def test_both_versions_and_both_accounts(version: str, parent: bool, public: str) -> None:
    """A request is known by either version, signed by the account or its parent; its query is not signed."""
    signatures = Signatures(Secret(TOKEN), public)
    request = _request(query="a=1", headers=_signed(version, "123", parent=parent))
    assert signatures.check(request) == {"123"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "no-signature"),
        ({"x-vobiz-signature": "AAAA"}, "no-signature"),
        ({"x-vobiz-signature-v3-nonce": "1"}, "no-signature"),
        (_signed("v3", "1") | {"x-vobiz-signature-v3-nonce": "2"}, "bad-signature"),
        (_signed("v3", "1", token="other"), "bad-signature"),
        (_signed("v2", "1", url="https://internal:8081/status"), "bad-signature"),
        (_signed("v3", "1", url=f"{PUBLIC}/answer"), "bad-signature"),
        ({"x-vobiz-signature-v3": "é", "x-vobiz-signature-v3-nonce": "1"}, "bad-signature"),
        (_signed("v2", ""), "no-signature"),
    ],
)
def test_what_vobiz_has_not_signed(headers: dict[str, str], code: str) -> None:
    """Without a signature, with a wrong one, or with one for another address, it is refused."""
    with pytest.raises(WireError) as caught:
        Signatures(Secret(TOKEN), PUBLIC).check(_request(headers=headers))
    assert caught.value.code == code and TOKEN not in str(caught.value)


def test_a_nonce_works_once() -> None:
    """A request passes again until it is remembered, for it may not have been answered; and never after it."""
    signatures = Signatures(Secret(TOKEN), PUBLIC)
    request = _request(headers=_signed("v3", "1") | _signed("v2", "2"))
    for _ in range(2):
        nonces = signatures.check(request)
    signatures.remember(nonces)
    for again in (request, _request(headers=_signed("v3", "1")), _request(headers=_signed("v2", "2"))):
        with pytest.raises(WireError) as caught:
            signatures.check(again)
        assert caught.value.code == "replayed-nonce"
    assert signatures.check(_request(headers=_signed("v3", "3")))


def test_one_version_does_not_stand_for_the_other() -> None:
    """A V3 signature of 7 is, letter for letter, a V2 signature of ``.7``: which is no nonce."""
    signature = _signed("v3", "7")["x-vobiz-signature-v3"]
    with pytest.raises(WireError, match="no signature"):
        Signatures(Secret(TOKEN), PUBLIC).check(
            _request(headers={"x-vobiz-signature-v2": signature, "x-vobiz-signature-v2-nonce": ".7"})
        )


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first."""
    monkeypatch.setattr(callback, "REMEMBERED", 2)
    memory = Memory()
    for thing in "abc":
        memory.add(thing)
    assert ["a" in memory, "b" in memory, "c" in memory] == [False, True, True]
