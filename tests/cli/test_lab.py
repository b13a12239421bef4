"""``mediaflow lab``: both vendors as processes, calls to a server, and the whole of a call between them."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import wave
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cli_kit import Running, run, running

PAGE = Path(__file__).parents[2] / "docs" / "lab.md"

CLIP_S = 24.31


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the manual's page that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def exports(line: str) -> dict[str, str]:
    """Return what a line of the lab says to export."""
    return dict(re.findall(r"(\w+)=(\S+)", line))


def stop(process: Running) -> str:
    """Stop a process by a signal, see that it ends well, and return all that it said."""
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 0, process.output
    assert "Traceback" not in process.output
    return process.output


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """End what a test has started."""
    with ExitStack() as stack:
        yield stack


def test_a_whole_call_between_both_vendors(tmp_path: Path, stack: ExitStack) -> None:
    """The rehearsal of docs/lab.md, with ports that are free: the call is answered, streamed, told of, and stored.

    Five processes: EkaScribe, the pipeline as it would run in earnest, with its public address, Vobiz, the client that
    makes the call, and the audit.
    """
    (pipeline_text,) = blocks("yaml")
    free = re.sub(r"(127\.0\.0\.1):\d+", r"\1:0", pipeline_text).replace("  dial:", "  reconnect_s: 30\n  dial:")
    (tmp_path / "clinic.yaml").write_text(f"{free}state: state\n")
    (block,) = (each for each in blocks("console") if "clinic.yaml" in each)
    on_eka, on_pipeline, on_vobiz, on_call = (shlex.split(line)[2:] for line in block.splitlines())
    for name in ("eka", "vobiz"):
        (tmp_path / name).mkdir()
    eka = stack.enter_context(running(tmp_path / "eka", *on_eka, "--listen", "http://127.0.0.1:0"))
    login = exports(eka.wait_for("export EKA_BASE_URL"))
    pipeline = stack.enter_context(running(tmp_path, *on_pipeline, **login))
    control = pipeline.wait_for("control answers at").split()[-1]
    media = pipeline.wait_for("listens at").split()[-1]
    here = {"http://127.0.0.1:8080/vobiz": media.replace("ws", "http", 1), "http://127.0.0.1:8081": control}
    parts = (part.partition("=") for part in on_vobiz)
    led = [f"{public}={here[local]}" if local else public for public, _, local in parts]
    vobiz = stack.enter_context(running(tmp_path / "vobiz", *led, "--listen", "http://127.0.0.1:0", "--speed", "20"))
    account = exports(vobiz.wait_for("export VOBIZ_BASE_URL"))
    made = run(tmp_path, *on_call, **account)
    assert made.returncode == 0, made.stderr
    call = made.stdout.strip()
    vobiz.wait_for(f"call {call}: callback Hangup to https://calls.example.org/…: taken")
    pipeline.wait_for(f"call {call}: ended")
    said = [stop(process) for process in (vobiz, pipeline, eka)]
    record = json.loads(run(tmp_path, "audit", call, "--state", "state", "--json").stdout)
    assert record["status"] == "complete"
    (sink,) = record["sinks"]
    assert sink["delivered"] == sink["received"] > 16_000 * (CLIP_S - 1)
    assert not sink["dropped"] and not sink["concealed"]
    assert [event["event"] for event in record["events"]] == ["StartStream", "Hangup"]
    assert record["events"][1]["cause"] == "Normal Hangup"
    stored = list((tmp_path / "eka" / "mediaflow-data" / "eka").rglob("*.wav"))
    assert sum(seconds(file) for file in stored) == pytest.approx(sink["delivered"] / 16_000)
    everything = "".join(said) + json.dumps(record)
    assert "s3cret" not in everything and "+9198" not in everything and "wrong" not in everything


def seconds(file: Path) -> float:
    """Return how long a file is."""
    with wave.open(str(file)) as reader:
        return float(reader.getnframes() / reader.getframerate())


def test_a_call_to_a_server(tmp_path: Path, stack: ExitStack) -> None:
    """The server has all of it, and the exit code says so; a server that is not there is said too."""
    (tmp_path / "p.yaml").write_text(
        "source: {use: vobiz, listen: 'ws://127.0.0.1:0/vobiz'}\n"
        "transforms: [{use: mulaw_decode}, {use: stereo}]\n"
        "sinks: [{use: disk, path: 'out/{call_id}.wav'}]\n"
    )
    pipeline = stack.enter_context(running(tmp_path, "run", "p.yaml"))
    url = pipeline.wait_for("listens at").split()[-1]
    called = run(tmp_path, "lab", "call", "--speed", "max", "--calls", "2", "--stop", LAB_URL=url)
    assert (called.returncode, called.stderr) == (0, "")
    assert called.stdout.count("complete: the server has read 388,896 of 388,896 samples") == 2
    stop(pipeline)
    assert [round(seconds(file), 2) for file in (tmp_path / "out").glob("*.wav")] == [CLIP_S] * 2
    called = run(tmp_path, "lab", "call", "ws://127.0.0.1:1/s3cret", "--speed", "max")
    assert called.returncode == 1
    assert "failed: " in called.stdout and "s3cret" not in called.stdout + called.stderr


def test_quirks_of_the_lab(tmp_path: Path, stack: ExitStack) -> None:
    """What the service is told to do wrong, it does."""
    quirks = ("--quirk", "streaming_disabled", "--quirk", "error_bursts")
    eka = stack.enter_context(running(tmp_path, "lab", "eka", "--listen", "http://127.0.0.1:0", *quirks))
    login = exports(eka.wait_for("export EKA_BASE_URL"))
    (tmp_path / "p.yaml").write_text(
        "source: {use: file, path: '${AUDIO}'}\n"
        "transforms: [{use: mix}, {use: resample, rate: 16000}]\n"
        "sinks: [{use: eka_raw, base_url: '${EKA_BASE_URL}', token: lab}]\n"
    )
    from mediaflow.lab import CLIP

    done = run(tmp_path, "run", "p.yaml", **login, AUDIO=str(CLIP))
    assert done.returncode == 1 and "session-refused" in done.stdout
    assert "counted quirk-error_bursts" in stop(eka)


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("vobiz", "--listen", "http://0.0.0.0:0"), 2, "set LAB_AUTH_ID and LAB_AUTH_TOKEN"),
        (("vobiz", "--listen", "ws://127.0.0.1:0"), 2, "not a http:// address"),
        (("vobiz", "--route", "calls.example.org"), 2, "--route takes PUBLIC=LOCAL"),
        (("vobiz", "--speed", "0"), 2, "neither a positive number nor max"),
        (("vobiz", "--audio", "none.wav"), 1, "none.wav: No such file"),
        (("eka", "--listen", "http://0.0.0.0:0"), 2, "can be reached by others"),
        (("eka", "--quirk", "none"), 2, "streaming_disabled"),
        (("call",), 2, "Missing argument"),
        (("call", "https://a.example"), 2, "url is not a ws:// or wss:// address"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, arguments: tuple[str, ...], code: int, what: str) -> None:
    """A wrong option ends with 2, what cannot be done with 1, and either with a line that says it."""
    done = run(tmp_path, "lab", *arguments)
    assert done.returncode == code, done.stderr
    assert what in done.stderr and "Traceback" not in done.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """It ends with a line that says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for name in ("vobiz", "eka"):
            done = run(tmp_path, "lab", name, "--listen", address)
            assert done.returncode == 1 and "Traceback" not in done.stderr
            assert "ddress already in use" in done.stderr


def test_an_account_of_ones_own(tmp_path: Path, stack: ExitStack) -> None:
    """Who may ask can be said by the environment, and that token is not shown."""
    own = {"LAB_AUTH_ID": "MA_OWN", "LAB_AUTH_TOKEN": "t0psecret"}
    vobiz = stack.enter_context(running(tmp_path, "lab", "vobiz", "--listen", "http://127.0.0.1:0", **own))
    account = exports(vobiz.wait_for("export VOBIZ_BASE_URL"))
    assert account["VOBIZ_AUTH_ID"] == "MA_OWN"
    env = account | {"VOBIZ_AUTH_TOKEN": "t0psecret"}
    assert "Call not found" in run(tmp_path, "vobiz", "stream", "stop-all", "none", **env).stderr
    assert (
        "HTTP 401" in run(tmp_path, "vobiz", "stream", "stop-all", "none", **env | {"VOBIZ_AUTH_TOKEN": "lab"}).stderr
    )
    assert "t0psecret" not in stop(vobiz)
