from collections.abc import Callable
from enum import IntEnum

class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10

class FrameError(ValueError):
    code: int
    def __init__(self, code: int, text: str) -> None: ...

class Decoder:
    payload: bytes
    opcode: int
    def __init__(self, masked: bool, limit: int) -> None: ...
    def feed(self, data: bytes | bytearray | memoryview, size: int = -1) -> None: ...
    def deliver(self, take: Callable[[bytes], bool]) -> int: ...
    def ends_here(self) -> bool: ...
    @property
    def waiting(self) -> bool: ...

def encode(opcode: int, payload: str | bytes | bytearray | memoryview, masked: bool) -> bytes: ...
