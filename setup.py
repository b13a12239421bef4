"""Build the compiled core; everything else stands in pyproject.toml.

``MEDIAFLOW_DEBUG=1 pip install -e .`` builds it with bounds checks and without optimisation; ``MEDIAFLOW_SANITIZE=1``
with gcc's address and undefined-behaviour sanitizers (`make sanitize` runs the tests on that).
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("MEDIAFLOW_DEBUG") == "1"
SANITIZE = os.environ.get("MEDIAFLOW_SANITIZE") == "1"

directives = {
    "language_level": 3,
    "freethreading_compatible": True,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
}
# The first keeps floats bit-identical from one instruction set to the next. The second lets gcc vectorise loops that
# compare floats; it changes no result.
flags = ["-ffp-contract=off", "-fno-trapping-math", *(["-O0", "-g", "-UNDEBUG"] if DEBUG else ["-O3"])]
if SANITIZE:
    # One level only: the dynamic linker picks levels before the sanitizer is ready.
    flags += ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-DONE_LEVEL"]


def extension(source: Path) -> Extension:
    """One module per .pyx, together with the C file of the same name where there is one."""
    sources = [str(source)]
    kernel = source.with_name(f"{source.stem}_kernel.c")
    if kernel.exists():
        sources.append(str(kernel))
    return Extension(
        ".".join(source.with_suffix("").parts),
        sources,
        include_dirs=[str(source.parent)],
        depends=sorted(map(str, source.parent.glob("*.h"))),
        extra_compile_args=flags,
        extra_link_args=["-fsanitize=address,undefined"] if SANITIZE else [],
    )


setup(
    ext_modules=cythonize(
        [extension(source) for source in sorted(Path("mediaflow").glob("_*/*.pyx"))],
        compiler_directives=directives,
        build_dir="build/cython-debug" if DEBUG else "build/cython",
    ),
)
