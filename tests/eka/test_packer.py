"""Frames joined to messages, against joining them all and cutting."""

from __future__ import annotations

from hypothesis import given, strategies as st

from mediaflow.eka import Packer


@given(st.lists(st.binary(max_size=90), max_size=60), st.integers(1, 60), st.sets(st.integers(0, 80)))
def test_nothing_is_lost_or_sent_twice_when_sending_fails(pieces: list[bytes], size: int, refused: set[int]) -> None:
    """Whatever is refused when, what ``put`` has taken is what went out, is counted, or is pending; in order."""
    messages: list[bytes] = []
    tries = 0

    def send(message: bytes) -> bool:
        nonlocal tries
        tries += 1
        if tries in refused:
            return False
        messages.append(message)
        return True

    packer = Packer(send, size)
    taken = b""
    for piece in pieces:
        before = (list(messages), packer.waiting, packer.head())
        if packer.put(piece):
            taken += piece
        else:
            assert (messages, packer.waiting, packer.head()) == before
        assert (b"".join(messages) + packer.head()) == taken[: packer.sent + min(packer.waiting, size)]
        assert packer.sent == sum(map(len, messages)) == len(taken) - packer.waiting
    assert all(size <= len(message) < 2 * size for message in messages)
    rest = b""
    while packer.waiting:
        rest += packer.head()
        packer.sent_head(len(packer.head()))
    assert b"".join(messages) + rest == taken


def test_a_frame_of_a_whole_message_goes_as_it_is() -> None:
    """No copy of it is made."""
    sent: list[bytes] = []
    packer = Packer(lambda message: not sent.append(message), 640)  # type: ignore[func-returns-value]
    frame = bytes(range(256)) * 3
    assert packer.put(frame) and sent[0] is frame


def test_what_waits_is_taken_by_hand() -> None:
    """As far as a message goes, and only once it is said to be on its way."""
    packer = Packer(lambda message: False, 4)
    assert packer.put(b"abc") and not packer.put(b"d")
    packer.keep(b"defgh")
    assert packer.head() == packer.head() == b"abcd"
    packer.sent_head(4)
    assert (packer.head(), packer.sent, packer.waiting) == (b"efgh", 4, 4)


def test_what_waits_is_given_back() -> None:
    """All of it, once, and it does not count as sent."""
    packer = Packer(lambda message: False, 4)
    packer.keep(b"abc")
    packer.keep(b"defgh")
    assert (packer.rest(), packer.rest(), packer.sent, packer.waiting) == (b"abcdefgh", b"", 0, 0)
    assert packer.put(b"ij") and packer.rest() == b"ij"
