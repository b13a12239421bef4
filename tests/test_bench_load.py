"""The judge of the bridges: it sees every fault, and every bridge that is installed carries calls without one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks import bench_load, capacity, load_report, modes, stalls  # noqa: E402 (behind an installed mediaflow)
from benchmarks.load_report import Document  # noqa: E402
from benchmarks.modes import Record  # noqa: E402
from benchmarks.rows import CORE, PIPECAT, ROWS, Row  # noqa: E402

FAULTS = {
    "lost": {"lost": 2},
    "doubled": {"doubled": 2},
    "swapped": {"lost": 2, "doubled": 2},
    "damaged": {"damaged": 2},
    "foreign": {"foreign": 2},
    "cut": {"cut": 2},
}
"""What a bridge with two calls does wrong, once in each, and what must be seen of it."""


@pytest.fixture(autouse=True)
def path_for_bridges(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let bridges find ``benchmarks``."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "seen"), FAULTS.items())
def test_a_fault_is_seen(fault: str, seen: dict[str, int], needs: Callable[..., None]) -> None:
    """A block that is lost, doubled, swapped, damaged, of another call or cut off is told for what it is."""
    needs("gcc", "taskset")
    command = [sys.executable, str(ROOT / "tests" / "peers" / "faulty_bridge.py"), fault]
    message_ms = 40 if fault == "cut" else 20  # that bridge is one message behind
    row = Row(fault, lambda place: [*command, place.eka_url], "linear", slack=1, message_ms=message_ms)
    with modes.running(row) as run:
        run.open(2)
        window = run.load.paced(0.6)
        assert run.load.stop().faults == seen
    assert window.frames == 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "tls"),
    [
        *(pytest.param(row, False, id=name) for name, row in ROWS.items()),
        *(pytest.param(ROWS[name], True, id=f"{name} wss") for name in ("mediaflow", "by hand")),
    ],
)
def test_nothing_is_lost(row: Row, tls: bool, needs: Callable[..., None]) -> None:
    """Every bridge carries calls as fast as it can, then in real time, and every block arrives as it must."""
    needs("gcc", "taskset", *(["node"] if "node" in row.name.lower() else []))
    if row.missing():
        if os.environ.get("CI") == "true" and row.name != PIPECAT:
            pytest.fail(f"needs {row.missing()}")
        pytest.skip(f"needs {row.missing()}")
    with modes.running(row, tls) as run:
        run.open(8)
        windows = [run.load.saturated(0.3)] if row.exact else []
        windows.append(run.load.paced(0.3))
        assert run.load.stop().faults == {}
    assert all(window.frames and window.messages and not window.waiting for window in windows)


@pytest.mark.slow
def test_a_stopped_process_loses_nothing(needs: Callable[..., None]) -> None:
    """What the carrier sends while the process stands still arrives when it goes on."""
    needs("gcc", "taskset")
    record = modes.pause(ROWS["mediaflow"], calls=8, seconds=0.5, around_s=0.3)
    assert (record.faults, record.waiting) == ({}, 0)
    assert record.max_ms is not None
    assert record.max_ms > 400


@pytest.mark.slow
def test_the_command_prints_a_document() -> None:
    """What is asked for is measured, the rest left out, and the JSON is what the page is made of."""
    command = [sys.executable, "-m", "mediaflow", "bench", "load", "--mode", "stages", "--rounds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    found = msgspec.json.decode(done.stdout, type=Document)
    assert not found.records
    assert found.stages["no stages"] > 0
    assert "## What a stage costs" in capacity.render(found)


def test_a_bridge_that_is_none() -> None:
    """A name with a slip is told, beside those that there are."""
    with pytest.raises(SystemExit, match=r"no bridge is named by hnad; there are mediaflow.*by hand"):
        bench_load.present(["by hnad"])


def test_the_document_is_read_as_it_was_written() -> None:
    """A record in each line is JSON all the same."""
    told = document(*runs("mediaflow", 5, 6), Record("pause", "by hand", 100, faults={"lost": 1}))
    assert msgspec.json.decode(bench_load.dump(told), type=Document) == told


def document(*records: Record) -> Document:
    """Return a document of some runs."""
    return Document("a machine", "Linux", {"python": "3"}, {"picows": "picows"}, list(records))


def runs(row: str, *costs: float) -> list[Record]:
    """Return saturated runs of a bridge."""
    return [Record("saturated", row, 64, us_per_frame=cost, core=1.0, others=0.0, generator=0.5) for cost in costs]


def test_a_mode_is_measured_again() -> None:
    """What was measured again is replaced, bridge by bridge; all else stays, and each table tells its own rounds."""
    old = document(*runs("mediaflow", 5, 6), *runs("by hand", 10, 12), Record("ramp", "mediaflow", 100, p99_ms=1.0))
    old.stages, old.stage_rounds = {"no stages": 1.0}, 10
    new = document(*runs("mediaflow", 7, 8, 9), Record("saturated", "mediaflow", 64, tls=True, us_per_frame=3.0))
    new.missing = {}
    joined = bench_load.join(old, new)
    assert [record.us_per_frame for record in joined.of("saturated", "mediaflow")] == [7, 8, 9]
    assert (joined.of("saturated", "by hand"), joined.of("ramp")) == (old.of("saturated", "by hand"), old.of("ramp"))
    assert (joined.stages, joined.stage_rounds, joined.missing) == (old.stages, 10, old.missing)
    told = {table.title.partition(":")[0]: table.rounds for table in load_report.tables(joined)}
    assert (told["Saturated"], told["Saturated, wss on both sides"]) == ("2 to 3", "1")
    assert (told["Ramp"], told["What a stage costs by itself, no network"], told["Goals"]) == ("1", "10", "")
    assert "Rounds: 2 to 3.\n\n| bridge" in capacity.render(joined)


def test_figures_of_another_machine_are_not_joined(tmp_path: Path) -> None:
    """Nothing is measured, and nothing written, where what is there was measured elsewhere."""
    file = tmp_path / "capacity.json"
    file.write_text(bench_load.dump(document(*runs("mediaflow", 5))))
    before = file.read_bytes()
    with pytest.raises(SystemExit, match="measured with machine a machine, here"):
        bench_load.main(1, mode_names=["stages"], file=file)
    assert file.read_bytes() == before


def test_a_mode_goes_into_the_document(tmp_path: Path) -> None:
    """What is measured stands in the file afterwards, beside what was there."""
    file = tmp_path / "capacity.json"
    here = bench_load.measure(1, ["none"], [])
    here.records = runs("mediaflow", 5)
    file.write_text(bench_load.dump(here))
    assert bench_load.main(1, mode_names=["stages"], file=file) == 0
    found = msgspec.json.decode(file.read_bytes(), type=Document)
    assert (found.records, found.stage_rounds) == (here.records, 5)
    assert found.stages["no stages"] > 0


@pytest.mark.slow
def test_larger_messages_cost_delay(needs: Callable[..., None]) -> None:
    """A frame's delay has in it the time for which its message fills, and a message's latency has not."""
    needs("gcc", "taskset")
    record = modes.coalescing(100, seconds=0.6, calls=4)
    assert (record.mode, record.message_ms, record.faults) == ("coalescing", 100, {})
    assert record.p50_ms is not None
    assert record.delay_p50_ms is not None
    assert record.delay_p99_ms is not None
    assert record.p50_ms + 20 < record.delay_p50_ms < record.delay_p99_ms - 20
    assert "| 100 | " in load_report.markdown(load_report.tables(document(record))[0])


def test_ratios_are_those_within_a_round() -> None:
    """A machine that was slow in one round does not change what is said of the bridges."""
    ours, theirs = runs("mediaflow", 5, 50, 6), runs("by hand", 10, 100, 12)
    assert load_report.ratio(ours, theirs, load_report.us_per_frame) == 0.5


def test_a_goal_without_measurement_says_so() -> None:
    """Nothing is claimed that was not measured, and a goal that is missed is told."""
    table = load_report.goals(document(*runs("mediaflow", 5), *runs("by hand", 10)))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["CPU per frame, saturated, to by hand"] == ["≤ 0.40 ×", "0.50 ×", "no"]
    assert rows["CPU per frame, saturated, to picows"] == ["≤ 0.80 ×", "not measured", ""]


@pytest.mark.parametrize(
    ("broken", "calls"),
    [({"p99_ms": 21.0}, 200), ({"waiting": 1}, 200), ({"faults": {"lost": 1}}, 200), ({}, 300)],
    ids=["late", "waiting", "lost", "well"],
)
def test_a_ramp_counts_what_was_carried(broken: dict[str, object], calls: int) -> None:
    """The last number of calls that was carried in time and whole is what a bridge carries."""
    steps = [Record("ramp", "mediaflow", number, p99_ms=1.0) for number in (100, 200)]
    last = msgspec.convert({"mode": "ramp", "row": "mediaflow", "calls": 300, "p99_ms": 1.0, **broken}, Record)
    assert load_report.carried(document(*steps, last), "mediaflow") == calls


@pytest.mark.slow
def test_a_core_that_is_shared_stands_still(needs: Callable[..., None]) -> None:
    """Where something else always runs on it, half the time is gone."""
    needs("gcc", "taskset")
    with subprocess.Popen(["taskset", "-c", str(CORE), sys.executable, "-c", "while True: pass"]) as busy:
        try:
            assert 0.2 < stalls.share(CORE) < 0.95
        finally:
            busy.kill()


def test_others_end_a_ramp() -> None:
    """Where something else had the core, the number of calls is not known, and no goal is judged by it."""
    ramp = [Record("ramp", "mediaflow", 100, p99_ms=1.0), Record("ramp", "mediaflow", 200, p99_ms=90.0, others=0.5)]
    assert load_report.carried(document(*ramp), "mediaflow") is None
    assert "200 calls: others" in load_report.text(document(*ramp, *runs("by hand", 10)))


def test_the_capacity_page_is_up_to_date() -> None:
    """docs/capacity.md is what `mediaflow bench load --page` writes."""
    data = (ROOT / "docs" / capacity.DATA).read_bytes()
    page = (ROOT / "docs" / capacity.PAGE).read_text()
    assert page == capacity.render(msgspec.json.decode(data, type=Document))
