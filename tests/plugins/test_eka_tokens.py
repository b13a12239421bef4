"""The ingest's tokens, in a time of their own."""

from __future__ import annotations

import pytest

from mediaflow import Secret
from mediaflow_plugins import _eka_tokens
from mediaflow_plugins._eka_tokens import Tokens

PAIR = {"client_id": "me", "client_secret": "pw"}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def desk(clock: Clock) -> Tokens:
    """Return tokens of one client id."""
    return Tokens(Secret(""), "me", Secret("pw"), clock=clock)


def shows(token: str, client_id: str = "me") -> dict[str, str]:
    """Return the headers of a request that shows ``token``."""
    return {"authorization": f"Bearer {token}", "client-id": client_id}


def test_a_token_lasts_half_an_hour_and_can_be_refreshed() -> None:
    """Also after its end; the new one is another, and what it was refreshed with is used up."""
    clock = Clock()
    tokens = desk(clock)
    first = tokens.login(PAIR)
    assert first is not None and first["expires_in"] == 1800
    assert tokens.admits(shows(first["access_token"]))
    clock.now = 1801
    assert not tokens.admits(shows(first["access_token"]))
    body = {"refresh_token": first["refresh_token"], "access_token": first["access_token"]}
    second = tokens.refresh(body, shows(first["access_token"]))
    assert second is not None and second["access_token"] != first["access_token"]
    assert tokens.admits(shows(second["access_token"]))
    assert tokens.refresh(body, shows(first["access_token"])) is None


def test_a_refresh_wants_all_that_belongs_together() -> None:
    """The old token in header and body, the client id, and what is not too old."""
    clock = Clock()
    tokens = desk(clock)
    first, other = tokens.login(PAIR), tokens.login(PAIR)
    assert first is not None and other is not None
    body = {"refresh_token": first["refresh_token"], "access_token": first["access_token"]}
    access = first["access_token"]
    assert tokens.refresh(body, shows(other["access_token"])) is None
    assert tokens.refresh(body, shows(access, "you")) is None
    assert tokens.refresh({**body, "access_token": other["access_token"]}, shows(access)) is None
    assert tokens.refresh({**body, "refresh_token": "x"}, shows(access)) is None
    assert tokens.refresh({}, shows(access)) is None
    clock.now = _eka_tokens.REFRESH_S
    assert tokens.refresh(body, shows(access)) is None


@pytest.mark.parametrize("given", [{}, {"client_id": "me"}, {"client_id": "me", "client_secret": "p"}, {"x": 1}])
def test_a_login_wants_the_pair(given: dict[str, object]) -> None:
    """Anything else is refused."""
    assert desk(Clock()).login(given) is None


def test_a_sharing_key_comes_with_the_pair() -> None:
    """By either name, and without it the pair alone is not enough; one that nobody asked for does no harm."""
    shared = Tokens(Secret(""), "me", Secret("pw"), Secret("k"), Clock())
    assert shared.login({**PAIR, "sharing_key": "k"}) is not None
    assert shared.login({**PAIR, "api_key": "k"}) is not None
    assert shared.login(PAIR) is None
    assert shared.login({**PAIR, "sharing_key": "x"}) is None
    assert desk(Clock()).login({**PAIR, "sharing_key": "x"}) is not None


def test_a_jwt_payload_is_taken_where_nothing_is_set() -> None:
    """It proves nothing, so it opens no door that has a lock; and it has to say who is asking."""
    who = {"jwt-payload": '{"b-id":"b","iss":"i"}'}
    free = Tokens(Secret(""), "", Secret(""), clock=Clock())
    assert free.admits(who)
    assert not free.admits({"jwt-payload": '{"iss":"i"}'})
    assert not Tokens(Secret("t"), "", Secret(""), clock=Clock()).admits(who)
    assert not desk(Clock()).admits(who)


def test_who_may_come_in() -> None:
    """A fixed token, one of a login, or, where nothing is set, any token at all but none."""
    fixed = Tokens(Secret("t"), "", Secret(""), clock=Clock())
    assert fixed.admits(shows("t")) and not fixed.admits(shows("x")) and not fixed.admits({})
    assert fixed.login(PAIR) is None
    free = Tokens(Secret(""), "", Secret(""), clock=Clock())
    assert free.admits(shows("x")) and not free.admits({}) and not free.admits({"authorization": "Basic x"})
    assert free.login({}) is not None


def test_the_number_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest makes room."""
    monkeypatch.setattr(_eka_tokens, "MAX_TOKENS", 2)
    tokens = desk(Clock())
    issued = [tokens.login(PAIR) for _ in range(3)]
    assert [tokens.admits(shows(each["access_token"])) for each in issued if each] == [False, True, True]


def test_all_logins_can_be_forgotten() -> None:
    """Then their tokens are worth nothing, and cannot be refreshed."""
    tokens = desk(Clock())
    first = tokens.login(PAIR)
    assert first is not None
    tokens.forget()
    body = {"refresh_token": first["refresh_token"], "access_token": first["access_token"]}
    assert not tokens.admits(shows(first["access_token"]))
    assert tokens.refresh(body, shows(first["access_token"])) is None
