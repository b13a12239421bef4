"""The token that all clients of an account share: refresh, login, trouble."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
import stamina

from mediaflow import Secret, eka, http, httpd
from mediaflow.eka.auth import LOGIN, REFRESH, Account
from mediaflow.websocket import Address

pytestmark = pytest.mark.anyio

PAIR = eka.Credentials(client_id="me", client_secret=Secret("pw"))


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    """Try once."""
    with stamina.set_testing(True, attempts=1):
        yield


class Desk:
    """A service of logins with a clock of its own; tokens are numbered."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.requests: list[httpd.Request] = []
        self.status = {LOGIN: 200, REFRESH: 200}
        self.account = Account(PAIR, clock=lambda: self.now)
        self.client: http.Client

    async def answer(self, request: httpd.Request) -> httpd.Response:
        self.requests.append(request)
        status = self.status[request.path]
        number = len(self.requests)
        tokens = {
            "access_token": f"a{number}",
            "refresh_token": f"r{number}",
            "expires_in": 1800,
            "refresh_expires_in": 86400,
        }
        return httpd.Response(status, json.dumps(tokens if status == 200 else {"code": status, "error": "no"}).encode())

    @property
    def paths(self) -> list[str]:
        return [request.path.rpartition("/")[2] for request in self.requests]

    async def token(self, refused: str = "") -> str:
        return await self.account.token(self.client, refused)


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    """Run a desk on loopback."""
    desk, ports = Desk(), list[int]()
    up = anyio.Event()

    def listening(port: int) -> None:
        ports.append(port)
        up.set()

    async def serve() -> None:
        await httpd.serve(desk.answer, Address("http", "127.0.0.1", 0, ""), listening=listening)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await up.wait()
            async with http.connect(f"http://127.0.0.1:{ports[0]}") as desk.client:
                yield desk
            tasks.cancel_scope.cancel()


async def test_a_token_is_refreshed_five_minutes_before_it_ends() -> None:
    """Until then it is used; then the documented request is made with the old pair, and the new one is used."""
    async with open_desk() as desk:
        assert await desk.token() == "a1"
        desk.now += 1499
        assert await desk.token() == "a1"
        desk.now += 2
        assert await desk.token() == "a2"
        assert await desk.token() == "a2"
        desk.now += 1500
        assert await desk.token() == "a3"
    login, refresh, again = desk.requests
    assert (login.method, login.path) == ("POST", "/connect-auth/v1/account/login")
    assert login.body == b'{"client_id":"me","client_secret":"pw"}'
    assert (refresh.method, refresh.path) == ("POST", "/connect-auth/v1/account/refresh-token")
    assert refresh.body == b'{"refresh_token":"r1","access_token":"a1"}'
    assert (refresh.headers["authorization"], refresh.headers["client-id"]) == ("Bearer a1", "me")
    assert again.body == b'{"refresh_token":"r2","access_token":"a2"}'


async def test_a_login_carries_the_keys_that_are_given() -> None:
    """Each under its documented name, and none that is not there."""
    async with open_desk() as desk:
        keys = {"sharing_key": Secret("s"), "api_key": Secret("a")}
        account = Account(msgspec.structs.replace(PAIR, **keys))
        await account.token(desk.client)
        assert desk.requests[0].body == (b'{"client_id":"me","client_secret":"pw","sharing_key":"s","api_key":"a"}')
        assert account.headers("x") == {"Authorization": "Bearer x"}


async def test_a_jwt_payload_takes_the_place_of_a_token() -> None:
    """It needs no login, goes as one line of ASCII, and its refusal is final and does not quote it."""
    async with open_desk() as desk:
        who = Secret('{\n "b-id": "Krankenhaus Nürnberg",\n "iss": "ward"\n}')
        account = Account(eka.Credentials(jwt_payload=who))
        shown = account.headers(await account.token(desk.client))
        assert shown == {"jwt-payload": '{"b-id":"Krankenhaus N\\u00fcrnberg","iss":"ward"}'}
        with pytest.raises(eka.EkaError, match="jwt_payload") as caught:
            await account.token(desk.client, refused=shown["jwt-payload"])
        assert "ward" not in str(caught.value)
        assert desk.requests == []


async def test_those_who_wait_share_one_refresh() -> None:
    """Ten requests at the moment when the token is to be replaced."""
    async with open_desk() as desk:
        await desk.token()
        desk.now += 1600
        got: list[str] = []

        async def ask() -> None:
            got.append(await desk.token())

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask)
        assert got == ["a2"] * 10
        assert desk.paths == ["login", "refresh-token"]


async def test_a_refresh_that_is_refused_becomes_a_login() -> None:
    """The account still has its secret."""
    async with open_desk() as desk:
        await desk.token()
        desk.now += 1600
        desk.status[REFRESH] = 401
        assert await desk.token() == "a3"
        assert desk.paths == ["login", "refresh-token", "login"]


async def test_a_refused_token_needs_a_login() -> None:
    """It is not refreshed, for the service wants it no more; who comes later with the old one uses the new."""
    async with open_desk() as desk:
        assert await desk.token() == "a1"
        assert await desk.token(refused="a1") == "a2"
        assert await desk.token(refused="a1") == "a2"
        assert desk.paths == ["login", "login"]


async def test_trouble_at_the_desk_lets_the_old_token_last() -> None:
    """Five minutes are left to get another; after that it is an error."""
    async with open_desk() as desk:
        await desk.token()
        desk.status = {LOGIN: 503, REFRESH: 503}
        desk.now += 1600
        assert await desk.token() == "a1"
        desk.now += 200
        with pytest.raises(eka.EkaError) as caught:
            await desk.token()
        assert caught.value.code == "unreachable"
        desk.status = {LOGIN: 200, REFRESH: 200}
        assert (await desk.token())[0] == "a"


async def test_a_login_that_is_refused_at_renewal_is_an_error() -> None:
    """A secret that was withdrawn is told at once, not when the token has ended."""
    async with open_desk() as desk:
        await desk.token()
        desk.status = {LOGIN: 401, REFRESH: 401}
        desk.now += 1600
        with pytest.raises(eka.EkaError, match="EKA_CLIENT_SECRET") as caught:
            await desk.token()
        assert caught.value.code == "login-refused"


async def test_a_fixed_token_cannot_be_replaced() -> None:
    """It is used as it is, and its refusal names where it is set."""
    async with open_desk() as desk:
        account = Account(eka.Credentials(token=Secret("fixed")))
        assert await account.token(desk.client) == "fixed"
        with pytest.raises(eka.EkaError, match="EKA_TOKEN"):
            await account.token(desk.client, refused="fixed")
        assert desk.requests == []
