"""``mediaflow lab certify`` and ``run --lab --chaos`` as commands: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_kit import run, running

from mediaflow.listening import reserved

PIPELINE = str(Path(__file__).parents[2] / "pipelines" / "vobiz_to_eka.yaml")
FAST = ("--speed", "max", "--pcm", "ws://127.0.0.1:0/pcm")


def test_a_bridge_is_certified(tmp_path: Path) -> None:
    """Our own, as a process: a table for people, JSON for programs, and 0 where nothing is lost."""
    with (
        reserved("127.0.0.1") as port,  # which the bridge has to know before the lab listens there
        running(
            tmp_path,
            "run",
            PIPELINE,
            VOBIZ_LISTEN="ws://127.0.0.1:0/vobiz",
            EKA_BASE_URL=(eka := f"http://127.0.0.1:{port}"),
            EKA_TOKEN="any",
        ) as bridge,
    ):
        url = bridge.wait_for("listens at").split()[-1]
        done = run(tmp_path, "lab", "certify", url, "one_track", "mislabelled_law", *FAST, "--eka", eka)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"the bridge is expected to send to {eka} or ws://127.0.0.1:" in done.stderr
        table, rows = done.stdout.splitlines()[0], done.stdout.splitlines()[1:]
        assert table.split() == ["scenario", "verdict", "what", "was", "lost,", "and", "where", "what", "to", "do"]
        assert rows[0].split()[:2] == ["one_track", "passed"]
        assert "allowed: µ-law and A-law were taken for each other" in rows[1]
        assert rows[-1] == "2 of 2 scenarios passed"

        strict = tmp_path / "strict.yaml"
        strict.write_text("rehearses: static\ntracks: inbound\ncarrier: {quirks: [mislabelled_law]}\n")
        done = run(tmp_path, "lab", "certify", url, str(strict), *FAST, "--eka", eka, "--json")
        assert done.returncode == 1
        (verdict,) = json.loads(done.stdout)
        assert (verdict["scenario"], verdict["verdict"], verdict["rehearses"]) == ("strict", "failed", "static")
        assert [flaw["kind"] for flaw in verdict["flaws"]] == ["law"]
        assert verdict["hint"].startswith("decode by the encoding")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("ws://127.0.0.1:1", "plain", "--eka", "http://127.0.0.1:0", *FAST), 1, "the bridge takes no call"),
        (("ws://127.0.0.1:1", "plian", *FAST), 2, "neither a file nor a profile"),
        (("ws://127.0.0.1:1", "plain", "--eka", "127.0.0.1", *FAST), 2, "is not a http:// address"),
        (("ws://127.0.0.1:1", "plain", "--eka", "http://0.0.0.0:8090", *FAST), 2, "asks for no token"),
        (("http://127.0.0.1:1", "plain", "--eka", "http://127.0.0.1:0", *FAST), 2, "is not a ws:// or wss:// address"),
    ],
)
def test_what_cannot_be_certified(tmp_path: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    """A bridge that is not there fails; a wrong name or address is wrong usage."""
    done = run(tmp_path, "lab", "certify", *arguments)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr


def test_chaos_in_a_rehearsal(tmp_path: Path) -> None:
    """``run --lab --chaos`` says whether it came out as it must, and without --lab it is refused."""
    done = run(tmp_path, "run", PIPELINE, "--lab", "--speed", "max", "--chaos", "skip")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "chaos skip: all came out as it must"
    greedy = tmp_path / "greedy.yaml"
    greedy.write_text("rehearses: nothing\nexpect: {gaps_ms: 100}\n")
    done = run(tmp_path, "run", PIPELINE, "--lab", "--speed", "max", "--chaos", str(greedy))
    assert done.returncode == 1
    assert "chaos greedy: the ledger tells of 0 ms of gaps on inbound, not of 100" in done.stdout
    done = run(tmp_path, "run", PIPELINE, "--chaos", "skip")
    assert (done.returncode, "add --lab" in done.stderr) == (2, True)


def test_a_simulated_call_misbehaves(tmp_path: Path) -> None:
    """``lab call --chaos`` calls as the profile says, and the server notices."""
    env = {"VOBIZ_LISTEN": "ws://127.0.0.1:0/vobiz"}
    with running(tmp_path, "run", str(Path(PIPELINE).with_name("vobiz_to_disk.yaml")), **env) as server:
        url = server.wait_for("listens at").split()[-1]
        done = run(tmp_path, "lab", "call", url, "--speed", "max", "--chaos", "reconnect_lossy")
        assert done.returncode == 0, done.stdout + done.stderr
        server.wait_for("ended")
        server.process.terminate()
        assert server.end() == 0
        assert "counted reconnected: 1" in server.output
    done = run(tmp_path, "lab", "call", url, "--chaos", "reconect")
    assert (done.returncode, "neither a file nor a profile" in done.stderr) == (2, True)
