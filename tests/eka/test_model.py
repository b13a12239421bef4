"""What is sent for a session, byte for byte as the official SDK has it, and what is read back."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from mediaflow import Secret, eka
from mediaflow.eka.model import fault, moment, said
from mediaflow.http import Reply

# Bodies as the official SDK was seen to send them; it always sends the first five.
SENT = [
    (
        eka.SessionRequest(session_mode="dictation", templates=["soap"], model="lite", language_hint=()),
        (
            b'{"session_mode":"dictation","templates":["soap"],"model":"lite","upload_type":"stream",'
            b'"communication_protocol":"websocket"}'
        ),
    ),
    (
        eka.SessionRequest(
            session_mode="dictation", templates=["soap"], model="lite", language_hint=(), upload_type="chunked"
        ),
        (
            b'{"session_mode":"dictation","templates":["soap"],"model":"lite","upload_type":"chunked",'
            b'"communication_protocol":"http"}'
        ),
    ),
    (
        eka.SessionRequest(
            language_hint=["en", "hi"],
            transcript_language="en",
            session_id="call-0123456789abcdef",
            additional_data={"call_id": "ü", "n": [1]},
            patient_details={"oid": "p"},
        ),
        '{"session_mode":"consultation","templates":["clinical_notes_template"],"model":"pro","upload_type":"stream",'
        '"communication_protocol":"websocket","language_hint":["en","hi"],"transcript_language":"en",'
        '"session_id":"call-0123456789abcdef","additional_data":{"call_id":"ü","n":[1]},'
        '"patient_details":{"oid":"p"}}'.encode(),
    ),
]


@pytest.mark.parametrize(("request_", "sent"), SENT)
def test_a_session_s_request_is_the_sdk_s(request_: eka.SessionRequest, sent: bytes) -> None:
    """Fields, their order and their spelling."""
    assert msgspec.json.encode(request_.body()) == sent


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"templates": ["a", "b", "c"]}, "3 templates, expected at most 2"),
        ({"session_id": "x" * 15}, "15 characters, expected 16 to 64"),
        ({"session_id": "x" * 65}, "65 characters"),
        ({"session_id": "../" + "x" * 20}, "letters, digits"),
        ({"additional_data": {"x": "y" * 4089}}, "4097 bytes as JSON, expected at most 4096"),
        ({"additional_data": {"x": "µ" * 2045}}, "4098 bytes"),
    ],
)
def test_what_the_service_would_refuse_is_not_sent(fields: dict[str, object], complaint: str) -> None:
    """The error says what is wrong and repeats none of it."""
    with pytest.raises(eka.EkaError, match=complaint) as caught:
        eka.SessionRequest(**fields)  # type: ignore[arg-type]
    assert caught.value.code == "session-invalid"
    assert "yyy" not in str(caught.value)


def test_what_just_fits_is_sent() -> None:
    """Limits include themselves."""
    eka.SessionRequest(templates=["a", "b"], session_id="x" * 64, additional_data={"x": "y" * 4088})
    eka.SessionRequest(session_id="x" * 16)


def test_discovery_says_how_long_a_session_may_last() -> None:
    """The published document is read, with what it holds besides; about unknown models it says nothing."""
    document = b"""{"protocol": "medscribealliance", "capabilities": {"upload_methods": ["chunked", "single", "stream"],
        "max_chunk_duration_seconds": 20, "webhook_delivery": true}, "models": [
        {"id": "lite", "languages": ["en", "hi"], "max_session_duration_seconds": 600, "features": {}},
        {"id": "pro", "languages": ["en"], "max_session_duration_seconds": 3600}, {"id": "new"}]}"""
    discovery = msgspec.json.decode(document, type=eka.Discovery)
    assert [discovery.longest(model) for model in ("lite", "pro", "new", "other")] == [600, 3600, None, None]
    assert discovery.capabilities.upload_methods == ("chunked", "single", "stream")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (1_790_000_000, datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)),
        (1.5, datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)),
        ("2025-01-19T10:30:00Z", datetime(2025, 1, 19, 10, 30, tzinfo=UTC)),
        ("soon", None),
        (1e300, None),
        (None, None),
        ([], None),
    ],
)
def test_times_come_in_two_ways(value: object, read: datetime | None) -> None:
    """As text and as numbers, and as neither."""
    assert moment(value) == read


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b'{"error":{"code":"invalid_template","message":"x","details":{}}}', "invalid_template", "no: HTTP 400 "),
        (b'{"code":401,"error":"The secret is wrong"}', "", "no: HTTP 400"),
        (b'{"error":{"code":"a secret: 4711"}}', "a secret: 4711", "no: HTTP 400"),
        (b"<html>", "", "no: HTTP 400"),
    ],
)
def test_of_an_error_only_the_code_is_told(body: bytes, code: str, text: str) -> None:
    """A message may quote what was sent, and so may a code that looks like none."""
    reply = Reply(400, {}, body)
    assert fault(reply).code == code
    assert said("no", reply) == text.strip() + (f" {code}" if text.endswith(" ") else "")


def test_addresses_do_not_show_themselves() -> None:
    """The address of a stream and that of a document are capabilities."""
    document = eka.Document("doc_1", "success", "t", "https://secret.example")
    session = eka.Session("ses_1", Secret("wss://secret.example"))
    assert "secret" not in repr(document) and "secret" not in repr(session)
