"""Build the compiled core; everything else stands in pyproject.toml.

``MEDIAFLOW_DEBUG=1 pip install -e .`` builds it with bounds checks and without optimisation; ``MEDIAFLOW_SANITIZE=1``
with gcc's address and undefined-behaviour sanitizers (`make sanitize` runs the tests on that).  ``MEDIAFLOW_FUZZ=1``
builds the wire alone, with the sanitizers and so that libFuzzer sees its branches (`make fuzz`).
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("MEDIAFLOW_DEBUG") == "1"
FUZZ = os.environ.get("MEDIAFLOW_FUZZ") == "1"
SANITIZE = FUZZ or os.environ.get("MEDIAFLOW_SANITIZE") == "1"

core_directives = {
    "language_level": 3,
    "freethreading_compatible": True,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
}
hot_directives = {
    "language_level": 3,
    "freethreading_compatible": True,
    "annotation_typing": False,  # types are said in the .pxd, where None and subclasses are thought of
    "nonecheck": True,
}
# The first keeps floats bit-identical from one instruction set to the next. The second lets gcc vectorise loops that
# compare floats; it changes no result. The third spares 23 of 852 cache lines of code that a frame goes through.
# Debugging information, which Python's own flags ask for, would be four fifths of what is installed and a third of the
# time to compile.
flags = ["-ffp-contract=off", "-fno-trapping-math", "-fno-plt"]
flags += ["-O0", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"]
if SANITIZE:
    # One level only: the dynamic linker picks levels before the sanitizer is ready.
    flags += ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-DONE_LEVEL"]
if FUZZ:
    flags += ["-fsanitize-coverage=trace-pc,trace-cmp"]


def extension(source: Path, *more: str) -> Extension:
    """One module per source, together with the C file of the same name where there is one."""
    kernel = source.with_name(f"{source.stem}_kernel.c")
    return Extension(
        ".".join(source.with_suffix("").parts),
        [str(source), *([str(kernel)] if kernel.exists() else []), *(["tests/wire/coverage.c"] if FUZZ else [])],
        include_dirs=[str(source.parent)],
        depends=sorted(map(str, source.parent.glob("*.h"))),
        extra_compile_args=[*flags, *more],
        extra_link_args=["-fsanitize=address,undefined"] if SANITIZE and not FUZZ else [],
    )


def compiled(sources: list[Path], directives: dict[str, object], *more: str) -> list[Extension]:
    return cythonize(
        [extension(source, *more) for source in sources],
        compiler_directives=directives,
        build_dir="build/cython-debug" if DEBUG else "build/cython",
    )


cores = sorted(Path("mediaflow").glob("_wire/*.pyx" if FUZZ else "_*/*.pyx"))
# Modules of plain Python that every frame goes through: compiled as they are, with the types in the .pxd beside them,
# and for size, for they are calls, not loops, and between two frames their code grows cold.
# Bounds checks and sanitizers are for what has no Python form, so there these stay as they are.
types = (path for path in Path("mediaflow").rglob("*.pxd") if path.stem != "__init__")
hot = sorted(path.with_suffix(".py") for path in types if path.with_suffix(".py").exists())
if sys.platform != "linux":  # no epoll: `websocket` knows another way
    cores.remove(Path("mediaflow/_wire/poller.pyx"))
    hot = [path for path in hot if path.stem not in ("hub", "line")]
setup(
    ext_modules=compiled(cores, core_directives) + compiled([] if DEBUG or SANITIZE else hot, hot_directives, "-O2"),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
