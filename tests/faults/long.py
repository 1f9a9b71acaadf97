"""What takes time to show: a year of daily slots, and memory that does not grow with the rows."""

from __future__ import annotations

import json
import resource
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from shared import accounts, runs, slots
from shared.jobs import Request
from shared.rules import Entry
from tests.builders import a_transaction, run_sql
from tests.faults.harness import SEED, Line, done, tell
from tests.faults.worlds import FEW, JOBS, World, without_the_future
from tests.small_bank import END, START, TYPES, copies

JOB = "fraudwatch.score"
DAILY: Mapping[str, Entry] = {JOB: Entry("0 6 * * *")}
AWAY = (40, 41, 42, 200)  # days on which no scheduler was there
A_DAY = 6  # rows
PATIENCE = 7200.0  # seconds
WARM = 60  # days after which memory is looked at
FLAT = 1.1  # times as much memory at the end of the year is still flat


def resident() -> int:
    """Memory of this process now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def year(world: World, days: int = 365) -> Line:
    """A simulated year of daily slots in one process, with days on which nobody was there."""
    line = Line("a year of daily slots", world.dialect, SEED, "")
    with copies(world.url) as url:
        copy = without_the_future(world.copy(url))
        copy.settings |= {"score_from": END.date(), "exploration_per_day": 0}
        told = json.loads(done(lambda: _lived(copy, days), patience=PATIENCE).splitlines()[-1])
        taken = Counter(status for (status,) in copy.ask(
            "SELECT status FROM #pipeline_runs WHERE slot_at IS NOT NULL"))  # fmt: skip
        away = sum(day < days for day in AWAY)
        scored = copy.count("transaction_scores")
        line.lost = max(days * A_DAY - scored, 0)
        line.doubled = max(scored - days * A_DAY, 0)
        denied = copy.denied(END + timedelta(days=days + 1))
        line.other = len(copy.unbalanced()) + sum(denied.values())
        line.other += int(taken != Counter(succeeded=days - away, missed=away))
        line.other += int(told["end"] > FLAT * told["warm"]) + int(told["files"] != told["opened"])
    grown = f"{told['warm'] / 2**20:.0f} to {told['end'] / 2**20:.0f} MiB"
    line.done = f"{days} days, {grown}, {told['files']} open files"
    return tell(line)


def _lived(world: World, days: int) -> str:
    """Day after day: rows come, the tables say what is due, and that is run."""
    found = {"warm": resident(), "opened": 0}
    for day in range(days):
        morning = END + timedelta(days=day + 1, hours=6, minutes=1)
        world.add(
            a_transaction(
                600_000 + day * A_DAY + at,
                (morning - timedelta(hours=3 * at + 7)).replace(tzinfo=None).isoformat(sep=" "),
                cust=(day + at) % 60 + 1,
                amt=20.0 + at,
                merchant_id=at,
            )
            for at in range(A_DAY)
        )
        if day not in AWAY:
            _run_what_is_due(world, morning)
        if day == min(WARM, days // 2):
            found |= {"warm": resident(), "opened": open_files()}
    return json.dumps(found | {"end": resident(), "files": open_files()})


def _run_what_is_due(world: World, now: datetime) -> None:
    config = world.config
    for due in slots.look(runs.open_results(config), DAILY, now):
        with runs.opened(config, due.job, now, slot=due.slot) as run:
            request = Request(options={"scheduled": True})
            runs.execute(run, JOBS[due.job], request, "schedule", due.slot)
    # A run ends by the real clock, which is far ahead: it would seem to run for months.
    world.say("UPDATE #pipeline_runs SET finished_at = started_at WHERE finished_at > started_at")


# --- memory ---------------------------------------------------------------------------------------

TIMES = 6  # as many rows a day as the small bank has
BOUND = 1.5  # times the memory, at most, for about eight times the rows
ROOM = 400 * 2**20  # bytes that a run may take beside what the process has


def bounded(world: World) -> Line:
    """A scoring of many rows in the memory that one of few rows needs, under a limit."""
    line = Line("memory bounded, RLIMIT_AS", world.dialect, SEED, "")
    with copies(world.url) as url:
        copy = world.copy(url)
        _multiply(copy)
        few, little = _peak(copy, 3)
        many, much = _peak(copy, 24)
        line.other = int(much > BOUND * little) + int(many < 6 * few)
    line.done = f"{few:,} rows in {little / 2**20:.0f} MiB, {many:,} in {much / 2**20:.0f} MiB"
    return tell(line)


def _multiply(world: World) -> None:
    names = ", ".join(TYPES)
    picked = ", ".join({"tx_id": "tx_id + 10000 * k"}.get(name, name) for name in TYPES)
    times = " UNION ALL ".join(f"SELECT {k} AS k" for k in range(1, TIMES))
    run_sql(
        world.url,
        f"DELETE FROM card_tx WHERE ts IS NULL OR amt IS NULL OR ts < '{START:%Y-%m-%d}' "
        f"OR ts >= '{END:%Y-%m-%d}' OR fraud = 1",
        f"INSERT INTO card_tx ({names}) SELECT {picked} FROM card_tx, ({times}) times",
    )


def _peak(world: World, days: int) -> tuple[int, int]:
    """(rows scored, most memory taken at once beside what there was) for so many days."""
    with copies(world.url) as url:
        copy = world.copy(url)
        copy.settings |= FEW | {"score_from": (END - timedelta(days=days)).date()}
        told = json.loads(done(lambda: _limited(copy), patience=PATIENCE).splitlines()[-1])
        return copy.count("transaction_scores"), told["peak"]


def _limited(world: World) -> str:
    accounts.SLICE_ROWS = 300
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + ROOM, virtual + ROOM))
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = resident()
    world.score()
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return json.dumps({"peak": peak - before})
