"""Calls from any carrier of the Media Streams family: Twilio, Plivo, Vobiz, Telnyx, Exotel.

What these differ in is a table, ``mediaflow/dialects.py``; everything else is one server for all of them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from mediaflow import Register, hookimpl
from mediaflow.dialects import DIALECTS, Dialect

from ._carrier_server import CarrierSource


class MediaStreams(CarrierSource, frozen=True):
    """Take calls from Twilio, Plivo, Vobiz, Telnyx or Exotel, one session per call.

    ``auto`` sees from the first message of each call whose it is, and a pipeline then has to take what any of them may
    bring; with a carrier's name it need only take that one's.  Plivo and Vobiz look the same and are treated the same.
    What was given along with the call (``customParameters`` and the like) is metadata under ``custom_NAME``, for path
    templates.  A ``reply`` is played into calls whose stream goes both ways.  The address ends in the secret, as in
    ``wss://calls.example.org/media/SECRET``.
    """

    dialect: Annotated[
        Literal["auto", "twilio", "plivo", "vobiz", "telnyx", "exotel"], Meta(description="whose messages to expect")
    ] = "auto"

    def dialects(self) -> tuple[Dialect, ...]:
        return tuple(DIALECTS.values()) if self.dialect == "auto" else (DIALECTS[self.dialect],)


@hookimpl
def register_components(register: Register) -> None:
    register("media_streams", MediaStreams)
