"""A simulated call: it is answered, does what its answer says, and is hung up.

    ringing ──▶ the answer URL is asked ──▶ in-progress: its elements one after the other ──▶ completed
       Ring               StartApp                 StartStream, …, StopStream                    Hangup

The people in it have one conversation, the lab's recording, from the moment the call is answered; each fork of it
carries what is being said then.  When the recording is over, the caller hangs up.  At the speed ``max`` there is no
such clock: a fork begins where the recording does, Wait and Dial last as long as there are forks, and a call that
nobody forks waits to be forked or hung up.

Callbacks of a call go out in the order in which things happened, one at a time.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import anyio
import anyio.abc

from .. import http
from ..vobiz import public
from .courier import Courier
from .fork import Fork, Rig
from .order import Order
from .verbs import (
    END_OF_XML,
    NO_ANSWER_URL,
    NORMAL,
    SCHEDULED,
    BadAnswer,
    Cause,
    Dial,
    Hangup,
    Script,
    Speak,
    Verb,
    Wait,
    parse,
)

CLOSE_S = 5.0
"""How long forks may take to close when the call is over, before they are cut off."""

DROP_S = 1.0
"""How long a call lives whose answer is none, as Vobiz documents it."""


class Hook(NamedTuple):
    """An address that wants to hear of something."""

    url: str
    method: Literal["GET", "POST"] = "POST"


class Dialled(NamedTuple):
    """What a call was made with."""

    caller: str
    callee: str
    answer: Hook
    ring: Hook
    hangup: Hook
    time_limit_s: int


class Call:
    """One call, from its ringing to its end."""

    def __init__(self, dialled: Dialled, account_id: str, rig: Rig, courier: Courier) -> None:
        self.id, self.account_id = str(uuid.uuid4()), account_id
        self.dialled = dialled
        self.status: Literal["ringing", "in-progress", "completed"] = "ringing"
        self.cause: Cause | None = None
        self.source = ""
        """Who hung up."""
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.forks: list[Fork] = []
        self._rig, self._courier = rig, courier
        self._begun = 0.0
        self._scope = anyio.CancelScope()
        self._tasks: anyio.abc.TaskGroup
        self._holding = False  # in a Wait or a Dial
        self._news = anyio.Event()
        self._post, self._mail = anyio.create_memory_object_stream[tuple[Hook, dict[str, str]]](math.inf)

    # What others do to it.

    def hang_up(self, cause: Cause = NORMAL, source: str = "API") -> None:
        """End the call; it is over when ``run`` has returned."""
        if self.cause is None:
            self.cause, self.source = cause, source
        self._scope.cancel()

    def fork(self, order: Order, remarks: Iterable[str] = ()) -> Fork:
        """Fork the call's audio as ordered."""
        fork = Fork(order, self, self._rig)
        self.forks.append(fork)
        for remark in remarks:
            self._say(f"stream {fork.id}: {remark}")
        self._tasks.start_soon(fork.run)
        return fork

    def position(self) -> float:
        """Return how far the conversation has come, in seconds."""
        return 0.0 if self._rig.speed == "max" else (anyio.current_time() - self._begun) * self._rig.speed

    def poke(self) -> None:
        """Look again at how the forks are."""
        self._news.set()
        self._news = anyio.Event()

    def tell_of_stream(self, fork: Fork, event: str, facts: Mapping[str, Any]) -> None:
        """Send the stream's status callback."""
        fields = {"Event": event, "StreamID": fork.id, **fork.order.echo()}
        if event == "StartStream":
            fields["ServiceURL"] = fork.order.url
        for fact, name in (("name", "Name"), ("error", "Error")):
            if fact in facts:
                fields[name] = str(facts[fact])
        self._tell(Hook(fork.order.status_url, fork.order.status_method), fields)

    # Its life.

    async def run(self) -> None:
        """Live through the call; returns when it is over and everybody has been told."""
        self._say(f"rings; its answer is at {public(self.dialled.answer.url)}")
        async with anyio.create_task_group() as self._tasks, self._post:
            self._tasks.start_soon(self._deliver)
            self._tell(self.dialled.ring, {"Event": "Ring"})
            with self._scope:
                with anyio.move_on_after(self.dialled.time_limit_s / self._rig.pace) as limit:
                    await self._live()
                if limit.cancelled_caught:
                    self.hang_up(SCHEDULED, "Vobiz")
            await self._end()

    async def _live(self) -> None:
        try:
            script = await self._ask()
        except BadAnswer as error:
            self._say(str(error))
            await anyio.sleep(0.0 if self._rig.speed == "max" else DROP_S / self._rig.speed)
            self.hang_up(error.cause, "Vobiz")
            return
        self._begun, self.answered_at, self.status = anyio.current_time(), time.time(), "in-progress"
        self._say(f"answered: {', '.join(type(verb).__name__.replace('Order', 'Stream') for verb in script.verbs)}")
        for remark in script.remarks:
            self._say(remark)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._converse)
            for verb in script.verbs:
                await self._do(verb)
            self.hang_up(END_OF_XML, "Vobiz")

    async def _ask(self) -> Script:
        hook = self.dialled.answer
        try:
            reply = await self._courier.ask(hook.url, hook.method, self._fields({"Event": "StartApp"}))
        except http.Unreachable as error:
            raise BadAnswer(NO_ANSWER_URL, str(error)) from None
        if not 200 <= reply.status < 300:
            raise BadAnswer(NO_ANSWER_URL, f"HTTP {reply.status}")
        return parse(reply.body, reply.headers.get("content-type", ""))

    async def _converse(self) -> None:
        """Let the caller hang up when the conversation is over."""
        if self._rig.speed != "max":
            await anyio.sleep_until(self._begun + self._rig.seconds / self._rig.speed)
        while not self._said():
            await self._news.wait()
        self.hang_up(NORMAL, "Caller")

    def _said(self) -> bool:
        if any(not fork.over.is_set() for fork in self.forks):
            return False
        if self._rig.speed != "max":
            return True
        return any(fork.heard_out for fork in self.forks) or (self._holding and bool(self.forks))

    async def _do(self, verb: Verb) -> None:
        if isinstance(verb, Order):
            fork = self.fork(verb)
            while verb.bidirectional and not (fork.over.is_set() or (fork.lost and not verb.keep_alive)):
                await self._news.wait()
            if fork.heard_out:
                await anyio.sleep_forever()  # the caller hangs up
        elif isinstance(verb, Hangup):
            self.hang_up(NORMAL, "Vobiz")
            await anyio.lowlevel.checkpoint()
        elif isinstance(verb, Speak):
            await anyio.sleep(0.0 if self._rig.speed == "max" else verb.length_s / self._rig.speed)
        elif isinstance(verb, Dial) or self._rig.speed == "max":
            self._holding = True
            self.poke()
            await anyio.sleep_forever()
        elif isinstance(verb, Wait):
            await anyio.sleep(verb.length_s / self._rig.speed)

    async def _end(self) -> None:
        for fork in self.forks:
            fork.stop()
        with anyio.move_on_after(CLOSE_S):
            for fork in self.forks:
                await fork.over.wait()
        for fork in self.forks:
            if not fork.over.is_set():
                fork.stop()
        cause = self.cause or NORMAL
        self.status, self.ended_at = "completed", time.time()
        self._say(f"hung up by {self.source}: {cause.name} ({cause.code})")
        fields = {
            "Event": "Hangup",
            "HangupCause": cause.name.upper().replace(" ", "_"),
            "HangupCauseName": cause.name,
            "HangupCauseCode": str(cause.code),
            "HangupSource": self.source,
            "Duration": str(round(self.ended_at - (self.answered_at or self.ended_at))),
            "EndTime": stamp(self.ended_at),
        }
        self._tell(self.dialled.hangup, fields)

    # Callbacks.

    def _tell(self, hook: Hook, fields: Mapping[str, str]) -> None:
        if hook.url:
            self._post.send_nowait((hook, self._fields(fields)))

    async def _deliver(self) -> None:
        with self._mail:
            async for hook, fields in self._mail:
                trouble = await self._courier.tell(hook.url, hook.method, fields)
                outcome = f"not taken: {trouble}" if trouble else "taken"
                self._say(f"callback {fields['Event']} to {public(hook.url)}: {outcome}")

    def _fields(self, fields: Mapping[str, str]) -> dict[str, str]:
        return {
            "CallUUID": self.id,
            "RequestUUID": self.id,
            "From": self.dialled.caller,
            "To": self.dialled.callee,
            "Direction": "outbound",
            "CallStatus": self.status,
            "ParentAuthID": self.account_id,
            "Timestamp": stamp(time.time()),
            **fields,
        }

    def _say(self, text: str) -> None:
        self._rig.say(f"call {self.id}: {text}")


def stamp(moment: float) -> str:
    """Write a time as callbacks do."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
