"""Write docs/capacity.md and its picture from docs/capacity.json, which ``mediaflow bench load --json`` printed.

The picture needs matplotlib.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from . import load_report, modes
from .load_report import Document
from .rows import LIMIT_MS, ROWS

PAGE, PICTURE, DATA = "capacity.md", "capacity.svg", "capacity.json"

COLOURS = {
    "mediaflow": "tab:blue",
    "mediaflow asyncio": "tab:cyan",
    "mediaflow trio": "tab:purple",
    "mediaflow as shipped": "navy",
    "by hand": "tab:orange",
    "by hand, trio": "tab:brown",
    "picows": "tab:green",
    "Node ws": "tab:olive",
    "Pipecat": "tab:pink",
    "C epoll": "tab:red",
    "null": "tab:grey",
}

HEAD = """\
# Capacity

How many calls one core carries, and what a frame costs, beside bridges that do less. This page is written by
`mediaflow bench load --page` from `docs/capacity.json`, which is what `mediaflow bench load --json` printed; with
`--update`, that command puts what it measures in the place of the same modes there, and writes this page.

{machine}; {system}. {versions}. Not installed: {missing}. {quiet}

## How it is measured

A load in C plays calls as Vobiz does (nested `start`, one JSON message of µ-law per 20 ms, masked) and is EkaScribe's
WebSocket as well. The bridge under test runs on one core, the load on the other, all over loopback. In each round every
bridge has its turn; figures are medians over the rounds, ratios the medians of the ratios within a round. How many
rounds there were stands above each table. Neither core ever sleeps, for something of the lowest class runs in every
pause: a hypervisor gives a core that sleeps to somebody else, and then it is the hypervisor that is measured. Of what
it takes it does not tell all, so before each run something that only touches memory is tried on the bridge's core, and
for how long that stands still counts as taken by others (`benchmarks/stalls.py`). In real time the load does not wait
for messages but looks for them without a pause, or each would cost the bridge the waking of its peer, which over a
network it does not; nor does it leave it to chance whose core acknowledges what a bridge sends: it does that when it
reads. A message of 640 bytes takes {loopback:.1f} µs from one socket to the other on this machine, and every frame goes
that way twice: compare this figure with that of your machine before any other.

Every block of 20 ms that arrives is compared, byte by byte, with what must come of the block that is due; one that is
not due is looked up, and counted as lost, doubled, foreign or damaged. The ends of all calls are checked. *All right*
means that nothing of this happened.

* **mediaflow** is `mediaflow run` with `pipelines/vobiz_to_eka.yaml` and `message_ms: 20`, so that it sends as many
  messages as the others: decoding, resampling with a filter, detector, ledger. **mediaflow as shipped** is that file
  as it is: what it sends to EkaScribe is larger, and a frame waits for its message to fill.
* **mediaflow's parts** are the same compiled parts wired by hand, without YAML, graph, session, edge and ledger.
* **by hand** is `websockets`, msgspec, `audioop` and uvloop; **picows**, **Node ws** and **C epoll** are the same
  bridge on other libraries. They resample by the mean of two neighbours, have no detector, no ledger and no recovery.
* **Pipecat** is a pipeline of its FastAPI transport, its serializer for Plivo and a sink, in an environment of its own
  (`make pipecat`). Its resampler hands audio on about every 100 ms, so its ramp ends at a p99 of 150 ms; blocks have to
  be alike only, and it is not driven to saturation.
* **null** looks at nothing and answers with silence: what it reaches is as far as the load can see.

Latency runs from the sending of the newest frame in a message to the message. It has neither the delay of a filter in
it (4.5 ms at 16 kHz) nor, but where a table says so, the time for which a message is being filled; both are the same
at every load. `load late` says by how much the load itself was late: latencies below that are not to be told apart. A
ramp that ends where the load's core is full shows the load's limit, not the bridge's. `others on it` is the share of
the time for which something else had its core, other processes or the hypervisor: where that is not near nothing, the
machine was not quiet, and latencies and numbers of calls say little. So a step of a ramp that fails then is tried
again, twice at most. The shares of a ramp are those of its last step.

"""

NOT_MEASURED = """\
## What was not measured

* A network: everything is loopback, whose cost in the kernel is in every figure.
* The kernel's memory for sockets; the memory of a call is the process's own.
* More than one core: with two, the load needs the other. `--workers` is measured with all workers on one.
* Calls of an hour: a run takes seconds, a ramp a minute or two.
* Other processors than the one above, whose absolute figures move by some 15 % from hour to hour. Ratios count.
"""


QUIET = "The bridges had their core to themselves."
DISTURBED = """\
**The machine was not quiet**: for {others:.0%} of the time something else had the core of the bridge.
Ratios of processor time bear that; latencies and numbers of calls do not, and are compared with no goal where it was
so."""


def render(document: Document) -> str:
    """Return the page."""
    others = load_report.median(document.records, lambda record: record.others) or 0.0
    *measured, goals = load_report.tables(document)
    parts = [
        HEAD.format(
            machine=document.machine,
            system=document.system,
            versions=", ".join(f"{name} {number}" for name, number in document.versions.items()),
            missing=", ".join(document.missing) or "nothing",
            loopback=document.loopback_us,
            quiet=QUIET if others < modes.DISTURBED else DISTURBED.format(others=others),
        ),
        f"## {goals.title}\n\n{load_report.markdown(goals)}\n",
        f"## Calls and latency\n\n![p99 over the number of calls]({PICTURE})\n",
        *(f"## {table.title}\n\n{load_report.markdown(table)}\n" for table in measured),
        NOT_MEASURED,
    ]
    return "\n".join(parts)


def draw(document: Document, file: Path) -> None:
    """Draw the number of calls against p99."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "mediaflow"  # the same picture gives the same file
    figure, plot = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name in ROWS:
        records = document.of("ramp", name)
        if records:
            p99 = [max(record.p99_ms or 0.0, 0.01) for record in records]
            plot.plot(
                [record.calls for record in records], p99, marker=".", label=name, color=COLOURS.get(name, "black")
            )
    plot.axhline(LIMIT_MS, color="black", linewidth=0.5)
    plot.set(xlabel="calls in real time on one core", ylabel="p99, ms", yscale="log", ylim=(0.05, 1000))
    plot.grid(linewidth=0.3)
    plot.legend(fontsize=7)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def main(folder: Path) -> None:
    """Write both."""
    document = msgspec.json.decode((folder / DATA).read_bytes(), type=Document)
    (folder / PAGE).write_text(render(document))
    draw(document, folder / PICTURE)
    print(folder / PAGE, folder / PICTURE, sep="\n")
