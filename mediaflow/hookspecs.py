"""The hooks of mediaflow: one to bring components, the rest to hear news.  Never called per frame.

A plugin is a module (or any object) named by an entry point of the group ``mediaflow``::

    [project.entry-points.mediaflow]
    acme = "acme_mediaflow"

and implements whichever of these it wants, marked with ``@mediaflow.hookimpl``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from .component import Component
    from .frame import Stream

hookspec = pluggy.HookspecMarker("mediaflow")
hookimpl = pluggy.HookimplMarker("mediaflow")


class Register(Protocol):
    """Takes a component class under the name that pipelines use it by."""

    def __call__(self, name: str, component: type[Component]) -> None: ...


@hookspec(historic=True)
def register_components(register: Register) -> None:
    """Call ``register(name, component_class)`` for every component that the plugin brings."""


@hookspec
def source_listening(pipeline: str, url: str) -> None:
    """A source takes connections at ``url``."""


@hookspec
def session_started(pipeline: str, stream: Stream) -> None:
    """A call was opened."""


@hookspec
def session_ended(pipeline: str, account: Mapping[str, Any]) -> None:
    """A call is over and every sink is done; ``account`` is its ledger, as ``mediaflow audit --json`` prints it."""


@hookspec
def sink_failed(pipeline: str, stream: Stream, sink: str, code: str) -> None:
    """A sink of a call failed; ``code`` says why in a word."""


@hookspec
def noted(pipeline: str, stream: Stream, name: str, facts: Mapping[str, str | int | float]) -> None:
    """A source or a sink put on record what happened to a call, as it stands in the account under ``events``."""


@hookspec
def counted(pipeline: str, name: str, number: int) -> None:
    """Something that belongs to no call was counted (``refused-token``)."""
