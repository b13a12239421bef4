"""What a wheel brings: everything that is needed, and nothing that was generated on the way.

Looked at is what was installed: `make others` installs no other way than from a wheel.
"""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path

import pytest

import mediaflow

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(Path(mediaflow.__file__).parents[1] == ROOT, reason="installed in place here, not from a wheel")
def test_the_wheel_holds_what_is_needed_and_no_generated_code() -> None:
    """Compiled modules with their stubs, plugins, pipelines, the lab's clip, the notice and the typing marker; no C."""
    names = {str(file) for file in files("mediaflow") or []}
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx", ".cpp"))]
    for module in (ROOT / "mediaflow").glob("_*/*.pyx"):
        assert [name for name in names if name.startswith(f"mediaflow/{module.parent.name}/{module.stem}.cpython-")]
    wanted = {"mediaflow/py.typed", "mediaflow_plugins/py.typed", "mediaflow/lab/consultation.wav"}
    wanted |= {"mediaflow_pipelines/consent_notice.wav", "mediaflow_pipelines/consent_notice.md"}
    cores = {file.parent for file in (ROOT / "mediaflow").glob("_*/*.pyx")}
    wanted |= {str(file.relative_to(ROOT)) for core in cores for file in core.glob("*.p[yx][id]")}
    wanted |= {f"mediaflow_plugins/{file.name}" for file in (ROOT / "plugins").glob("*.py")}
    wanted |= {f"mediaflow_pipelines/{file.name}" for file in (ROOT / "pipelines").glob("*.yaml")}
    wanted |= {str(file.relative_to(ROOT)) for file in (ROOT / "mediaflow").rglob("*.py")}
    assert wanted <= names
