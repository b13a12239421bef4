"""How an answer is read: what builders of them write is understood, what Vobiz drops a call over is refused."""

from __future__ import annotations

import os

import pytest

from mediaflow import answer
from mediaflow.lab.order import Order
from mediaflow.lab.verbs import END_OF_XML, INVALID_XML, BadAnswer, Cause, Dial, Hangup, Speak, Wait, parse

XML = "application/xml"
URL = "wss://calls.example.org/vobiz/s3cret?a=1&b=2"


def test_what_our_builder_writes() -> None:
    """Both kinds of answer come back as what they were built of."""
    stream = answer.Stream(
        url=URL, status_url="https://calls.example.org/status", max_retries=5, timeout_s=60, extra_headers={"a": "1"}
    )
    (order, dial), remarks = parse(answer.listen(stream, answer.Dial("+911140001000", "+911140002000")), XML)
    assert isinstance(order, Order) and isinstance(dial, Dial) and not remarks
    assert (order.url, order.track, order.content_type) == (URL, "both", "audio/x-mulaw;rate=8000")
    assert (order.max_retries, order.timeout_s, order.extra_headers) == (5, 60, "a=1")
    assert order.status_url == "https://calls.example.org/status" and not order.bidirectional
    both_ways = answer.converse(answer.Stream(url=URL, audio_track="inbound"), answer.Wait(7))
    (order, wait), remarks = parse(both_ways, "text/xml; charset=utf-8")
    assert isinstance(order, Order) and order.bidirectional and order.keep_alive
    assert (wait, remarks) == (Wait(7.0), ())


def test_what_plivo_writes() -> None:
    """The XML of Vobiz's relative, by its own SDK, is understood."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("plivo")
    from plivo import plivoxml

    response = plivoxml.ResponseElement()
    response.add(plivoxml.SpeakElement("This call is recorded."))
    response.add(
        plivoxml.StreamElement(URL, bidirectional=True, audioTrack="inbound", keepCallAlive=True, streamTimeout=9)
    )
    response.add(plivoxml.HangupElement())
    (speak, order, hangup), remarks = parse(response.to_string().encode(), XML)
    assert isinstance(speak, Speak) and speak.length_s > 1 and isinstance(hangup, Hangup) and not remarks
    assert isinstance(order, Order)
    assert (order.url, order.bidirectional, order.timeout_s) == (URL, True, 9)


@pytest.mark.parametrize(
    ("document", "cause", "what"),
    [
        (b"", INVALID_XML, "not XML"),
        (b"<Response><Stream>wss://a.example/?a=1&b=2</Stream></Response>", INVALID_XML, "is written &amp;"),
        (b"<html/>", INVALID_XML, "its root is not Response"),
        (b"<Response><Sing/></Response>", INVALID_XML, "element 'Sing'"),
        (b"<Response><Stream url='wss://a.example'/></Response>", INVALID_XML, "the text of the element"),
        (b"<Response><Stream>https://a.example</Stream></Response>", INVALID_XML, "ws:// or wss://"),
        (b"<Response><Dial/></Response>", INVALID_XML, "neither a Number nor a User"),
        (b"<Response><Wait length='a while'/></Response>", INVALID_XML, "the length of Wait"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><Response/>", INVALID_XML, "declares a document type"),
        (b"<Response>" + b" " * 100_000 + b"</Response>", INVALID_XML, "may have 100000"),
        (
            b"<Response><Stream bidirectional='true' audioTrack='both'>wss://a.example</Stream></Response>",
            END_OF_XML,
            "carries the track inbound",
        ),
    ],
)
def test_what_drops_the_call(document: bytes, cause: Cause, what: str) -> None:
    """Each is refused with the cause that the hang-up tells and with what is wrong."""
    with pytest.raises(BadAnswer, match=what) as caught:
        parse(document, XML)
    assert caught.value.cause == cause


@pytest.mark.parametrize("kind", ["text/html", "application/json; charset=utf-8", ""])
def test_the_wrong_type(kind: str) -> None:
    """An answer that is not sent as XML drops the call, whatever it holds."""
    with pytest.raises(BadAnswer, match="not as application/xml or text/xml"):
        parse(b"<Response/>", kind)


@pytest.mark.parametrize(
    ("inside", "remark"),
    [
        ("<Stream>wss://a.example</Stream>", "the call ends at once"),
        ("<Dial>+911140001000</Dial>", "3030"),
        ("<Play>https://a.example/a.mp3</Play>", "Play is passed over"),
        ("<Stream keepCallAlive='true'>wss://a.example</Stream><Wait/>", "no effect"),
    ],
)
def test_what_is_worth_knowing(inside: str, remark: str) -> None:
    """What is taken, and surprises people, is remarked."""
    (said,) = parse(f"<Response>{inside}</Response>".encode(), XML).remarks
    assert remark in said


def test_an_answer_may_be_empty() -> None:
    """It has no instructions, and that is a matter of the call."""
    assert parse(b"<Response/>", XML) == ((), ())
