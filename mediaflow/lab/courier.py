"""What the carrier asks and tells by HTTP: answer URLs and callbacks, signed, and sent again where nobody listens.

A callback is a form in a POST, or a query in a GET; JSON on demand, for one page of Vobiz prints it so.  It has to be
answered 2xx within ``CALLBACK_S``, else it is sent again, up to three times, with the nonce that it had.

    X-Vobiz-Signature-V3, -V3-Nonce    base64(HMAC-SHA256(auth token, url + "." + nonce))
    X-Vobiz-Signature-V2, -V2-Nonce    base64(HMAC-SHA256(auth token, url + nonce))

``url`` is the public one without its query: what it leads to, behind a proxy, is for ``Routes`` to say.

Documentation: https://vobiz.ai/docs, Callbacks and Validating callbacks.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode, urlsplit

import msgspec

from .. import http
from ..vobiz import Credentials

ANSWER_S, CALLBACK_S = 10.0, 3.0
"""Seconds that an answer URL has, and a callback."""

ATTEMPTS = 4
"""How often a request is made: once, and three times again."""

USER_AGENT = "Vobiz-Webhook/1.0"


class Routes:
    """Leads public addresses to where they are served in a rehearsal, as a proxy does.

    A pipeline has one public address and two ports; ``("https://a.example/vobiz", "http://127.0.0.1:8080/vobiz")``
    leads what begins with the one to the other.  The longest that fits is taken; what fits none is left as it is.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]] = ()) -> None:
        self._pairs = sorted(((_bare(public), local) for public, local in pairs), key=lambda pair: -len(pair[0]))

    def lead(self, url: str) -> str:
        """Return the address to connect to for ``url``; a WebSocket's stays one."""
        bare = _bare(url)
        for public, local in self._pairs:
            rest = bare.removeprefix(public)
            if rest != bare and rest[:1] in ("", "/", "?"):
                scheme, _, place = local.rstrip("/").partition("://")
                if url.startswith("ws"):
                    scheme = scheme.replace("http", "ws")
                return f"{scheme}://{place}{rest}"
        return url


def _bare(url: str) -> str:
    return url.partition("://")[2].rstrip("/") if url.endswith("/") else url.partition("://")[2]


class Courier:
    """Makes the carrier's requests for one account."""

    def __init__(self, credentials: Credentials, routes: Routes, as_json: bool = False) -> None:
        self._token = credentials.auth_token.reveal().encode()
        self._routes, self._as_json = routes, as_json

    async def ask(self, url: str, method: str, fields: Mapping[str, str]) -> http.Reply:
        """Fetch an answer; raise ``http.Unreachable`` where nobody gives one."""
        return await self._send(url, method, fields, ANSWER_S, False)

    async def tell(self, url: str, method: str, fields: Mapping[str, str]) -> str:
        """Deliver a callback; return why it could not be, or nothing."""
        try:
            reply = await self._send(url, method, fields, CALLBACK_S, self._as_json)
        except http.Unreachable as error:
            return str(error)
        return "" if 200 <= reply.status < 300 else f"HTTP {reply.status}"

    async def _send(
        self, url: str, method: str, fields: Mapping[str, str], timeout_s: float, as_json: bool
    ) -> http.Reply:
        led = urlsplit(self._routes.lead(url))
        query, body, kind = led.query, None, ""
        if method == "GET":
            query = "&".join(part for part in (query, urlencode(fields)) if part)
        elif as_json:
            body, kind = msgspec.json.encode(fields), "application/json"
        else:
            body, kind = urlencode(fields).encode(), "application/x-www-form-urlencoded"
        headers = {"User-Agent": USER_AGENT, **self.signatures(url), **({"Content-Type": kind} if kind else {})}
        path = f"{led.path or '/'}{'?' if query else ''}{query}"
        async with http.connect(f"{led.scheme}://{led.netloc}", timeout_s=timeout_s, attempts=ATTEMPTS) as client:
            return await client.request(method, path, body, headers=headers)

    def signatures(self, url: str) -> dict[str, str]:
        """Return the headers that show a request to ``url`` to be the carrier's."""
        base = url.partition("?")[0]
        headers = {}
        for version, joint in (("V2", ""), ("V3", ".")):
            nonce = f"{secrets.randbelow(10**20):020d}"
            signed = hmac.digest(self._token, f"{base}{joint}{nonce}".encode(), "sha256")
            headers[f"X-Vobiz-Signature-{version}"] = base64.b64encode(signed).decode()
            headers[f"X-Vobiz-Signature-{version}-Nonce"] = nonce
        return headers
