"""Drive any bridge through the chaos profiles, and tell what it loses and where.

::

    vobiz_call  ═══ media WebSocket ═══▶  the bridge  ─┬─ EkaScribe's API, raw or JSON ─▶  eka_ingest → disk
    (a profile's quirks)                  under test   └─ binary PCM, 16 kHz ───────────▶  a plain WebSocket

The bridge is anybody's: it is told once where to send to, and knows nothing of the lab.  What the carrier says is a
watermark (``watermark``), so what was stored tells which milliseconds of which track are missing, twice or misread.

Nothing is asked of the bridge's own logs.  How long it may take to store is ``patience_s``; a scenario is over once
every stream that it has opened is closed and nothing has been opened for ``SETTLE_S``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from .. import config, http, websocket
from ..errors import MediaflowError, SinkError, SourceError
from ..frame import AudioFormat
from ..listening import reserved
from ..plugins import Plugins
from ..runner import Runner
from ..wav import WavReader, WavWriter
from ..websocket import Address, Closed, WebSocket
from . import watermark
from .flaw import Flaw, Said, Span, examine
from .profile import Profile

SETTLE_S = 0.5
"""How long nothing may be open before the scenario is taken for over."""

END_S = 10.0
"""How long after its last audio a bridge may take to end its session at EkaScribe."""

POLL_S = 1.5
"""How long a bridge may take to ask for the result once more: documents say about once a second."""

_LOOK_S = 0.02

HINTS = {
    "nothing": "look at the bridge's own log: was the call taken, and did it send to the lab's address?",
    "track": "name tracks by media.track, and carry both",
    "lost": "keep what came, fill what did not with silence, and flush decoder and resampler at the end",
    "added": "read nothing behind the end of a call",
    "interleaved": "take the tracks apart by media.track, align them by timestamp, and mix",
    "shift": "place audio by its timestamp: put silence where a gap is",
    "doubled": "drop a frame whose chunk and timestamp were there already",
    "reordered": "order frames by chunk",
    "byte-order": "listen to the first speech: one byte order only is smooth",
    "law": "decode by the encoding that start names: µ-law and A-law differ",
    "rate": "take the rate from start, and resample to what the other side expects",
    "undecoded": "decode µ-law to 16-bit PCM",
    "sessions": "one session per callId, whatever the socket",
    "unfinished": "call End behind the last audio: without it nothing is processed",
    "carrier": "keep the socket open and read until the carrier closes it",
}

Judgement = Literal["passed", "failed"]


class Verdict(NamedTuple):
    """What came of one scenario."""

    profile: Profile
    flaws: tuple[Flaw, ...]
    """What the bridge did wrong."""
    excused: tuple[Flaw, ...]
    """What the profile allows."""

    @property
    def judgement(self) -> Judgement:
        """``passed`` if nothing is wrong."""
        return "failed" if self.flaws else "passed"

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        return {
            "scenario": self.profile.name,
            "rehearses": self.profile.rehearses,
            "verdict": self.judgement,
            "flaws": [flaw._asdict() for flaw in self.flaws],
            "excused": [flaw._asdict() for flaw in self.excused],
            "hint": self.hint,
        }

    @property
    def hint(self) -> str:
        """How to mend the first flaw."""
        return (self.profile.hint or HINTS[self.flaws[0].kind]) if self.flaws else ""


class Recording(NamedTuple):
    """One stream that the bridge sent somewhere."""

    pcm: bytes
    rate: int


class Certifier:
    """Calls a bridge, profile by profile; ``certifying`` gives one that is listening."""

    def __init__(
        self,
        url: str,
        plugins: Plugins,
        tasks: TaskGroup,
        folder: Path,
        eka_url: str,
        speed: float | Literal["max"],
        patience_s: float,
    ) -> None:
        self.url, self.eka_url, self.pcm_url = url, eka_url, ""
        self._plugins, self._tasks, self._folder = plugins, tasks, folder
        self._speed, self._patience_s = speed, patience_s
        self._service: object = None  # with what misbehaviour EkaScribe's place runs
        self._ingest: Runner
        self._over = anyio.Event()
        self._streams: list[_Stream] = []
        self._number = 0

    async def certify(self, profile: Profile) -> Verdict:
        """Carry one call through the bridge and judge what was stored.

        Raises ``SinkError`` if the bridge does not even take the first.
        """
        await self._serve_eka(profile)
        self._number += 1
        self._streams = []
        strangers, before = set(self._ingest.sessions), self._ingest.ended  # late ones of the scenario before
        call = self._call(profile)
        await call.run()
        sink = call.accounts[0]["sinks"][0]
        if self._number == 1 and sink["failure"] and sink["failure"]["code"] in ("unreachable", "refused"):
            raise SinkError(sink["failure"]["code"], f"the bridge takes no call: {sink['failure']['text']}")
        open_streams = await self._settle(before)
        ended = self._ingest.accounts[len(self._ingest.accounts) - (self._ingest.ended - before) :]
        accounts = sorted((each for each in ended if each["call"] not in strangers), key=lambda each: each["started"])
        stored = [
            *_stored(accounts),
            *(Recording(bytes(each.pcm), watermark.RATE) for each in self._streams if each.pcm),
        ]
        flaws = [*_of_carrier(sink), *_compare(stored, profile, sink), *await self._unfinished(accounts)]
        if open_streams:
            text = f"{open_streams} of its streams were open {self._patience_s:g} s after the call"
            flaws.append(Flaw("unfinished", text))
        return _judge(profile, flaws)

    async def _serve_eka(self, profile: Profile) -> None:
        """Run EkaScribe's place as the profile wants it; what runs so already goes on, for bridges ask it later too."""
        if profile.service == self._service:
            return
        await self.stop()
        file = self._folder / "ingest.yaml"
        file.write_text(
            f"source: {{use: eka_ingest, listen: '{self.eka_url}'}}\n"
            f"sinks: [{{use: disk, path: '{self._folder}/eka/{{call_id}}.wav'}}]\n"
            f"state: '{self._folder}'\n"
        )
        self._ingest = Runner(profile.ingest(config.load(str(file), self._plugins, {})), self._plugins)
        self._service, self._over = profile.service, anyio.Event()
        self._tasks.start_soon(self._run, self._ingest, self._over)
        await self._ingest.up.wait()

    async def _run(self, ingest: Runner, over: anyio.Event) -> None:
        await ingest.run()
        over.set()

    async def stop(self) -> None:
        """Stop EkaScribe's place, once a bridge has had the time to fetch its result."""
        if self._service is not None:
            if self._ingest.ended:
                await anyio.sleep(POLL_S)
            self._ingest.stop()
            await self._over.wait()
            self._service = None

    def _call(self, profile: Profile) -> Runner:
        audio = self._folder / "call.wav"
        audio.unlink(missing_ok=True)
        _write_call(audio, profile)
        env = {"LAB_URL": self.url, "LAB_AUDIO": str(audio), "LAB_SPEED": str(self._speed)}
        pipeline = config.load(str(files("mediaflow_pipelines") / "lab_call.yaml"), self._plugins, env)
        source: Any = pipeline.source
        id = f"certify-{os.getpid()}-{self._number}-{profile.name}"
        source = msgspec.structs.replace(source, id=id)
        pipeline = msgspec.structs.replace(pipeline, source=source, state=str(self._folder))
        return Runner(profile.call(pipeline, self.url, self._plugins), self._plugins)

    async def _settle(self, before: int) -> int:
        """Wait until everything that the bridge has opened is closed, and return how much is not."""
        quiet = 0.0
        with anyio.move_on_after(self._patience_s):
            while quiet < SETTLE_S:
                await anyio.sleep(_LOOK_S)
                begun = self._ingest.ended > before or self._streams
                quiet = quiet + _LOOK_S if begun and not self._open_streams else 0.0
        return self._open_streams

    @property
    def _open_streams(self) -> int:
        return len(self._ingest.sessions) + sum(stream.open for stream in self._streams)

    async def _unfinished(self, accounts: Iterable[dict[str, Any]]) -> list[Flaw]:
        """Ask as a client would whether the sessions were ended."""
        flaws = []
        async with http.connect(self.eka_url) as client:
            for account in accounts:
                path = f"/voice/v1/sessions/{account['call']}"
                ended = False
                with anyio.move_on_after(END_S):
                    while not ended:
                        ended = await _state(client, path) != "initialized"
                        await anyio.sleep(_LOOK_S)
                if not ended:
                    flaws.append(Flaw("unfinished", "the session was never ended: EkaScribe would process nothing"))
        return flaws

    async def take_pcm(self, socket: WebSocket) -> None:
        """Keep what comes over the plain WebSocket."""
        stream = _Stream()
        self._streams.append(stream)
        try:
            while True:
                message = await socket.recv()
                stream.pcm += message if isinstance(message, bytes) else b""
        except Closed:
            pass
        finally:
            stream.open = False


class _Stream:
    """What one connection to the plain WebSocket brings."""

    def __init__(self) -> None:
        self.pcm, self.open = bytearray(), True


@asynccontextmanager
async def certifying(
    url: str,
    plugins: Plugins,
    *,
    speed: float | Literal["max"] = 1.0,
    eka: str = "http://127.0.0.1:8090",
    pcm: str = "ws://127.0.0.1:8091/pcm",
    patience_s: float = 15.0,
) -> AsyncIterator[Certifier]:
    """Give a certifier for the bridge at ``url``, which is to send to ``eka`` or to ``pcm``.

    A port 0 is replaced by one that is free, and stays: ``eka_url`` and ``pcm_url`` of the certifier tell.  Raises
    ``SourceError`` where an address cannot be listened at.
    """
    address = Address.parse(pcm)
    if not (address.is_loopback and Address.parse(eka, ("http",)).is_loopback):
        raise ValueError("what listens here asks for no token, so it is for bridges on this machine: use 127.0.0.1")
    failure: Exception | None = None
    with _fixed(eka) as eka_url, tempfile.TemporaryDirectory(prefix="mediaflow-lab-") as folder:
        async with anyio.create_task_group() as tasks:
            certifier = Certifier(url, plugins, tasks, Path(folder), eka_url, speed, patience_s)
            try:
                certifier.pcm_url = address.url(await tasks.start(_serve, certifier.take_pcm, address))
                yield certifier
                await certifier.stop()
            except Exception as error:  # raised below, where the task group does not wrap it
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve(
    take: Callable[[WebSocket], Awaitable[None]], address: Address, *, task_status: TaskStatus[int]
) -> None:
    try:
        await websocket.serve(take, address, admit=lambda path: None, listening=task_status.started)
    except OSError as error:
        raise SourceError(f"cannot listen at {address.host}:{address.port}: {error.strerror or error}") from None


@contextmanager
def _fixed(url: str) -> Iterator[str]:
    """Choose the port once: the service is started anew for each scenario, and the bridge knows one address."""
    address = Address.parse(url, ("http",))
    if address.port:
        yield url
    else:
        with reserved(address.host) as port:
            yield address.url(port)


async def _state(client: http.Client, path: str) -> str:
    reply = await client.request("GET", path, headers={"Authorization": "Bearer lab"})
    try:
        return str(reply.json(dict[str, Any]).get("status"))
    except MediaflowError:
        return ""


def _write_call(path: Path, profile: Profile) -> None:
    """Write what is said: always two tracks, of which the call may select one."""
    import numpy as np

    sounds = [
        np.frombuffer(watermark.make(track, profile.seconds, profile.rate), "<i2") for track in ("inbound", "outbound")
    ]
    writer = WavWriter(path, AudioFormat("s16le", profile.rate, 2))
    writer.write(np.stack(sounds, axis=1).tobytes())
    writer.sync(durable=False)
    writer.close()


def _stored(accounts: Iterable[dict[str, Any]]) -> Iterator[Recording]:
    """Yield what EkaScribe's place has stored, session by session."""
    for account in accounts:
        for file in account["sinks"][0]["outcome"].get("files", ()):
            with WavReader(Path(file["path"])) as reader:
                yield Recording(reader.read(1 << 30), reader.format.sample_rate)


def _of_carrier(sink: dict[str, Any]) -> Iterator[Flaw]:
    if sink["failure"]:
        code, text = sink["failure"]["code"], sink["failure"]["text"]
        yield Flaw("carrier", f"the carrier could not end the call as it wanted: {code}: {text}")


def _compare(stored: list[Recording], profile: Profile, sink: dict[str, Any]) -> Iterator[Flaw]:
    spans: dict[str, list[Span]] = {
        track: [(start, end) for start, end in each] for track, each in sink["outcome"].get("withheld_ms", {}).items()
    }
    said = Said(profile.track_names, profile.seconds, profile.encoding, profile.rate, spans)
    if len(stored) > profile.expect.sessions:
        yield Flaw("sessions", f"one call became {len(stored)} sessions where {profile.expect.sessions} may be")
    rate = stored[0].rate if stored else watermark.RATE
    yield from examine(b"".join(each.pcm for each in stored), rate, said)


def _judge(profile: Profile, flaws: Iterable[Flaw]) -> Verdict:
    wrong: list[Flaw] = []
    excused: list[Flaw] = []
    for flaw in flaws:
        allowed = flaw.kind in profile.expect.flaws or (flaw.kind == "lost" and flaw.ms <= profile.expect.lost_ms)
        (excused if allowed else wrong).append(flaw)
    return Verdict(profile, tuple(wrong), tuple(excused))
