from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

def read(message: str | bytes, make: Callable[[bytes, str | None, int | None, int | None], T]) -> T | None: ...
