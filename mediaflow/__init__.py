"""mediaflow carries live audio from where it arises to where it is understood.

This root exports everything that the author of a plugin needs; `docs/plugins.md` is the guide.  Names are loaded when
they are first used, so that ``mediaflow --help`` does not pay for the engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compiled import Compiled as Compiled
    from .component import (
        Component as Component,
        Engine as Engine,
        Finding as Finding,
        Joiner as Joiner,
        Processor as Processor,
        Secret as Secret,
        Session as Session,
        Sink as Sink,
        Source as Source,
        Transform as Transform,
        Writer as Writer,
    )
    from .errors import (
        ConfigError as ConfigError,
        FormatError as FormatError,
        MediaflowError as MediaflowError,
        SessionError as SessionError,
        SinkError as SinkError,
        SourceError as SourceError,
        WireError as WireError,
    )
    from .frame import (
        AudioFormat as AudioFormat,
        AudioFrame as AudioFrame,
        Cut as Cut,
        Dtmf as Dtmf,
        Event as Event,
        Gap as Gap,
        Item as Item,
        Lost as Lost,
        SpeechEnded as SpeechEnded,
        SpeechStarted as SpeechStarted,
        Stream as Stream,
        WireAlarm as WireAlarm,
        rescale as rescale,
    )
    from .hookspecs import (
        Register as Register,
        hookimpl as hookimpl,
    )
    from .path_template import PathTemplate as PathTemplate

_HOMES = {
    "compiled": "Compiled",
    "component": "Component Engine Finding Joiner Processor Secret Session Sink Source Transform Writer",
    "errors": "ConfigError FormatError MediaflowError SessionError SinkError SourceError WireError",
    "frame": "AudioFormat AudioFrame Cut Dtmf Event Gap Item Lost SpeechEnded SpeechStarted Stream WireAlarm rescale",
    "hookspecs": "Register hookimpl",
    "path_template": "PathTemplate",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    try:
        module = import_module(f".{_HOME[name]}", __name__)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
