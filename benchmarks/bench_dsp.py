"""`mediaflow.dsp` beside its peers, speed and quality: ``mediaflow bench dsp``."""

from __future__ import annotations

import json
import sys

from . import dsp_quality, dsp_speed
from .machine import processor, versions

PACKAGES = (
    "mediaflow",
    "numpy",
    "audioop-lts",
    "soxr",
    "samplerate",
    "scipy",
    "webrtcvad-wheels",
    "webrtcvad",
    "auditok",
)


def main(rounds: int = dsp_speed.ROUNDS, as_json: bool = False, quality: bool = True) -> int:
    """Print the tables, or one JSON document."""
    missing = [name for name, module in dsp_speed.PEERS.items() if module is None]
    document: dict[str, object] = {"machine": processor(), "versions": versions(PACKAGES), "missing": missing}
    speed, figures = [], []
    if not as_json:
        print(processor())
        print(", ".join(f"{name} {number}" for name, number in versions(PACKAGES).items()))
        print(f"not installed: {', '.join(missing) or 'none'}\n")
        print(f"{'speed':34} {'ns a call':>12} {'peer':>15} {'ns a call':>12} {'ratio':>8} {'goal':>6}")
    for row in dsp_speed.rows():
        timing = dsp_speed.measure(row, rounds)
        speed.append({"name": row.name, "peer": row.peer_name, "goal": row.goal, **timing._asdict()})
        if not as_json:
            goal = f"{row.goal:5.2f}x" if row.goal else ""
            print(
                f"{row.name:34} {timing.ours:12,.0f} {row.peer_name:>15} {timing.peer:12,.0f} "
                f"{timing.ratio:7.2f}x {goal:>6}",
                flush=True,
            )
    if quality and not as_json:
        print(f"\n{'quality':44} {'mediaflow':>10} {'peer':>12} {'':>10}")
    for figure in dsp_quality.figures() if quality else ():
        figures.append(figure._asdict())
        if not as_json:
            theirs = "" if figure.peer is None else f"{figure.peer:10.3f} {figure.unit}"
            print(f"{figure.name:44} {figure.ours:10.3f} {figure.peer_name:>12} {theirs}", flush=True)
    if as_json:
        document |= {"speed": speed, "quality": figures}
        json.dump(document, sys.stdout, indent=1)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(as_json="--json" in sys.argv))
