"""Chaos profiles: what a carrier or EkaScribe may do to a call, as YAML, and what must be true of it afterwards.

::

    # mediaflow/lab/profiles/reconnect_lossy.yaml
    rehearses: the socket breaks, 400 ms are lost, the carrier comes back
    hint: name a call by its callId, and fill gaps by the stamps
    tracks: both             # or inbound
    carrier:                 # options of the sink vobiz_call, above all its quirks
      quirks: [skips, reconnects]
    eka:                     # the quirks of the source eka_ingest
      quirks: []
    expect:
      gaps_ms: 400           # that our own ledger must tell of
      lost_ms: 0             # that may be missing beside what the carrier itself has withheld

The profiles beside this file are named by their file's name, any other by its path.  What is wrong with one is told
with its place, as of a pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from .. import envelope
from ..component import Secret
from ..config import Builder, Pipeline
from ..document import Document
from ..errors import ConfigError
from ..option import options
from ..plugins import Plugins
from .flaw import Kind

FOLDER = Path(__file__).with_name("profiles")

_CARRIER = ("quirks", "shape", "content_type", "byte_order", "end")
_SERVICE = ("quirks", "idle_s")
"""Options of ``vobiz_call`` and of ``eka_ingest`` that a profile may set: addresses and pace are the lab's affair."""


class Expect(msgspec.Struct, frozen=True, kw_only=True):
    """What must be true afterwards."""

    lost_ms: Annotated[float, Meta(ge=0, description="audio of a track that may be missing, in ms")] = 0.0
    gaps_ms: Annotated[float, Meta(ge=0, description="silence that our own ledger must tell of, in ms")] = 0.0
    flaws: Annotated[tuple[Kind, ...], Meta(description="flaws that are the carrier's, not the bridge's")] = ()
    sessions: Annotated[int, Meta(ge=1, description="sessions that the call may take at EkaScribe")] = 1
    ends: Annotated[Literal["complete", "failed"], Meta(description="how our own ledger must say that it ended")] = (
        "complete"
    )


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    rehearses: Annotated[str, Meta(min_length=1, description="what goes wrong, in a line")]
    hint: Annotated[str, Meta(description="what a bridge does about it, in a line")] = ""
    tracks: Annotated[Literal["both", "inbound"], Meta(description="of the call")] = "both"
    seconds: Annotated[float, Meta(ge=3, le=60, description="length of the call")] = 6.0


class Profile(_Head, frozen=True, kw_only=True):
    """A profile as its file says it."""

    name: str
    carrier: Any
    """The sink ``vobiz_call``, but for its address."""
    service: Any
    """The source ``eka_ingest``, but for its address."""
    expect: Expect

    @property
    def encoding(self) -> Literal["mulaw", "s16le"]:
        """What the call carries."""
        return "mulaw" if "mulaw" in self.carrier.content_type else "s16le"

    @property
    def rate(self) -> int:
        """The rate of what the call carries, in Hz."""
        return int(self.carrier.content_type.rpartition("=")[2])

    @property
    def track_names(self) -> tuple[str, ...]:
        """The tracks of the call."""
        return envelope.TRACKS if self.tracks == "both" else ("inbound",)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the sink ``vobiz_call``."""
        return {name: getattr(self.carrier, name) for name in _CARRIER}

    def call(self, pipeline: Pipeline, url: str, plugins: Plugins) -> Pipeline:
        """Return ``lab_call.yaml`` as this profile wants it: it resamples, encodes, and plays to ``url``."""
        resample, encode = pipeline.transforms
        transforms: list[Any] = [msgspec.structs.replace(resample, rate=self.rate)]
        names = dict(pipeline.names)
        if self.encoding == "mulaw":
            transforms.append(encode)
        if self.tracks == "inbound":
            select: Any = plugins.components["select"].component
            names["transforms", len(transforms)] = "select"
            transforms.append(select(track="inbound"))
        carrier = msgspec.structs.replace(pipeline.sinks[0], url=Secret(url), **self.options)
        marks = {place: pipeline.marks.get(place, (1, 1)) for place in names}
        return msgspec.structs.replace(
            pipeline, transforms=tuple(transforms), sinks=(carrier,), names=names, marks=marks
        )

    def ingest(self, pipeline: Pipeline) -> Pipeline:
        """Return a pipeline of ``eka_ingest`` with the misbehaviour that this profile wants."""
        changes = {name: getattr(self.service, name) for name in _SERVICE}
        return msgspec.structs.replace(pipeline, source=msgspec.structs.replace(pipeline.source, **changes))


def names() -> list[str]:
    """Return the names of the profiles that are shipped."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def load(name: str, plugins: Plugins) -> Profile:
    """Read the shipped profile ``name``, or the file of that name; raise ``ConfigError`` with every problem found."""
    shipped = FOLDER / f"{name}.yaml"
    file = str(shipped) if name in names() else name
    try:
        document = Document(file, {})
    except ConfigError as error:
        if Path(file).exists():
            raise
        (problem,) = error.problems
        hint = f"there are {', '.join(names())}"
        raise ConfigError([problem._replace(text="is neither a file nor a profile", hint=hint)]) from None
    profile = _build(document, plugins)
    if document.problems or profile is None:
        raise ConfigError(document.problems)
    return profile


def _build(document: Document, plugins: Plugins) -> Profile | None:
    tree, builder = document.tree, Builder(document, plugins)
    if not isinstance(tree, dict):
        document.report((), "bad-type", "a profile is a mapping with rehearses, carrier, eka and expect")
        return None
    head, expect = options(_Head), options(Expect)
    builder.unknown_keys((), tree, (*head, "carrier", "eka", "expect"), "a profile")
    if "rehearses" not in tree:
        document.report((), "missing", "the profile does not say what it rehearses", "add `rehearses: …`")
    carrier, eka, expected = (_mapping(document, tree, key) for key in ("carrier", "eka", "expect"))
    for place, given, known in (("carrier", carrier, _CARRIER), ("eka", eka, _SERVICE), ("expect", expected, expect)):
        builder.unknown_keys((place,), given, known, place)
        for key in set(given).difference(known):
            del given[key]
    settings = builder.convert((), tree, _Head, head)
    expectation = builder.convert(("expect",), expected, Expect, expect)
    sink = builder.component(("carrier",), {"use": "vobiz_call", "url": "ws://127.0.0.1:1", **carrier}, "sink")
    source = builder.component(("eka",), {"use": "eka_ingest", "listen": "http://127.0.0.1:0", **eka}, "source")
    if document.problems:
        return None
    return Profile(
        name=Path(document.file).stem, carrier=sink, service=source, expect=Expect(**expectation), **settings
    )


def _mapping(document: Document, tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key)
    if isinstance(value, dict):
        return value
    if value is not None:
        document.report((key,), "bad-type", f"{key} is a mapping")
    return {}
