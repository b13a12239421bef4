"""Answers to calls: what is built can be read by a parser and by others' builders, what is refused says why."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, strategies as st

from mediaflow import answer
from mediaflow.answer import AnswerError, Dial, Hangup, Stream, Wait

URL = "wss://calls.example.org/vobiz/s3cret"


def test_a_doctor_and_a_caller_who_are_listened_to() -> None:
    """The fork of both tracks comes first, and the connection to the doctor behind it."""
    stream = Stream(url=URL, status_url="https://calls.example.org/status", extra_headers={"clinic": "7", "desk": "2"})
    root = ET.fromstring(answer.listen(stream, Dial("+911140001000", "+911140002000")))
    assert [element.tag for element in root.iter()] == ["Response", "Stream", "Dial", "Number"]
    assert root[0].text == URL
    assert root[0].attrib == {
        "audioTrack": "both",
        "contentType": "audio/x-mulaw;rate=8000",
        "streamTimeout": "86400",
        "maxRetries": "3",
        "statusCallbackUrl": "https://calls.example.org/status",
        "statusCallbackMethod": "POST",
        "extraHeaders": "clinic=7,desk=2",
    }
    assert root[1].attrib == {"callerId": "+911140002000"}
    assert root[1][0].text == "+911140001000"


def test_a_stream_of_both_ways() -> None:
    """It carries the caller's track, stays up by itself, and the call ends behind it."""
    stream = Stream(url=URL, audio_track="inbound")
    root = ET.fromstring(answer.converse(stream, Hangup()))
    assert (root[0].get("bidirectional"), root[0].get("keepCallAlive")) == ("true", "true")
    assert [element.tag for element in root] == ["Stream", "Hangup"]
    assert ET.fromstring(answer.converse(stream, Wait(5), keep_call_alive=False))[0].get("keepCallAlive") is None


def test_a_fork_never_keeps_the_call_alive_by_itself() -> None:
    """What only listens says neither bidirectional nor keepCallAlive; the call is held by what stands behind it."""
    root = ET.fromstring(answer.listen(Stream(url=URL), Wait(60)))
    assert "bidirectional" not in root[0].attrib and "keepCallAlive" not in root[0].attrib
    assert (root[1].tag, root[1].attrib) == ("Wait", {"length": "60"})


@given(query=st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_characters="\x7f"), min_size=1))
def test_any_address_comes_back_as_it_was(query: str) -> None:
    """Ampersands, brackets and letters of any script survive being written and parsed."""
    url = f"{URL}?a=1&b={query}".replace("&amp;", "&")
    stream = Stream(url=url, status_url=url.replace("wss", "https", 1))
    document = answer.listen(stream, Wait())
    element = ET.fromstring(document)[0]
    assert (element.text, element.get("statusCallbackUrl")) == (url, stream.status_url)
    assert b"&b=" not in document


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: answer.converse(Stream(url=URL), Hangup()), "carries the track inbound, not both"),
        (lambda: answer.converse(Stream(url=URL, audio_track="outbound"), Hangup()), "inbound, not outbound"),
        (lambda: answer.converse(Stream(url=URL, audio_track="inbound"), None), "else it is silence"),  # type: ignore[arg-type]
        (lambda: answer.listen(Stream(url=URL), None), "does not hold the call"),  # type: ignore[arg-type]
        (lambda: answer.listen(Stream(url=URL), Hangup()), "does not hold the call"),  # type: ignore[arg-type]
        (lambda: Stream(url="https://calls.example.org/"), "ws:// or wss://"),
        (lambda: Stream(url="wss://"), "with a host"),
        (lambda: Stream(url="wss://["), "with a host"),
        (lambda: Stream(url=f"{URL}?\ufffe"), "without spaces"),
        (lambda: Stream(url=f"{URL}?a=b c"), "without spaces"),
        (lambda: Stream(url=f"{URL}?a=1&amp;b=2"), "escaped already"),
        (lambda: Stream(url=URL, status_url="calls.example.org"), "status_url is not a http:// or https://"),
        (lambda: Stream(url=URL, content_type="audio/x-l16;rate=24000"), "one of .*rate=16000"),  # type: ignore[arg-type]
        (lambda: Stream(url=URL, audio_track="all"), "one of inbound, outbound, both"),  # type: ignore[arg-type]
        (lambda: Stream(url=URL, max_retries=11), "from 0 to 10, not 11"),
        (lambda: Stream(url=URL, max_retries=-1), "from 0 to 10, not -1"),
        (lambda: Stream(url=URL, timeout_s=0), "at least 1"),
        (lambda: Stream(url=URL, extra_headers={"a": "b=c"}), "letters, digits and _ only"),
        (lambda: Stream(url=URL, extra_headers={"a": "é"}), "letters, digits and _ only"),
        (lambda: Stream(url=URL, extra_headers={"": "b"}), "letters, digits and _ only"),
        (lambda: Stream(url=URL, extra_headers={"a": "b" * 511}), "513 bytes and may have 512"),
        (lambda: Dial("98000000000000000"), "number is not a telephone number"),
        (lambda: Dial("+919800000000", "<x>"), "caller_id is not a telephone number"),
        (lambda: Wait(0), "at least 1"),
        (lambda: answer.listen(Stream(url=f"{URL}?{'x' * 100_000}"), Wait()), "may have 100000"),
    ],
)
def test_what_vobiz_would_refuse(make: Callable[[], object], why: str) -> None:
    """Each refusal names the mistake, and shows neither the address nor a number."""
    with pytest.raises(AnswerError, match=why) as caught:
        make()
    assert "s3cret" not in str(caught.value) and "9800000000" not in str(caught.value)


def test_headers_of_just_the_size() -> None:
    """512 bytes are allowed."""
    assert Stream(url=URL, extra_headers={"a": "b" * 510}).extra_headers


def test_nothing_shows_itself() -> None:
    """The parts of an answer can be logged: addresses and numbers stay out of it."""
    assert repr((Stream(url=URL), Dial("+911140001000"))) == "(Stream(both, audio/x-mulaw;rate=8000), Dial(…))"


@pytest.mark.parametrize("bidirectional", [False, True])
def test_plivos_builder_writes_the_same(bidirectional: bool) -> None:
    """The SDK of Vobiz's relative, asked for the same stream, writes an equal element but for what it does not know."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("plivo")
    from plivo import plivoxml

    stream = Stream(
        url=f"{URL}?a=1&b=2",
        audio_track="inbound" if bidirectional else "both",
        status_url="https://calls.example.org/status",
        extra_headers={"clinic": "7"},
    )
    ours = ET.fromstring(answer.converse(stream, Wait(5)) if bidirectional else answer.listen(stream, Wait(5)))
    options: dict[str, Any] = {"bidirectional": True, "keepCallAlive": True} if bidirectional else {}
    element = plivoxml.StreamElement(
        stream.url,
        audioTrack=stream.audio_track,
        contentType=stream.content_type,
        streamTimeout=86_400,
        statusCallbackUrl=stream.status_url,
        statusCallbackMethod="POST",
        extraHeaders="clinic=7",
        **options,
    )
    response = plivoxml.ResponseElement()
    response.add(element)
    response.add(plivoxml.WaitElement(length=5))
    theirs = ET.fromstring(response.to_string())
    assert ours[0].attrib.pop("maxRetries") == "3"  # Plivo has none
    assert [(e.tag, e.attrib, e.text) for e in ours] == [(e.tag, e.attrib, e.text) for e in theirs]
