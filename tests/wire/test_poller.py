"""The poller, over pairs of real sockets, against what `select.epoll` and the sockets themselves say."""

from __future__ import annotations

import ctypes
import errno
import functools
import gc
import itertools
import math
import operator
import os
import select
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, strategies as st

from mediaflow._wire.poller import BROKEN, NOTHING, Poller, Watched


def nothing() -> None:
    pass


@contextmanager
def signals(handle: Callable[[], None]) -> Iterator[None]:
    """Send this thread signals until left: one alone might come before what it is to end has begun."""
    over, receiver = threading.Event(), threading.get_ident()

    def send() -> None:
        while not over.wait(0.01):
            signal.pthread_kill(receiver, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: handle())
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def fail() -> None:
    raise ZeroDivisionError


class Socket(Watched):
    """Keeps what happened, and does what it is told then."""

    def __init__(self, fd: int) -> None:
        self.events: list[tuple[bool, bool]] = []
        self.errors: list[Exception] = []
        self.then: Callable[[], None] = nothing

    def happened(self, readable: bool, writable: bool) -> None:
        self.events.append((readable, writable))
        self.then()

    def broke(self, error: Exception) -> None:
        self.errors.append(error)


def turn(poller: Poller, waits: bool = False) -> int:
    """Have it tell what it finds, and return how many that was."""
    found = poller.find(waits)
    poller.tell()
    return found


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Twenty connections; the first of each is ours."""
    made = [socket.socketpair() for _ in range(20)]
    for ours, _ in made:
        ours.setblocking(False)
    yield made
    for pair in made:
        for end in pair:
            end.close()


Pairs = list[tuple[socket.socket, socket.socket]]


def test_a_turn_tells_all_that_are_ready_and_no_other(pairs: Pairs) -> None:
    """Its own descriptor is readable exactly while a turn would find something."""
    poller = Poller()
    sockets = [Socket(ours.fileno()) for ours, _ in pairs]
    for each in sockets:
        poller.watch(each, True, False)
    assert len(poller) == 20
    outer = select.epoll()
    outer.register(poller.fd, select.EPOLLIN)
    assert turn(poller) == 0 and outer.poll(0) == []
    for _, theirs in pairs[::3]:
        theirs.send(b"x")
    assert outer.poll(0) == [(poller.fd, select.EPOLLIN)]
    assert turn(poller) == 7
    assert [each.events for each in sockets] == [[(True, False)] if index % 3 == 0 else [] for index in range(20)]
    assert turn(poller) == 0 and outer.poll(0) == []  # it is told once
    for each, (_, theirs) in zip(sockets, pairs, strict=True):
        poller.receive(each)
        theirs.send(b"y")
    assert outer.poll(0) == [(poller.fd, select.EPOLLIN)]
    assert turn(poller) == 20
    outer.close()


def test_what_is_there_already_is_told_to_who_watches_anew(pairs: Pairs) -> None:
    """Also what a read has left behind, which is seen by its filling the buffer."""
    poller = Poller()
    ours, theirs = pairs[0]
    each = Socket(ours.fileno())
    theirs.send(bytes(70_000))
    poller.watch(each, True, False)
    assert turn(poller) == 1 and turn(poller) == 0
    poller.watch(each, False, False)
    poller.watch(each, True, False)
    assert turn(poller) == 1
    assert poller.receive(each) == len(poller.buffer)
    assert turn(poller) == 1
    assert poller.receive(each) == 70_000 - len(poller.buffer)
    assert turn(poller) == 0
    poller.leave(each)
    theirs.send(b"x")
    poller.watch(each, True, False)
    assert turn(poller) == 1


def test_an_end_behind_data_is_told_as_well(pairs: Pairs) -> None:
    """Both may have come before the turn, and are one event then."""
    poller = Poller()
    ours, theirs = pairs[0]
    each = Socket(ours.fileno())
    poller.watch(each, True, False)
    theirs.send(b"last")
    theirs.shutdown(socket.SHUT_WR)
    assert turn(poller) == 1 and poller.receive(each) == 4
    assert turn(poller) == 1 and poller.receive(each) == 0
    assert each.events == [(True, False)] * 2
    assert turn(poller) == 0


def test_what_is_received_and_sent(pairs: Pairs) -> None:
    """Bytes, a full socket, an end and a broken connection each have their answer."""
    poller = Poller()
    ours, theirs = pairs[0]
    each = Socket(ours.fileno())
    assert poller.receive(each) == NOTHING
    theirs.send(b"hello")
    assert poller.receive(each) == 5 and poller.buffer[:5] == b"hello"
    theirs.send(bytes(range(256)) * 300)
    assert poller.receive(each) == len(poller.buffer) == 65_536
    assert bytes(poller.buffer) == bytes(range(256)) * 256
    assert poller.receive(each) == 256 * 44
    assert poller.send(each, b"abc") == 3 and theirs.recv(9) == b"abc"
    sent = 0
    while (size := poller.send(each, bytes(100_000))) > 0:
        sent += size
    assert size == NOTHING
    got = 0
    while got < sent:
        got += len(theirs.recv(1 << 20))
    theirs.shutdown(socket.SHUT_WR)
    assert poller.receive(each) == 0
    theirs.close()
    assert poller.send(each, b"x") == BROKEN


def test_a_reset_is_told_to_who_reads_and_to_who_writes() -> None:
    """Data that came before is had first; watched for nothing, it is still told."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    ours.setblocking(False)
    poller, each = Poller(), Socket(ours.fileno())
    poller.watch(each, False, False)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    assert turn(poller) == 1 and each.events == [(True, True)]
    assert poller.receive(each) == BROKEN
    poller.leave(each)
    ours.close()


def test_watching_for_room(pairs: Pairs) -> None:
    """Writable is told while it is asked for and there is room."""
    poller = Poller()
    ours, theirs = pairs[0]
    each = Socket(ours.fileno())
    poller.watch(each, True, True)
    assert (each.readable, each.writable) == (True, True)
    assert turn(poller) == 1 and each.events == [(False, True)]
    while poller.send(each, bytes(100_000)) > 0:
        pass
    assert turn(poller) == 0
    theirs.recv(1 << 20)
    assert turn(poller) == 1 and turn(poller) == 0
    poller.watch(each, True, False)
    poller.watch(each, True, True)
    assert turn(poller) == 1
    poller.watch(each, True, False)
    assert turn(poller) == 0
    assert (each.readable, each.writable) == (True, False)


def test_one_that_breaks_does_not_stop_the_others(pairs: Pairs) -> None:
    """It is told what it raised, and all the others of the turn have theirs."""
    poller = Poller()
    sockets = [Socket(ours.fileno()) for ours, _ in pairs]

    for each, (_, theirs) in zip(sockets, pairs, strict=True):
        each.then = fail
        poller.watch(each, True, False)
        theirs.send(b"x")
    assert turn(poller) == 20
    assert [len(each.errors) for each in sockets] == [1] * 20
    assert isinstance(sockets[0].errors[0], ZeroDivisionError)


def test_one_that_cannot_even_be_told_is_let_go_of(pairs: Pairs) -> None:
    """For what has become ready is told once: the others of the turn must hear of it."""

    class Hopeless(Socket):
        def broke(self, error: Exception) -> None:
            raise error

    poller = Poller()
    sockets = [(Hopeless if index % 2 else Socket)(ours.fileno()) for index, (ours, _) in enumerate(pairs)]
    for each, (_, theirs) in zip(sockets, pairs, strict=True):
        each.then = fail
        poller.watch(each, True, False)
        theirs.send(b"x")
    assert turn(poller) == 20
    assert [len(each.events) for each in sockets] == [1] * 20
    assert [len(each.errors) for each in sockets] == [1, 0] * 10
    assert len(poller) == 10


def test_who_leaves_in_a_turn_is_told_nothing_more_in_it(pairs: Pairs) -> None:
    """Whoever comes first sends all others away, and lets go of them: their events of this turn come to nobody."""
    poller = Poller()
    sockets = [Socket(ours.fileno()) for ours, _ in pairs]
    alive = weakref.WeakSet(sockets)

    def alone() -> None:
        for each in list(poller_sockets):
            if not each.events:
                poller.leave(each)
                poller_sockets.remove(each)
        gc.collect()

    poller_sockets = sockets
    for each, (_, theirs) in zip(sockets, pairs, strict=True):
        each.then = alone
        poller.watch(each, True, False)
        theirs.send(b"x")
    del each
    assert turn(poller) == 20
    assert len(poller) == len(sockets) == 1
    gc.collect()
    assert len(alive) == 1


def test_who_leaves_before_it_is_told_is_told_nothing(pairs: Pairs) -> None:
    """Found and let go of, also by who found it."""
    poller = Poller()
    sockets = [Socket(ours.fileno()) for ours, _ in pairs]
    alive = weakref.WeakSet(sockets)
    for each, (_, theirs) in zip(sockets, pairs, strict=True):
        each.then = fail
        poller.watch(each, True, False)
        theirs.send(b"x")
    assert poller.find() == 20
    for each in sockets:
        poller.leave(each)
    del each
    sockets.clear()
    gc.collect()
    assert len(alive) == 20  # the events point to them
    poller.tell()
    gc.collect()
    assert len(poller) == len(alive) == 0


def test_who_is_read_next_is_who_was_last_time(pairs: Pairs) -> None:
    """Each is followed by one and follows one; whoever leaves is forgotten, and so is who has left already."""
    poller = Poller()
    sockets = [Socket(ours.fileno()) for ours, _ in pairs]
    for each in sockets:
        poller.watch(each, True, False)

    def expected(number: int) -> int | None:
        """Read it, and return which is expected then."""
        poller.receive(sockets[number])
        return None if poller.next is None else sockets.index(poller.next)  # type: ignore[arg-type]

    assert poller.next is None
    assert [expected(number) for number in (0, 1, 2, 3, 0, 1, 2, 3)] == [None] * 4 + [1, 2, 3, 0]
    assert [expected(number) for number in (0, 0, 1)] == [1, 1, 2]
    assert [expected(number) for number in (3, 1, 2, 0, 1, 3)] == [0, 3, None, None, 2, None]
    assert [expected(number) for number in (2, 0, 1, 3)] == [0, 1, 3, 2]
    poller.leave(sockets[1])
    assert [expected(number) for number in (0, 1, 3)] == [None, None, 0]
    poller.leave(sockets[3])
    assert poller.next is None and [expected(number) for number in (2, 0, 2)] == [None, None, 0]


@given(st.lists(st.tuples(st.integers(0, 19), st.booleans()), max_size=60))
def test_nothing_points_to_who_has_left(moves: list[tuple[int, bool]]) -> None:
    """Connections come, are read, leave and are gone, in any order; a sanitizer sees whoever goes on using one."""
    poller = Poller()
    fds = [socket.socketpair() for _ in range(20)]
    alive: dict[int, Socket] = {}
    for number, leaves in moves:
        if number not in alive:
            fds[number][0].setblocking(False)
            alive[number] = Socket(fds[number][0].fileno())
            poller.watch(alive[number], True, False)
        assert poller.receive(alive[number]) == NOTHING
        assert poller.next is None or poller.next in alive.values()
        if leaves:
            poller.leave(alive.pop(number))
        assert poller.next is None or poller.next in alive.values()
    for pair in fds:
        for end in pair:
            end.close()


def test_what_the_kernel_refuses_is_an_error(pairs: Pairs) -> None:
    """A closed socket cannot be watched; leaving one that is not watched is nothing."""
    poller, each = Poller(), Socket(pairs[0][0].fileno())
    poller.leave(each)
    pairs[0][0].close()
    with pytest.raises(OSError, match="watched") as caught:
        poller.watch(each, True, False)
    assert caught.value.errno == errno.EBADF
    assert len(poller) == 0


def test_a_wait_ends_with_a_socket_with_its_time_or_with_a_signal(pairs: Pairs) -> None:
    """Whichever comes first, and each time anew; what is asked for without a wait is told at once."""
    poller, watched = Poller(), Socket(pairs[0][0].fileno())
    poller.watch(watched, True, False)
    now = time.monotonic()
    poller.wake_at(now + 0.02)
    assert (turn(poller), poller.wanted) == (0, False)
    assert (turn(poller, True), poller.wanted) == (1, True) and not watched.events
    assert time.monotonic() >= now + 0.02
    poller.wake_at(time.monotonic() + 3)
    assert (turn(poller, True), poller.wanted) == (0, True)  # as it is still, so there is no wait
    poller.wanted = False
    pairs[0][1].send(b"here")
    assert (turn(poller, True), poller.wanted) == (1, False) and watched.events == [(True, False)]
    poller.wake_at(time.monotonic() - 1)  # has been, so it comes at once
    assert (turn(poller, True), poller.wanted) == (1, True)
    poller.wake_at(math.inf)
    poller.wanted = False
    with signals(lambda: None):
        assert (turn(poller, True), poller.wanted) == (0, False)


def test_what_a_signal_wants_is_not_waited_for() -> None:
    """One that came before the wait, where no code of Python's ran between that would have handled it."""
    poller = Poller()
    poller.wake_at(time.monotonic() + 3)
    send = functools.partial(ctypes.PyDLL(None)["raise"], signal.SIGUSR1)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: setattr(poller, "wanted", True))
    try:
        assert list(map(operator.call, (send, functools.partial(poller.find, True)))) == [0, 0]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert poller.wanted


def test_what_is_watched_always_is_told_until_it_is_read(pairs: Pairs) -> None:
    """Unlike the others, which are told what has become ready; and it does not count."""
    poller, always, once = Poller(), Socket(pairs[0][0].fileno()), Socket(pairs[1][0].fileno())
    poller.watch_always(always)
    poller.watch(once, True, False)
    assert len(poller) == 1
    for _, peer in pairs[:2]:
        peer.send(b"here")
    assert [turn(poller) for _ in range(3)] == [2, 1, 1]
    assert len(always.events) == 3 and len(once.events) == 1
    pairs[0][0].recv(4)
    assert turn(poller) == 0


def test_its_descriptors_go_with_it() -> None:
    """Nothing is left open, with its clock or without, closed or forgotten, and no child inherits it."""

    def descriptors() -> set[str]:
        """Return those that are open, without the one that lists them."""
        return {fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")}

    before = descriptors()
    for clock, closed in itertools.product((False, True), repeat=2):
        poller = Poller()
        if clock:
            poller.wake_at(1.0)
        own = descriptors() - before
        assert len(own) == 1 + clock and not any(map(os.get_inheritable, map(int, own)))
        if closed:
            poller.close()
            assert descriptors() == before
        del poller
        assert descriptors() == before
