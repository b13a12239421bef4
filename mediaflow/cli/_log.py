"""The log of commands that carry audio."""

from __future__ import annotations

import logging
import sys
from typing import TextIO


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the moment: while the table is on the screen, that is above the table."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up_log(worker: int = 0) -> None:
    """Our own log at INFO; of libraries warnings only, for at INFO they print addresses that are secrets.

    One of several workers puts its number into every line.
    """
    form = f"%(asctime)s %(levelname)s {f'worker {worker} ' if worker else ''}%(name)s: %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, handlers=[_Stderr()])
    levels = {"mediaflow": "INFO", "mediaflow_plugins": "INFO", "websockets": "CRITICAL", "stamina": "ERROR"}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
