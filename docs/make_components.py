"""Write docs/components.md from what the built-in components say of themselves.

python docs/make_components.py
"""

from __future__ import annotations

import inspect
from pathlib import Path

import msgspec

from mediaflow import option, plugins

PAGE = Path(__file__).with_name("components.md")

HEAD = """\
# Components

Everything that is built in, as `mediaflow plugins inspect NAME` shows it. This page is written by
`python docs/make_components.py`.

Every sink also has `queue_ms` and `when_full`: how much audio may wait for it, and what happens then.
"""

EVERY_SINK = ("queue_ms", "when_full")


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    found = plugins.load().components.values()
    for kind in ("source", "transform", "sink"):
        parts.append(f"\n## {kind.capitalize()}s\n")
        for each in sorted((each for each in found if each.kind == kind), key=lambda each: each.name):
            parts.append(f"\n### {each.name}\n\n{inspect.cleandoc(each.component.__doc__ or '')}\n")
            options = {k: v for k, v in option.options(each.component).items() if k not in EVERY_SINK}
            if options:
                parts.append("\n| option | takes | default | |\n|---|---|---|---|\n")
                parts.extend(row(name, spec) for name, spec in options.items())
    return "".join(parts)


def row(name: str, spec: option.Spec) -> str:
    """Return one option as a line of a table."""
    default = f"`{msgspec.json.encode(spec['default']).decode()}`" if "default" in spec else "required"
    cells = (f"`{name}`", option.describe(spec), default, spec.get("description", ""))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
