"""The token that every client of an account shares, from the login to its replacement.

    when                                    what
    no token yet                            login
    ``RENEW_S`` before it ends              refresh; a login where the refresh is refused
    … and the service is in trouble         the old token is used as long as it lasts
    the service answers 401 all the same    one login, and the request is made once more

However many requests wait for a token, one of them gets it and the others use it.  A token lasts about half an hour, a
call may last longer.

    POST /connect-auth/v1/account/login           {client_id, client_secret}
    POST /connect-auth/v1/account/refresh-token   {refresh_token, access_token}, with Authorization and Client-Id
         → {access_token, expires_in, refresh_token, refresh_expires_in}, or {code, error}

Reference: Eka Care, "Authorization".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio
import msgspec

from .. import http
from ..component import Secret
from ..errors import WireError
from .model import EkaError

LOGIN = "/connect-auth/v1/account/login"
REFRESH = "/connect-auth/v1/account/refresh-token"

TOKEN_S = 1800.0
"""How long a token lasts where the service does not say it."""

RENEW_S = 300.0
"""A token is replaced so long before it ends, or at half its life if that is shorter."""


class Credentials(msgspec.Struct, frozen=True):
    """A token from the service, or a client id and secret to get one with."""

    token: Secret = Secret("")
    client_id: str = ""
    client_secret: Secret = Secret("")


class _Tokens(msgspec.Struct):
    access_token: str
    expires_in: float | str | None = None
    refresh_token: str = ""


class Account:
    """The token that belongs to some credentials."""

    def __init__(self, credentials: Credentials, clock: Callable[[], float] = anyio.current_time) -> None:
        self._credentials, self._clock = credentials, clock
        self._access = credentials.token.reveal()
        self._refresh = ""
        self._renew_at = self._ends_at = 0.0
        self._lock = anyio.Lock()

    async def token(self, client: http.Client, refused: str = "") -> str:
        """Return a token that is good for some minutes and is not the one that was ``refused``; raise ``EkaError``."""
        if self._credentials.token:
            if refused:
                raise EkaError("login-refused", "the service refused the token; has EKA_TOKEN expired?")
            return self._access
        async with self._lock:
            if not self._access or self._access == refused:
                await self._login(client)
            elif self._clock() >= self._renew_at:
                await self._renew(client)
            return self._access

    async def _login(self, client: http.Client) -> None:
        body = {"client_id": self._credentials.client_id, "client_secret": self._credentials.client_secret.reveal()}
        reply = await send(client, "POST", LOGIN, body, {})
        if 400 <= reply.status < 500 and reply.status != 429:
            text = f"HTTP {reply.status} for the login; check EKA_CLIENT_ID and EKA_CLIENT_SECRET"
            raise EkaError("login-refused", text)
        self._take(reply)

    async def _renew(self, client: http.Client) -> None:
        try:
            if self._refresh:
                body = {"refresh_token": self._refresh, "access_token": self._access}
                headers = {"Authorization": f"Bearer {self._access}", "Client-Id": self._credentials.client_id}
                reply = await send(client, "POST", REFRESH, body, headers)
                if reply.status < 300:
                    self._take(reply)
                    return
            await self._login(client)
        except EkaError as error:
            if error.code == "login-refused" or self._clock() >= self._ends_at:
                raise

    def _take(self, reply: http.Reply) -> None:
        if reply.status == 429 or reply.status >= 500:
            raise EkaError("unreachable", f"the login is in trouble: HTTP {reply.status}")
        try:
            if reply.status >= 300:
                raise WireError("status", f"HTTP {reply.status}")
            tokens = reply.json(_Tokens)
            lasts = TOKEN_S if tokens.expires_in is None else float(tokens.expires_in)
        except (WireError, ValueError) as error:
            raise EkaError("login-failed", f"the login gave no token: {error}") from None
        self._access = tokens.access_token
        self._refresh = tokens.refresh_token or self._refresh
        now = self._clock()
        self._renew_at, self._ends_at = now + max(lasts - RENEW_S, lasts / 2), now + lasts


async def send(client: http.Client, method: str, path: str, body: object, headers: Mapping[str, str]) -> http.Reply:
    """Make a request; raise ``EkaError`` (``unreachable``) where there is no answer."""
    try:
        return await client.request(method, path, body, headers=headers)
    except http.Unreachable as error:
        raise EkaError("unreachable", str(error)) from None
