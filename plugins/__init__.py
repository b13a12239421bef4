"""The built-in components, one per file: ``source_*``, ``transform_*`` and ``sink_*``.

They come in by the same entry point as anybody's plugins.  A file whose name begins with one of the three kinds is a
plugin of its own and is found by being here.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from mediaflow import Register, hookimpl

_KINDS = ("source_", "transform_", "sink_")


@hookimpl
def register_components(register: Register) -> None:
    """Let every module of this package register its components."""
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith(_KINDS):
            import_module(f"{__name__}.{module.name}").register_components(register)
