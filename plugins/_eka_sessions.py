"""The sessions of ``eka_ingest``: what the API remembers of each, without the network.

    created ──connect──▶ streaming ──flushed──▶ streamed ──end──▶ completed
       │                     └───────end───▶ ending ──flushed──────▲
       └────────────end───────────────────────────────────────────┘

The first chunk of an upload is its connect, and its end comes before it is flushed.

A session that nobody ends within ``LIFETIME_S`` of its creation, or of its last audio, is expired; so is a result an
hour after the end.  Another hour later it is forgotten.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

LIFETIME_S = 3600.0

MAX_SESSIONS = 10_000
"""Sessions remembered at a time; with the largest ``additional_data`` they take 40 MB."""

MAX_ADDITIONAL_DATA = 4096
"""Bytes of ``additional_data``, as the service documents it."""


class Create(msgspec.Struct):
    """The body of a request for a session, as far as it is read."""

    upload_type: Literal["stream", "chunked"]
    model: str = "pro"
    session_mode: Literal["consultation", "dictation"] = "consultation"
    templates: Annotated[list[str], Meta(max_length=2)] = []
    language_hint: list[str] = []
    session_id: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{16,64}$")] | None = None
    additional_data: dict[str, Any] = {}
    patient_details: dict[str, Any] | None = None


class Patch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a change; what is not given stays."""

    model: str | None = None
    session_mode: Literal["consultation", "dictation"] | None = None
    templates: Annotated[list[str], Meta(max_length=2)] | None = None
    language_hint: list[str] | None = None
    additional_data: dict[str, Any] | None = None
    patient_details: dict[str, Any] | None = None

    def apply(self, request: Create) -> Create:
        """Return ``request`` with the changes; additional_data is merged."""
        changes = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        if "additional_data" in changes:
            changes["additional_data"] = request.additional_data | changes["additional_data"]
        return msgspec.structs.replace(request, **changes)


class Session:
    """What is known of one session."""

    def __init__(self, request: Create, now: float) -> None:
        self.id = request.session_id or f"ses_{secrets.token_hex(8)}"
        self.stream_id = f"str_{secrets.token_hex(10)}"
        self.request = request
        self.created = now
        self.expires = now + LIFETIME_S
        self.streaming: Literal["no", "now", "over"] = "no"
        self.ended_at: float | None = None
        self.sample_rate = 16000
        self.samples = 0
        self.chunks: dict[int, str] = {}
        """Number and name of each chunk that was uploaded."""
        self.end_lost = False
        """True where an end was answered and forgotten, as a quirk."""
        self.failed = False
        """True where chunks were taken and could not be stored."""
        self.missing: list[int] = []
        """Numbers of chunks that were left out between others."""

    @property
    def unused(self) -> bool:
        """True while no audio has come and nobody has ended it."""
        return self.streaming == "no" and self.ended_at is None

    @property
    def continues(self) -> bool:
        """True if the client says that it goes on where another session has ended."""
        return "continues" in self.request.additional_data

    @property
    def metadata(self) -> dict[str, str]:
        """What the pipeline is told of the session; the call id only if the client gave one."""
        call_id = self.request.additional_data.get("call_id")
        known = {"session_id": self.id, "stream_id": self.stream_id}
        return known | ({"call_id": call_id} if isinstance(call_id, str) else {})

    @property
    def audio_files(self) -> list[str]:
        """Names of what is stored: the chunks, or one, once a stream that held audio is finished."""
        if self.request.upload_type == "chunked":
            return [self.chunks[number] for number in sorted(self.chunks)]
        return [self.id] if self.streaming == "over" and self.samples else []

    @property
    def status(self) -> str:
        """Return the word that the API has for the state of the session."""
        if self.ended_at is None:
            return "initialized"
        return "processing" if self.streaming == "now" else "completed"

    def created_body(self, upload_url: str) -> dict[str, Any]:
        """Return the answer to its creation."""
        return {
            "session_id": self.id,
            "status": "created",
            "created_at": _iso(self.created),
            "expires_at": _iso(self.expires),
            "upload_url": upload_url,
            "patient_details": self.request.patient_details,
        }

    def ended_body(self) -> dict[str, Any]:
        """Return the answer to its end."""
        return {
            "session_id": self.id,
            "status": "processing",
            "message": "The session has ended; its audio is being processed.",
            "audio_files_received": len(self.audio_files),
            "audio_files": self.audio_files,
        }

    def body(self) -> dict[str, Any]:
        """Return the answer to a question for it.  There is no recogniser here, so there is no transcript either."""
        body = {"session_id": self.id, "status": self.status, "created_at": _iso(self.created)}
        if self.status != "completed":
            return body
        return body | {
            "completed_at": _iso(self.ended_at or self.created),
            "expires_at": _iso(self.expires),
            "model_used": self.request.model,
            "audio_files_received": len(self.audio_files),
            "audio_files": self.audio_files,
            "audio": {
                "samples": self.samples,
                "sample_rate": self.sample_rate,
                "seconds": self.samples / self.sample_rate,
            },
            "additional_data": self.request.additional_data,
            "patient_details": self.request.patient_details,
            "templates": [],
        }


class Sessions:
    """All sessions, by their id and by the id of their stream."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._by_id: dict[str, Session] = {}
        self._by_stream: dict[str, Session] = {}

    def create(self, request: Create) -> Session | None:
        """Return a new session, or None if there are too many or its id is taken.

        Whoever asks again for an id that nobody has used yet gets the same session: the first answer may be lost.
        """
        now = self._clock()
        known = self.get(request.session_id) if request.session_id else None
        if known is not None:
            return known if known.unused and known.request == request else None
        if len(self._by_id) >= MAX_SESSIONS:
            self._forget(now)
        if len(self._by_id) >= MAX_SESSIONS:
            return None
        session = Session(request, now)
        self._by_id[session.id] = session
        if request.upload_type == "stream":
            self._by_stream[session.stream_id] = session
        return session

    def get(self, session_id: str) -> Session | None:
        """Return a session, expired or not."""
        session = self._by_id.get(session_id)
        if session is not None and self._clock() >= session.expires + LIFETIME_S and session.streaming != "now":
            self._drop(session)
            return None
        return session

    def expired(self, session: Session) -> bool:
        """Say whether a session was left alone for too long."""
        return session.streaming != "now" and self._clock() >= session.expires

    def claim(self, stream_id: str) -> Session | None:
        """Return the session that a stream belongs to, once: its id is used up by that."""
        session = self._by_stream.pop(stream_id, None)
        if session is None or session.ended_at is not None or self.expired(session):
            return None
        session.streaming = "now"
        return session

    def streamed(self, session: Session) -> None:
        """Note that the audio of a session is stored."""
        session.streaming = "over"
        session.expires = self._clock() + LIFETIME_S

    def end(self, session: Session) -> None:
        """End a session."""
        session.ended_at = self._clock()
        session.expires = session.ended_at + LIFETIME_S

    def _forget(self, now: float) -> None:
        gone = [s for s in self._by_id.values() if s.streaming != "now" and now >= s.expires]
        for session in gone:
            self._drop(session)

    def _drop(self, session: Session) -> None:
        del self._by_id[session.id]
        self._by_stream.pop(session.stream_id, None)


def encode_size(data: Mapping[str, Any]) -> int:
    """Return the bytes that ``data`` takes as JSON."""
    return len(msgspec.json.encode(data))


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
