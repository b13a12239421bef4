"""``mediaflow vobiz`` does at the carrier what it says, as the account that the environment names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_kit import run
from vobiz_service import ACCOUNT, CALL, ROOT, TOKEN, Service, running

URL = "wss://calls.example.org/vobiz/s3cret"


@pytest.fixture
def service() -> Iterator[Service]:
    """Run a service."""
    with running() as service:
        yield service


def _env(service: Service) -> dict[str, str]:
    return {"VOBIZ_AUTH_ID": ACCOUNT, "VOBIZ_AUTH_TOKEN": TOKEN, "VOBIZ_BASE_URL": service.url}


def test_streams(service: Service, tmp_path: Path) -> None:
    """A stream is started, listed, shown and stopped; its address is nowhere printed beyond the host."""
    env = _env(service)
    started = run(
        tmp_path, "vobiz", "stream", "start", CALL, "--bidirectional", "--header", "clinic=7",
        "--status-url", "https://calls.example.org/status", **env, VOBIZ_STREAM_URL=URL,
    )  # fmt: skip
    assert (started.returncode, started.stdout, started.stderr) == (0, "stream-0\n", "")
    assert service.seen[0].body == {
        "service_url": URL,
        "audio_track": "inbound",
        "bidirectional": "true",
        "content_type": "audio/x-mulaw;rate=8000",
        "stream_timeout": 86_400,
        "status_callback_url": "https://calls.example.org/status",
        "status_callback_method": "POST",
        "extra_headers": "clinic=7",
    }
    listed = run(tmp_path, "vobiz", "stream", "list", CALL, **env)
    shown = run(tmp_path, "vobiz", "stream", "get", CALL, "stream-0", **env)
    assert listed.stdout == shown.stdout
    assert json.loads(shown.stdout)["service_url"] == "wss://calls.example.org/…"
    assert run(tmp_path, "vobiz", "stream", "stop", CALL, "stream-0", **env).returncode == 0
    assert run(tmp_path, "vobiz", "stream", "start", CALL, "--url", URL, **env).returncode == 0
    assert service.seen[-1].body["audio_track"] == "both"
    assert run(tmp_path, "vobiz", "stream", "stop-all", CALL, **env).returncode == 0
    assert not service.streams
    assert (service.seen[-1].method, service.seen[-1].path) == ("DELETE", f"{ROOT}/Call/{CALL}/Stream/")


def test_calls(service: Service, tmp_path: Path) -> None:
    """A call is made and hung up, and hanging up what is over says so."""
    env = _env(service)
    made = run(
        tmp_path, "vobiz", "call", "make", "--from", "+911140001000", "--to", "+919800000000",
        "--answer-url", "https://calls.example.org/answer", **env,
    )  # fmt: skip
    assert (made.returncode, made.stdout) == (0, "new-call\n")
    assert service.seen[0].body["to"] == "+919800000000"
    assert run(tmp_path, "vobiz", "call", "hang-up", "new-call", **env).stdout == ""
    again = run(tmp_path, "vobiz", "call", "hang-up", "new-call", **env)
    assert (again.returncode, again.stdout) == (0, "it was over already\n")


def test_a_refusal(service: Service, tmp_path: Path) -> None:
    """What Vobiz refuses is said in a line, and the exit code is 1."""
    done = run(tmp_path, "vobiz", "stream", "get", CALL, "none", **_env(service))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "mediaflow: Vobiz refused with HTTP 404, not-found: Stream not found (request a1)\n"
    wrong = run(tmp_path, "vobiz", "stream", "list", CALL, **_env(service) | {"VOBIZ_AUTH_TOKEN": "wr0ng"})
    assert wrong.returncode == 1 and "HTTP 401" in wrong.stderr and "wr0ng" not in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "why"),
    [
        (["list", CALL], {"VOBIZ_AUTH_TOKEN": ""}, "VOBIZ_AUTH_TOKEN must be set"),
        (["list", " "], {}, "the call's id is empty"),
        (["start", CALL], {}, "Missing option '--url'"),
        (["start", CALL, "--url", "https://x"], {}, "ws:// or wss://"),
        (["start", CALL, "--url", URL, "--bidirectional", "--track", "both"], {}, "say inbound"),
        (["start", CALL, "--url", URL, "--header", "clinic"], {}, "--header takes K=V"),
    ],
)
def test_wrong_usage(service: Service, tmp_path: Path, arguments: list[str], env: dict[str, str], why: str) -> None:
    """It is said before anything is asked of Vobiz, and the exit code is 2."""
    done = run(tmp_path, "vobiz", "stream", *arguments, **_env(service) | env)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert not service.seen
