"""``mediaflow run`` on a backend that the command line does not offer: stock asyncio, or Trio.

python mediaflow_on.py asyncio|trio FILE
"""

from __future__ import annotations

import sys

import anyio

from mediaflow.cli import _collector
from mediaflow.cli._pipeline import load
from mediaflow.cli._show import carry
from mediaflow.runner import Runner


async def main(file: str) -> None:
    """Run the pipeline until a signal comes."""
    pipeline, _, plugins = load(file)
    runner = Runner(pipeline, plugins)
    await carry(runner.run, runner.stop, [runner])
    sys.exit(1 if runner.failed else 0)


if __name__ == "__main__":
    _collector.calm()
    anyio.run(main, sys.argv[2], backend=sys.argv[1])
