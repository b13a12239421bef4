"""Every error that mediaflow raises on purpose.

::

    MediaflowError
    ├── ConfigError       the pipeline file is wrong; carries every Problem found
    ├── FormatError       two parts that were joined do not speak the same format
    ├── WireError         a peer sent what its protocol does not allow
    ├── SourceError       a source cannot go on (device lost, file unreadable)
    ├── SessionError      a call cannot go on: every sink failed, or a transform broke
    └── SinkError         a sink cannot take or deliver the audio; carries a short ``code``

A component raises ``FormatError``, ``WireError``, ``SourceError`` or ``SinkError``; the engine adds the place.

And how a fault is told that nobody raised on purpose, where the engine goes on without what had it: ``report``.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from typing import NamedTuple


class MediaflowError(Exception):
    """The root of the tree."""


class Problem(NamedTuple):
    """One thing wrong in a pipeline file, with its place.

    ``line`` and ``column`` count from 1.  ``code`` is a stable short name (``unknown-key``), ``hint`` the fix.
    """

    file: str
    line: int
    column: int
    code: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.code}: {self.text}{hint}"


class ConfigError(MediaflowError):
    """A pipeline file is wrong; ``problems`` holds everything found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


class FormatError(MediaflowError):
    """A component cannot take the format that reaches it; ``hint`` names the missing step."""

    def __init__(self, text: str, hint: str = "") -> None:
        self.text, self.hint = text, hint
        super().__init__(f"{text} ({hint})" if hint else text)


class WireError(MediaflowError):
    """A peer sent something that its protocol does not allow.

    ``code`` is a short name for counting (``bad-base64``); the text never holds audio or credentials.
    """

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


class SourceError(MediaflowError):
    """A source cannot go on."""


class SessionError(MediaflowError):
    """A call cannot go on: every sink of it has failed, or a transform broke.  The source ends the call."""


class SinkError(MediaflowError):
    """A sink cannot take the audio or cannot finish its delivery.

    ``code`` is the reason that the ledger books undelivered samples under (``login-refused``).
    """

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


def report(logger: logging.Logger, what: str, error: Exception) -> None:
    """Log that ``what`` failed, and where, without the text of the error: it may hold what a log must not."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("%s failed: %s at %s:%s", what, type(error).__name__, place.filename, place.lineno)
