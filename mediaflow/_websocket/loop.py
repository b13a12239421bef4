"""An event loop of asyncio's that waits in the hub: what comes on a WebSocket does not pass through it.

A loop that watches the poller's file descriptor is woken for every frame, by an epoll instance inside another, only to
call the hub; up to some hundred calls that is nearly every frame on its own.  At 100 calls that took 4 of the 48 µs of
processor time a frame, where a bridge in C takes 37.  Here it is the other way round.  The loop is the standard
library's, all of it; only its selector waits where the sockets are, and has its own file descriptors watched there::

    select ── Hub.wait ── epoll instance ─┬─ socket     a turn, and on with the wait
                                          ├─ socket
                                          ├─ the selector's own epoll instance ──┐
                                          └─ the clock: the loop's next time ────┼─▶ return: the loop has its turn
                                             a callback that a turn brought ─────┘
"""

from __future__ import annotations

import asyncio
import math
import selectors
import signal
import threading
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Any, TypeVarTuple, Unpack

from .hub import AsyncioHub, Hub, Member

_Args = TypeVarTuple("_Args")


class EventLoop(asyncio.SelectorEventLoop):
    """To be run by ``anyio.run`` or ``asyncio.Runner``, as their ``loop_factory``."""

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        self.hub = selector.hub = _Hub(self)
        selector.others = _Others(selector.fileno(), self.hub)
        self.hub.poller.watch_always(selector.others)
        self._be_woken_by_signals()

    # Whatever is to be done besides comes by one of these, or wakes the selector.

    def call_soon(
        self, callback: Callable[[Unpack[_Args]], object], *args: *_Args, context: Context | None = None
    ) -> asyncio.Handle:
        """Call it in the loop's next turn, which ends the wait."""
        self.hub.poller.wanted = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Args]], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call it at that time, which may be before the end of the wait."""
        self.hub.poller.wanted = True
        return super().call_at(when, callback, *args, context=context)

    def remove_signal_handler(self, sig: int) -> bool:
        """Have the loop no longer handle that signal; the others end the wait all the same."""
        removed = super().remove_signal_handler(sig)
        self._be_woken_by_signals()
        return removed

    def _be_woken_by_signals(self) -> None:
        """Have each signal leave a byte for the selector: one that comes just before the wait would not end it.

        Of a thousand that was one or two, and Ctrl-C seemed to do nothing.  The library asks for it only while it has
        handlers of its own, on Unix.
        """
        if threading.current_thread() is threading.main_thread() and not self.is_closed():
            signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Give all file descriptors back."""
        if threading.current_thread() is threading.main_thread() and not self.is_closed():
            signal.set_wakeup_fd(-1)
        super().close()
        self.hub.poller.close()


class _Hub(AsyncioHub):
    def _watch(self) -> None:
        """It is waited there anyway."""

    def _detach(self) -> None:
        self._disarm()


class _Others(Member):
    """All that the loop has registered itself."""

    def __init__(self, fd: int, hub: Hub) -> None:
        super().__init__(fd, hub)
        self.ready = False

    def happened(self, readable: bool, writable: bool) -> None:
        self.ready = self.hub.poller.wanted = True


class _Selector(selectors.EpollSelector):
    hub: _Hub
    others: _Others

    def select(self, timeout: float | None = None) -> list[Any]:
        self.others.ready = False
        self.hub.context.run(self.hub.wait, math.inf if timeout is None else monotonic() + timeout)
        return super().select(0) if self.others.ready else []
