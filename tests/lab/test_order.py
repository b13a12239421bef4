"""What a stream is ordered with, in XML and by REST, and what is remarked about orders that cannot work."""

from __future__ import annotations

from typing import Any

import pytest

from mediaflow import answer
from mediaflow.lab.order import FROM_REST, MUTE, OrderError, read
from mediaflow.vobiz import StreamRequest

URL = "wss://calls.example.org/vobiz/s3cret"


def test_what_is_left_out() -> None:
    """The defaults are those of the documentation, and differ by the way that an order comes."""
    order, remarks = read(f" {URL}\n", {}, "inbound")
    assert not remarks
    assert (order.url, order.track, order.bidirectional, order.content_type) == (
        URL,
        "inbound",
        False,
        "audio/x-l16;rate=8000",
    )
    assert (order.timeout_s, order.max_retries, order.keep_alive) == (86_400, 0, False)
    assert (order.status_url, order.status_method) == ("", "POST")
    assert read(URL, {}, "both").order.track == "both"


def test_what_our_client_orders() -> None:
    """Every field that our client of the API sends is read, and repeated in callbacks."""
    request = StreamRequest(
        URL,
        "inbound",
        bidirectional=True,
        content_type="audio/x-l16;rate=16000",
        stream_timeout_s=60,
        status_callback_url="https://calls.example.org/status",
        status_callback_method="GET",
        extra_headers={"clinic": "7", "doctor": "9"},
    )
    body = request.body()
    url = body.pop("service_url")
    order, remarks = read(url, {FROM_REST[name]: value for name, value in body.items()}, "both")
    assert not remarks
    assert order.echo() == {
        "audioTrack": "inbound",
        "bidirectional": "true",
        "contentType": "audio/x-l16;rate=16000",
        "streamTimeout": "60",
        "maxRetries": "0",
        "keepCallAlive": "false",
        "extraHeaders": "clinic=7,doctor=9",
        "status_callback_url": "https://calls.example.org/status",
        "status_callback_method": "GET",
        "X-VH-clinic": "7",
        "X-VH-doctor": "9",
    }


@pytest.mark.parametrize(
    ("given", "remark"),
    [
        ({"bidirectional": True}, 'the string "true" is meant'),
        ({"keepCallAlive": "true"}, "no effect without bidirectional"),
        ({"contentType": MUTE}, "the socket is never opened"),
        ({"extraHeaders": "a=" + "b" * 512}, "more than 512 bytes"),
        ({"sampleRate": "8000"}, "no option sampleRate"),
    ],
)
def test_what_vobiz_takes_and_does_not_do(given: dict[str, Any], remark: str) -> None:
    """It is taken, nothing comes of it, and somebody is told."""
    order, (said,) = read(URL, given, "inbound")
    assert remark in said
    assert not order.bidirectional and not order.keep_alive


@pytest.mark.parametrize(
    ("url", "given", "what"),
    [
        ("https://calls.example.org", {}, "ws:// or wss://"),
        (None, {}, "ws:// or wss://"),
        (URL, {"audioTrack": "left"}, "audioTrack is one of"),
        (URL, {"contentType": "audio/ogg"}, "contentType is one of"),
        (URL, {"streamTimeout": "0"}, "from 1 to"),
        (URL, {"streamTimeout": True}, "from 1 to"),
        (URL, {"maxRetries": "11"}, "from 0 to 10"),
        (URL, {"maxRetries": "many"}, "from 0 to 10"),
    ],
)
def test_what_cannot_be_taken(url: object, given: dict[str, Any], what: str) -> None:
    """It is refused with a reason, which does not show the address."""
    with pytest.raises(OrderError, match=what) as caught:
        read(url, given, "inbound")
    assert "s3cret" not in str(caught.value)


def test_the_largest_that_our_builder_writes() -> None:
    """What our own builder of answers calls the limit is the lab's limit too."""
    assert read(URL, {"maxRetries": str(answer.MAX_RETRIES)}, "both").order.max_retries == answer.MAX_RETRIES
