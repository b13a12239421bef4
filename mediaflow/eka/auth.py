"""The token that every client of an account shares, from the login to its replacement.

    when                                    what
    no token yet                            login
    ``RENEW_S`` before it ends              refresh; a login where the refresh is refused
    … and the service is in trouble         the old token is used as long as it lasts
    the service answers 401 all the same    one login, and the request is made once more

However many requests wait for a token, one of them gets it and the others use it.  A token lasts about half an hour, a
call may last longer.

    POST /connect-auth/v1/account/login           {client_id, client_secret[, sharing_key][, api_key]}
    POST /connect-auth/v1/account/refresh-token   {refresh_token, access_token}, with Authorization and Client-Id
         → {access_token, expires_in, refresh_token, refresh_expires_in}, or {code, error}

What a request shows, and where what is shown comes from::

    Authorization: Bearer …    a token of the login, or one that lasts long and that the console gave
    jwt-payload: {…}           who is asking, in plain JSON: an installation of one's own that no gateway stands before

A sharing key lets into the workspace of somebody else, who has made it.  The documents call it ``sharing_key`` in the
guide and ``api_key`` in the OpenAPI description; neither says that the other is gone, so each is sent as it is given.
The gateway turns a bearer token into ``jwt-payload``; a service of one's own wants ``b-id`` and ``iss`` in it, and
believes what they say.

Reference: Eka Care, "Authorization"; EkaScribe's own client and server for ``jwt-payload``.
"""

from __future__ import annotations

import json
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
    """A token from the service; or a client id and secret to get one with, and maybe a key; or a ``jwt-payload``.

    Raises ValueError where they contradict each other.
    """

    token: Secret = Secret("")
    client_id: str = ""
    client_secret: Secret = Secret("")
    sharing_key: Secret = Secret("")
    api_key: Secret = Secret("")
    jwt_payload: Secret = Secret("")

    def __post_init__(self) -> None:
        pair = bool(self.client_id), bool(self.client_secret)
        if (bool(self.token), any(pair), bool(self.jwt_payload)).count(True) > 1:
            raise ValueError("give one of token, client_id with client_secret, and jwt_payload, not several")
        if (self.sharing_key or self.api_key) and not any(pair):
            raise ValueError("sharing_key and api_key are for a login: give client_id and client_secret too")
        if any(pair) and not all(pair):
            raise ValueError("client_id and client_secret (EKA_CLIENT_ID, EKA_CLIENT_SECRET) belong together")
        if self.jwt_payload:
            identity(self.jwt_payload)

    def __bool__(self) -> bool:
        return bool(self.token or self.client_id or self.jwt_payload)


class _Tokens(msgspec.Struct):
    access_token: str
    expires_in: float | str | None = None
    refresh_token: str = ""


class _Identity(msgspec.Struct):
    business: str = msgspec.field(name="b-id")
    iss: str


class Account:
    """The token that belongs to some credentials."""

    def __init__(self, credentials: Credentials, clock: Callable[[], float] = anyio.current_time) -> None:
        self._credentials, self._clock = credentials, clock
        self._fixed = identity(credentials.jwt_payload) if credentials.jwt_payload else credentials.token.reveal()
        self._access = self._fixed
        self._refresh = ""
        self._renew_at = self._ends_at = 0.0
        self._lock = anyio.Lock()

    async def token(self, client: http.Client, refused: str = "") -> str:
        """Return a token that is good for some minutes and is not the one that was ``refused``; raise ``EkaError``."""
        if self._fixed:
            if refused and self._credentials.jwt_payload:
                raise EkaError("login-refused", "the service refused the jwt_payload; does it take one?")
            if refused:
                raise EkaError("login-refused", "the service refused the token; has EKA_TOKEN expired?")
            return self._access
        async with self._lock:
            if not self._access or self._access == refused:
                await self._login(client)
            elif self._clock() >= self._renew_at:
                await self._renew(client)
            return self._access

    def headers(self, token: str) -> dict[str, str]:
        """Return what shows ``token`` to the service."""
        return {"jwt-payload": token} if self._credentials.jwt_payload else {"Authorization": f"Bearer {token}"}

    async def _login(self, client: http.Client) -> None:
        known = self._credentials
        body = {"client_id": known.client_id, "client_secret": known.client_secret.reveal()}
        keys = {"sharing_key": known.sharing_key.reveal(), "api_key": known.api_key.reveal()}
        body |= {name: key for name, key in keys.items() if key}
        reply = await send(client, "POST", LOGIN, body, {})
        if 400 <= reply.status < 500 and reply.status != 429:
            what = "EKA_CLIENT_ID and EKA_CLIENT_SECRET" + (
                ", and the key of the other workspace" if len(body) > 2 else ""
            )
            raise EkaError("login-refused", f"HTTP {reply.status} for the login; check {what}")
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


def identity(jwt_payload: Secret) -> str:
    """Return the header that says who is asking; raise ValueError, without quoting it, unless it can say so."""
    try:
        msgspec.json.decode(jwt_payload.reveal(), type=_Identity)
    except msgspec.MsgspecError:
        raise ValueError('jwt_payload has to be a JSON object that holds texts as "b-id" and "iss"') from None
    return json.dumps(json.loads(jwt_payload.reveal()), separators=(",", ":"))  # ASCII only, as a header is


async def send(client: http.Client, method: str, path: str, body: object, headers: Mapping[str, str]) -> http.Reply:
    """Make a request; raise ``EkaError`` (``unreachable``) where there is no answer."""
    try:
        return await client.request(method, path, body, headers=headers)
    except http.Unreachable as error:
        raise EkaError("unreachable", str(error)) from None
