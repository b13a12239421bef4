"""File names made from what is known of a call, with no way out of their folder.

``recordings/{call_id}/{track}.wav`` names a file per call and track.  The values come from the wire: a call id may hold
a slash, ``..`` or a line break.  Each value is therefore cut down to the characters that a file name can safely have.
One that had to be changed gets ``~`` and a hash of the original; no value that stays as it is can hold a ``~``, so two
calls never share a name unless they share the id.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping
from pathlib import Path

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
# With the hash 77 characters: three such values and a suffix fit in the 255 bytes that a file name may have.
_LONGEST = 60
_HASH_BYTES = 8  # with 4, an afternoon of trying finds two ids of one name


def safe_name(value: str) -> str:
    """Return ``value`` as one harmless part of a file name."""
    name = _UNSAFE.sub("_", value).lstrip(".-")[:_LONGEST]
    if name != value or not name:
        digest = hashlib.blake2s(value.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES)
        name = f"{name or '_'}~{digest.hexdigest()}"
    return name


class PathTemplate:
    """A path with ``{name}`` places, as an option of a component.  Raises ValueError if it cannot be read."""

    __slots__ = ("names", "text")

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("the path is empty")
        if "\0" in text:
            raise ValueError(f"path {text!r} holds a NUL character")
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"path {text!r}: {error}") from None
        for _, name, spec, conversion in parts:
            if name is not None and (not name.isidentifier() or spec or conversion):
                raise ValueError(f"path {text!r}: a place holds a plain name, as in {{call_id}}")
        self.text = text
        self.names = frozenset(name for _, name, _, _ in parts if name is not None)

    def fill(self, values: Mapping[str, str]) -> Path:
        """Return the path for ``values``; a name that is not among them becomes ``unknown``."""
        return Path(self.text.format_map({name: safe_name(values.get(name, "unknown")) for name in self.names}))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathTemplate) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"PathTemplate({self.text!r})"

    def __str__(self) -> str:
        return self.text
