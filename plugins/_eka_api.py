"""The HTTP half of ``eka_ingest``: its API, over the sessions that it knows."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import anyio
import anyio.abc
import msgspec

from mediaflow import AudioFormat, Engine, eka
from mediaflow.eka.client import COMPLETED
from mediaflow.httpd import Request, Response

from . import _eka_chunks as eka_chunks, _eka_quirks as eka_quirks, _eka_sessions as eka_sessions
from ._eka_tokens import Tokens
from ._eka_webhooks import Subscription, Webhooks

logger = logging.getLogger(__name__)

MAX_JSON = 1 << 20
"""Bytes of a body that is not audio."""

PREFIX = "/voice/v1"
_AUTH = "/connect-auth/v1/account"
_SESSION = re.compile(rf"{PREFIX}/sessions/([A-Za-z0-9_-]+)(/end|/audio)?")
_CHUNK = re.compile(rf"{PREFIX}/sessions/([A-Za-z0-9_-]+)/audio/([A-Za-z0-9-]+_(\d{{1,6}})\.([a-z0-9]+))")

_TEMPLATES = {
    "clinical_notes_template": "Clinical notes",
    "eka_emr_template": "EMR fields",
    "transcript_template": "Transcript",
}
_MODELS = {"lite": 600, "pro": 3600}
"""The models of the service with the seconds that a session of each may last; here they last as long as they like."""


class Fault(Exception):
    """An answer that says what is wrong."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        self.status = status
        self.body: dict[str, Any] = {"error": {"code": code, "message": message, "details": details}}
        super().__init__(message)


class Api:
    """Answers requests.  ``tasks`` is where uploads are carried, ``quirks`` what is done wrong."""

    def __init__(
        self, engine: Engine, tokens: Tokens, webhooks: Webhooks, quirks: Collection[eka_quirks.Quirk]
    ) -> None:
        self.public_url = ""
        self.sessions = eka_sessions.Sessions()
        self.tasks: anyio.abc.TaskGroup | None = None
        self._engine, self._tokens, self._webhooks, self._quirks = engine, tokens, webhooks, frozenset(quirks)
        self._uploads: dict[str, eka_chunks.Upload] = {}
        self._refuse_token = False
        self._bursts: Counter[tuple[str, str]] = Counter()

    async def answer(self, request: Request) -> Response:
        """Answer one request of the API."""
        try:
            status, body = await self._route(request)
        except Fault as fault:
            status, body = fault.status, fault.body
        return Response(status, msgspec.json.encode(body))

    def heard(self) -> None:
        """Note that the first audio of a session is there."""
        if "token_ends" in self._quirks:
            self._tokens.forget()
            self._refuse_token = True

    def flushed(self, session: eka_sessions.Session) -> None:
        """Note that all audio of a session is through the pipeline."""
        self._uploads.pop(session.id, None)
        self.sessions.streamed(session)
        logger.info("session %s: its audio is stored", session.id)
        self._settle(session)

    def _settle(self, session: eka_sessions.Session) -> None:
        if session.status == "completed":
            logger.info("session %s: completed", session.id)
            self._webhooks.emit(COMPLETED, session.id)

    async def _route(self, request: Request) -> tuple[int, object]:
        self._burst(request)
        route = request.method, request.path
        if route == ("POST", f"{_AUTH}/login"):
            return self._token(self._tokens.login(read(request, dict[str, Any])))
        if route == ("POST", f"{_AUTH}/refresh-token"):
            return self._token(self._tokens.refresh(read(request, dict[str, Any]), request.headers))
        if route == ("GET", f"{PREFIX}/.well-known/medscribealliance"):
            return 200, self._discovery()
        session, chunk = _SESSION.fullmatch(request.path), _CHUNK.fullmatch(request.path)
        fixed = {
            f"{PREFIX}/sessions": {"POST": self._create},
            "/voice/api/v1/template": {"GET": self._list_templates},
            "/notification/v1/connect/webhook/subscriptions": {"POST": self._subscribe},
        }
        if request.path not in fixed and session is None and chunk is None:
            raise Fault(404, "resource_not_found", "There is nothing at this path.")
        self._authorize(request.headers)
        if request.path in fixed and request.method in fixed[request.path]:
            return fixed[request.path][request.method](request)
        if chunk is not None and request.method == "POST":
            return await self._upload(chunk[1], chunk[2], int(chunk[3]), chunk[4], request.body)
        if session is not None:
            known = (request.method, session[2] or "")
            if known == ("GET", ""):
                return self._get(session[1])
            if known == ("PATCH", ""):
                return self._update(session[1], request)
            if known == ("POST", "/end"):
                return await self._end(session[1])
            if known == ("GET", "/audio"):
                self._find(session[1])
                raise Fault(404, "audio_not_available", "The recording is where the pipeline has put it.")
        raise Fault(405, "invalid_request", "The method does not fit the path.")

    def _burst(self, request: Request) -> None:
        if "error_bursts" in self._quirks:
            key = request.method, request.path
            self._bursts[key] = (self._bursts[key] + 1) % (eka_quirks.BURST + 1)
            if self._bursts[key]:
                self._engine.count("quirk-error_bursts")
                raise Fault(503, "service_unavailable", "The service has trouble, as it was told to have.")

    def _token(self, answer: dict[str, Any] | None) -> tuple[int, object]:
        if answer is None:
            self._engine.count("refused-login")
            return 401, {"code": 401, "error": "The client id, its secret or the token is wrong."}
        return 200, answer

    def _authorize(self, headers: Mapping[str, str]) -> None:
        refuse, self._refuse_token = self._refuse_token, False
        if refuse or not self._tokens.admits(headers):
            self._engine.count("refused-token")
            raise Fault(401, "authentication_failed", "A valid bearer token is needed.")

    def _discovery(self) -> object:
        return {
            "protocol": "medscribealliance",
            "protocol_version": "0.1",
            "supported_versions": ["0.1"],
            "service": {"name": "mediaflow eka_ingest"},
            "endpoints": {
                "base_url": f"{self.public_url}{PREFIX}",
                "templates_url": f"{self.public_url}/voice/api/v1/template",
            },
            "capabilities": {
                "upload_methods": ["chunked", "stream"],
                "audio_formats": ["audio/wav", "audio/x-l16"],
                "sample_rates": eka_chunks.RATES,
                "max_chunk_duration_seconds": eka.MAX_CHUNK_S,
                "webhook_delivery": True,
            },
            "models": [
                {
                    "id": id,
                    "max_session_duration_seconds": eka_quirks.SHORT_S if "short_sessions" in self._quirks else seconds,
                }
                for id, seconds in _MODELS.items()
            ],
        }

    def _create(self, request: Request) -> tuple[int, object]:
        wanted = read(request, eka_sessions.Create)
        if wanted.upload_type == "stream" and "streaming_disabled" in self._quirks:
            text = "Streaming upload is disabled on this deployment (FEATURE_STREAMING=false)"
            raise Fault(400, "invalid_request", text)
        _limit(wanted.additional_data)
        session = self.sessions.create(wanted)
        if session is None:
            self._engine.count("refused-session")
            if wanted.session_id is not None and self.sessions.get(wanted.session_id) is not None:
                raise Fault(409, "invalid_request", "There is a session of this id.", field="session_id")
            raise Fault(503, "service_unavailable", "There are too many sessions.")
        logger.info("session %s: created", session.id)
        if wanted.upload_type == "chunked":
            return 201, session.created_body(f"{self.public_url}{PREFIX}/sessions/{session.id}/audio")
        base = "ws" + self.public_url.removeprefix("http")
        return 201, session.created_body(f"{base}{PREFIX}/stream/sessions/{session.stream_id}/audio")

    def _list_templates(self, request: Request) -> tuple[int, object]:
        items = [{"id": id, "title": title, "section_ids": [], "default": True} for id, title in _TEMPLATES.items()]
        return 200, {"items": items}

    def _subscribe(self, request: Request) -> tuple[int, object]:
        if not self._webhooks.subscribe(read(request, Subscription)):
            raise Fault(503, "service_unavailable", "There are too many subscriptions.")
        return 201, {"status": "success"}

    def _find(self, session_id: str) -> eka_sessions.Session:
        session = self.sessions.get(session_id)
        if session is None:
            raise _unknown(session_id)
        if self.sessions.expired(session):
            raise _expired(session_id)
        return session

    async def _upload(self, session_id: str, name: str, number: int, extension: str, data: bytes) -> tuple[int, object]:
        session = self._find(session_id)
        if session.ended_at is not None:
            raise Fault(400, "session_ended", "The session has already ended.", session_id=session_id)
        if session.request.upload_type != "chunked":
            raise Fault(400, "invalid_request", "The session is one for a stream.", session_id=session_id)
        if len(data) > eka_chunks.MAX_CHUNK_BYTES:
            raise Fault(413, "chunk_too_large", "The chunk is longer than 10 MB.")
        if extension != "wav":
            raise Fault(400, "invalid_audio_format", "Only WAV is taken here.")
        answer = {"session_id": session_id, "success": True, "original_filename": name}
        if "loses_chunks" in self._quirks and number % 2:
            return 200, answer
        if "short_sessions" in self._quirks and session.samples >= eka_quirks.SHORT_S * session.sample_rate:
            self._engine.count("quirk-short_sessions")
            raise Fault(400, "invalid_request", "The session is longer than it may be.", session_id=session_id)
        try:
            format, pcm = eka_chunks.read_wav(data)
            await self._uploading(session, format).put(number, name, format, pcm)
        except eka_chunks.Refused as refused:
            raise Fault(refused.status, refused.code, refused.message, session_id=session_id) from None
        return 200, answer

    def _uploading(self, session: eka_sessions.Session, format: AudioFormat) -> eka_chunks.Upload:
        upload = self._uploads.get(session.id)
        if upload is None:
            if session.streaming == "over" or self.tasks is None:
                raise Fault(500, "internal_error", "The audio could not be stored.")
            session.streaming, session.sample_rate = "now", format.sample_rate
            upload = eka_chunks.Upload(session, self._engine, lambda: self.flushed(session), format)
            self._uploads[session.id] = upload
            self.tasks.start_soon(upload.run)
            self.heard()
        return upload

    def _update(self, session_id: str, request: Request) -> tuple[int, object]:
        session = self._find(session_id)
        change = read(request, eka_sessions.Patch, status=422)
        if session.ended_at is not None and (change.model is not None or change.session_mode is not None):
            raise Fault(409, "session_already_committed", "The session has ended.", session_id=session_id)
        changed = change.apply(session.request)
        _limit(changed.additional_data)
        session.request = changed
        return 200, {"session_id": session_id, "status": "success", "message": "The session was changed."}

    async def _end(self, session_id: str) -> tuple[int, object]:
        session = self._find(session_id)
        if "refuses_end" in self._quirks:
            raise _unknown(session_id)
        if session.ended_at is not None:
            raise Fault(400, "session_ended", "The session has already ended.", session_id=session_id)
        upload = self._uploads.get(session_id)
        if upload is not None:
            try:
                await upload.close()
            except eka_chunks.Refused as refused:
                raise Fault(refused.status, refused.code, refused.message, session_id=session_id) from None
        if "loses_end" in self._quirks and not session.end_lost:
            session.end_lost = True
            self._engine.count("quirk-loses_end")
        else:
            self.sessions.end(session)
            logger.info("session %s: ended by its client", session.id)
            self._settle(session)
        return 202, session.ended_body()

    def _get(self, session_id: str) -> tuple[int, object]:
        session = self._find(session_id)
        body = session.body()
        if session.ended_at is None or session.streaming == "now":
            return 202, body
        if "result_missing" in self._quirks:
            raise _unknown(session_id)
        if "result_expired" in self._quirks:
            raise _expired(session_id)
        if "result_never" in self._quirks:
            return 202, {"session_id": session_id, "status": "processing"}
        if session.failed or "result_failed" in self._quirks:
            return 200, body | {"status": "failed"}
        if "result_partial" in self._quirks:
            return 206, body | {"status": "partial", "processing_errors": [{"code": "audio_quality_poor"}]}
        if session.missing:
            errors = [{"code": "audio_missing", "sequence": number} for number in session.missing]
            return 206, body | {"status": "partial", "processing_errors": errors}
        return 200, body


def read(request: Request, type: Any, status: int = 400) -> Any:
    """Return the body of a request as ``type``; raise ``Fault`` with ``status`` where it does not fit."""
    if len(request.body) > MAX_JSON:
        raise Fault(413, "invalid_request", "The body is longer than 1 MB.")
    try:
        return msgspec.json.decode(request.body, type=type)
    except msgspec.ValidationError as error:
        raise Fault(status, "invalid_request", f"The body does not fit: {error}") from None
    except msgspec.DecodeError:
        raise Fault(status, "invalid_request", "The body is not JSON.") from None


def _limit(additional_data: Mapping[str, Any]) -> None:
    if eka_sessions.encode_size(additional_data) > eka_sessions.MAX_ADDITIONAL_DATA:
        raise Fault(400, "invalid_request", "additional_data is longer than 4 KB.", field="additional_data")


def _unknown(session_id: str) -> Fault:
    return Fault(404, "session_not_found", "There is no such session.", session_id=session_id)


def _expired(session_id: str) -> Fault:
    fault = Fault(410, "session_expired", "The session has expired.", session_id=session_id)
    fault.body |= {"session_id": session_id, "status": "expired"}
    return fault
