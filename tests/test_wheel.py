"""What is in the wheel: everything that is needed, and nothing that was generated on the way."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_holds_what_is_needed_and_no_generated_code(tmp_path: Path) -> None:
    """Compiled modules with their stubs, plugins, pipelines, the lab's clip, the notice and the typing marker; no C."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
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
    assert wanted <= set(names)
