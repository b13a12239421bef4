"""The tokens of ``eka_ingest``: who may log in, and who has."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from mediaflow import Secret
from mediaflow.eka import Credentials

TOKEN_S, REFRESH_S = 1800, 86_400
"""How long a token from the login lasts, and what it can be refreshed with."""

MAX_TOKENS = 10_000


class Tokens:
    """Tokens by their text; without any credentials, which only loopback may be, everybody is let in.

    Then ``jwt-payload`` is taken as well, which proves nothing.  A ``sharing_key`` has to come with a login, by that
    name or as ``api_key``; where none is set, whatever a login brings is taken.
    """

    def __init__(
        self,
        token: Secret,
        client_id: str,
        client_secret: Secret,
        sharing_key: Secret = Secret(""),  # noqa: B008 - it never changes
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._token, self._client_id, self._client_secret = token.reveal(), client_id, client_secret.reveal()
        self._sharing_key = sharing_key.reveal()
        self._clock = clock
        self._access: dict[str, float] = {}
        self._refresh: dict[str, tuple[str, float]] = {}

    @property
    def _free(self) -> bool:
        return not self._client_id and not self._token

    def login(self, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the answer to a login, or None if it is refused."""
        pair = str(given.get("client_id")), str(given.get("client_secret"))
        known = self._client_id and _same(pair[0], self._client_id) and _same(pair[1], self._client_secret)
        keys = (given.get("sharing_key"), given.get("api_key"))
        if known and self._sharing_key and not any(_same(str(key), self._sharing_key) for key in keys if key):
            known = False
        return self._issue() if self._free or known else None

    def refresh(self, given: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the answer to a refresh, or None if it is refused: the old token and the client id have to fit."""
        access, ends = self._refresh.get(str(given.get("refresh_token")), ("", 0.0))
        fits = (
            access
            and ends > self._clock()
            and _same(str(given.get("access_token")), access)
            and _same(bearer(headers), access)
            and (self._free or _same(headers.get("client-id", ""), self._client_id))
        )
        if not fits:
            return None
        del self._refresh[str(given["refresh_token"])]
        return self._issue()

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Say whether a request shows a token that is good, or says who it is where that is enough."""
        if self._free and "jwt-payload" in headers:
            return _is_identity(headers["jwt-payload"])
        token = bearer(headers)
        fixed = bool(self._token) and _same(token, self._token)
        return bool(token) and (self._free or fixed or self._access.get(token, 0.0) > self._clock())

    def forget(self) -> None:
        """Let all tokens of logins end now."""
        self._access.clear()
        self._refresh.clear()

    def _issue(self) -> dict[str, Any]:
        now = self._clock()
        self._access = {token: ends for token, ends in self._access.items() if ends > now}
        self._refresh = {token: pair for token, pair in self._refresh.items() if pair[1] > now}
        tokens: dict[str, Any]
        for tokens in (self._access, self._refresh):
            if len(tokens) >= MAX_TOKENS:
                del tokens[next(iter(tokens))]
        access, refresh = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._access[access] = now + TOKEN_S
        self._refresh[refresh] = access, now + REFRESH_S
        return {
            "access_token": access,
            "expires_in": TOKEN_S,
            "refresh_token": refresh,
            "refresh_expires_in": REFRESH_S,
        }


def bearer(headers: Mapping[str, str]) -> str:
    """Return the token that a request shows, or nothing."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _is_identity(text: str) -> bool:
    try:
        return bool(Credentials(jwt_payload=Secret(text)))
    except ValueError:
        return False


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode(), known.encode())
