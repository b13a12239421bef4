"""What goes over EkaScribe's HTTP wire, as types, and what can go wrong with it.

``SessionRequest``, as the service documents it; everything is checked before it is sent:

    session_mode             consultation or dictation
    templates                at most 2 ids
    model                    pro or lite; discovery says how long a session of each may be
    upload_type              stream, chunked or single
    communication_protocol   follows from it: websocket or http
    language_hint            ISO 639-1 codes, or auto_detect
    transcript_language      an ISO 639-1 code
    session_id               chosen by the client: 16 to 64 letters, digits, ``_`` and ``-``
    additional_data          an object of at most 4 KB, given back with the result
    patient_details          an object; its ``oid`` is the patient's id

Errors come as ``{"error": {"code", "message", "details"}}``.  A message may quote the request, so only the code is
repeated.  Reference: EkaScribe, "Create Session", "Discovery" and the OpenAPI description beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from .. import http
from ..component import Secret
from ..errors import SinkError, WireError

MAX_TEMPLATES = 2

MAX_ADDITIONAL_DATA = 4096
"""Bytes of ``additional_data`` as JSON."""

MAX_CHUNK_BYTES, MAX_CHUNK_S = 10_000_000, 20
"""What one uploaded chunk may hold."""

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
"""A session id that a client may choose: the documents allow 16 to 32 characters, the official SDK up to 64."""


class EkaError(SinkError):
    """The service refused, failed or did not answer; ``code`` says which."""


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a session shall be; raises ``EkaError`` (``session-invalid``) for what the service would refuse."""

    model: str = "pro"
    session_mode: str = "consultation"
    templates: Sequence[str] = ("clinical_notes_template",)
    language_hint: Sequence[str] = ("auto_detect",)
    transcript_language: str = ""
    upload_type: Literal["stream", "chunked", "single"] = "stream"
    session_id: str = ""
    additional_data: Mapping[str, Any] = {}
    patient_details: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        if len(self.templates) > MAX_TEMPLATES:
            raise EkaError("session-invalid", f"{len(self.templates)} templates, expected at most {MAX_TEMPLATES}")
        if self.session_id and not SESSION_ID.fullmatch(self.session_id):
            text = f"a session_id of {len(self.session_id)} characters, expected 16 to 64 letters, digits, _ and -"
            raise EkaError("session-invalid", text)
        size = len(msgspec.json.encode(self.additional_data))
        if size > MAX_ADDITIONAL_DATA:
            text = f"additional_data of {size} bytes as JSON, expected at most {MAX_ADDITIONAL_DATA}"
            raise EkaError("session-invalid", text)

    def body(self) -> dict[str, Any]:
        """Return what is sent, in the order that the official SDK has; what is empty is left out."""
        sent: dict[str, Any] = {
            "session_mode": self.session_mode,
            "templates": self.templates,
            "model": self.model,
            "upload_type": self.upload_type,
            "communication_protocol": "websocket" if self.upload_type == "stream" else "http",
            "language_hint": self.language_hint,
            "transcript_language": self.transcript_language,
            "session_id": self.session_id,
            "additional_data": self.additional_data,
            "patient_details": self.patient_details,
        }
        return {name: value for name, value in sent.items() if value}


class Session(msgspec.Struct, frozen=True):
    """A session that was created.  ``upload_url`` lets anybody in who knows it."""

    id: str
    upload_url: Secret
    expires_at: datetime | None = None


class SessionState(msgspec.Struct, frozen=True):
    """What the service says of a session: the HTTP status, ``status`` of the body, and the whole body."""

    http_status: int
    status: str
    body: Mapping[str, Any]


class Ended(msgspec.Struct, frozen=True):
    """The answer to the end of a session; ``audio_files_received`` is None where it had ended before."""

    audio_files_received: int | None = None


class Model(msgspec.Struct, frozen=True):
    """A model of the service, and how long a session of it may be."""

    id: str
    max_session_duration_seconds: float | None = None
    languages: tuple[str, ...] = ()


class _Capabilities(msgspec.Struct, frozen=True):
    upload_methods: tuple[str, ...] = ()
    max_chunk_duration_seconds: float = MAX_CHUNK_S


class Discovery(msgspec.Struct, frozen=True):
    """What the service says it can do."""

    capabilities: _Capabilities = _Capabilities()
    models: tuple[Model, ...] = ()

    def longest(self, model: str) -> float | None:
        """Return how many seconds a session of ``model`` may last, or None where nothing is said of it."""
        return next((each.max_session_duration_seconds for each in self.models if each.id == model), None)


class Template(msgspec.Struct, frozen=True):
    """A kind of document that the service can make."""

    id: str
    title: str = ""
    default: bool = False


class Document(msgspec.Struct, frozen=True):
    """A document of a session; its content is behind ``presigned_url`` once ``status`` is ``success``."""

    document_id: str
    status: str = ""
    template_id: str = ""
    presigned_url: str = ""

    def __repr__(self) -> str:  # the address lets anybody read a clinical document
        return f"Document({self.document_id!r}, {self.status!r}, {self.template_id!r})"


class Fault(msgspec.Struct, frozen=True):
    """What an answer says is wrong."""

    code: str = ""
    message: str = ""


class _FaultBody(msgspec.Struct):
    error: Fault | str = Fault()


def fault(reply: http.Reply) -> Fault:
    """Read the error of an answer, in the envelope or as plain text."""
    try:
        error = reply.json(_FaultBody).error
    except WireError:
        return Fault()
    return Fault(message=error) if isinstance(error, str) else error


def said(what: str, reply: http.Reply) -> str:
    """Say what went wrong with the service's own code, and nothing more of its answer."""
    code = fault(reply).code[:40]
    return f"{what}: HTTP {reply.status}{f' {code}' if code.replace('_', '').isalnum() else ''}"


def moment(value: object) -> datetime | None:
    """Read a time, which comes as ISO 8601 or as seconds since 1970; None where it is neither."""
    try:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
