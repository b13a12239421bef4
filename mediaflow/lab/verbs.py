"""What a call's answer tells the carrier to do: XML, read as Vobiz reads it.  No I/O.

    element     what the lab does with it
    Stream      forks the audio; both ways it holds the call, else the next element follows at once
    Dial        the two people talk until one of them hangs up
    Wait        silence for ``length`` seconds
    Speak       the time that its text takes to say
    Hangup      ends the call
    others      passed over, where Vobiz knows them: the lab has no telephone to play, record or press keys on

Elements are done one after the other, and behind the last one the call ends ("End Of XML Instructions", 4010).  What
is no such document ("Invalid Answer XML", 8011) drops the call about a second after it was answered: text that is not
XML, as with a ``&`` that is not escaped; another root than ``Response``; an element that nobody knows; over 100 kB;
sent as something else than ``application/xml`` or ``text/xml``.  A stream of both ways with another track than
``inbound`` ends the call as if there were no instructions.

4010 is documented by Vobiz; the other codes are those of Plivo, after which its own are made.

Documentation: https://vobiz.ai/docs, XML.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.etree import ElementTree as ET

from ..answer import MAX_BYTES
from ..errors import MediaflowError
from .order import Order, OrderError, read

CONTENT_TYPES = ("application/xml", "text/xml")

_PASSED_OVER = {
    "Play", "Record", "Gather", "GetDigits", "GetInput", "Conference", "Redirect", "DTMF", "PreAnswer", "Message",
    "MultiPartyCall",
}  # fmt: skip


class Cause(NamedTuple):
    """Why a call ended, as ``HangupCauseName`` and ``HangupCauseCode`` tell it."""

    name: str
    code: int


NORMAL = Cause("Normal Hangup", 4000)
END_OF_XML = Cause("End Of XML Instructions", 4010)
SCHEDULED = Cause("Scheduled Hangup", 4020)
NO_ANSWER_URL = Cause("Error Reaching Answer URL", 7011)
INVALID_XML = Cause("Invalid Answer XML", 8011)


class BadAnswer(MediaflowError):
    """The call is dropped over its answer; ``cause`` is what the carrier tells."""

    def __init__(self, cause: Cause, text: str) -> None:
        self.cause = cause
        super().__init__(f"{cause.name}: {text}")


class Dial(NamedTuple):
    """Connect the caller with somebody."""


class Wait(NamedTuple):
    """Stay silent."""

    length_s: float


class Speak(NamedTuple):
    """Say a text."""

    length_s: float


class Hangup(NamedTuple):
    """End the call."""


Verb = Order | Dial | Wait | Speak | Hangup


class Script(NamedTuple):
    """What is to be done, and what whoever wrote it should know."""

    verbs: tuple[Verb, ...]
    remarks: tuple[str, ...]


LETTER_S = 0.06
"""How long a letter takes to say: 160 words a minute."""


def parse(document: bytes, content_type: str) -> Script:
    """Read an answer; raise ``BadAnswer`` where Vobiz would drop the call over it."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in CONTENT_TYPES:
        raise BadAnswer(INVALID_XML, f"it is sent as {kind or 'nothing'}, not as {' or '.join(CONTENT_TYPES)}")
    if len(document) > MAX_BYTES:
        raise BadAnswer(INVALID_XML, f"it has {len(document)} bytes and may have {MAX_BYTES}")
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise BadAnswer(INVALID_XML, "it declares a document type, which an answer has no use for")
    try:
        root = ET.fromstring(document)
    except ET.ParseError as error:
        hint = "; a & in an address is written &amp;" if b"&" in document else ""
        raise BadAnswer(INVALID_XML, f"it is not XML: {error}{hint}") from None
    if root.tag != "Response":
        raise BadAnswer(INVALID_XML, "its root is not Response")
    verbs: list[Verb] = []
    remarks: list[str] = []
    for element in root:
        verb = _verb(element, remarks)
        if verb is not None:
            verbs.append(verb)
    if isinstance(verbs[-1] if verbs else None, Order) and not _holds(verbs[-1]):
        remarks.append("nothing stands behind a Stream that only listens, so the call ends at once: add Dial or Wait")
    return Script(tuple(verbs), tuple(remarks))


def _holds(verb: Verb) -> bool:
    return isinstance(verb, Order) and verb.bidirectional


def _verb(element: ET.Element, remarks: list[str]) -> Verb | None:
    text = (element.text or "").strip()
    if element.tag == "Stream":
        return _stream(element, text, remarks)
    if element.tag == "Dial":
        if not text and not any((child.text or "").strip() for child in element if child.tag in ("Number", "User")):
            raise BadAnswer(INVALID_XML, "Dial holds neither a Number nor a User")
        if not element.get("callerId"):
            remarks.append("Dial has no callerId: carriers in India refuse such a call (3030, Unknown Caller ID)")
        return Dial()
    if element.tag == "Wait":
        length = element.get("length", "1")
        if not length.isdecimal():
            raise BadAnswer(INVALID_XML, "the length of Wait is not a whole number")
        return Wait(float(length))
    if element.tag == "Speak":
        return Speak(len(text) * LETTER_S)
    if element.tag == "Hangup":
        return Hangup()
    if element.tag not in _PASSED_OVER:
        raise BadAnswer(INVALID_XML, f"it holds an element {element.tag[:40]!r}, which there is not")
    remarks.append(f"{element.tag} is passed over: the lab has no telephone for it")
    return None


def _stream(element: ET.Element, text: str, remarks: list[str]) -> Order:
    if "url" in element.attrib:
        raise BadAnswer(INVALID_XML, "the address of a Stream is the text of the element, not an attribute")
    try:
        order, notes = read(text, element.attrib, "inbound")
    except OrderError as error:
        raise BadAnswer(INVALID_XML, f"Stream: {error}") from None
    if order.bidirectional and order.track != "inbound":
        raise BadAnswer(END_OF_XML, f"a Stream of both ways carries the track inbound, not {order.track}")
    remarks += notes
    return order
