"""The bank that the faults are made in, and the end state that they must leave as it was."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from fraudwatch.jobs import JOBS as FRAUD_JOBS
from segmenter.jobs import JOBS as SEGMENT_JOBS
from shared import accounts, artifacts, runs, verifying
from shared.jobs import Outcome, Request
from tests.builders import a_transaction, run_sql
from tests.small_bank import END, NOW, SETTINGS, Bank, moment_of, transactions

JOBS = FRAUD_JOBS | SEGMENT_JOBS
SLICE = 60  # rows: many slices in a small bank
# Few alerts, which are what costs time; a run of a few hours may have more bad rows than good.
FEW = SETTINGS | {"reviews_per_day": 1, "exploration_per_day": 1, "quarantine_limit": 1.0}
REFUSED = (901, 902, 903, 904)  # ids of rows that the gate refuses
# What differs between two runs that did the same: who wrote a row, and when.
OF_THE_RUN = {
    "run_id", "first_run_id", "scored_at", "created_at", "closed_at", "counted_at", "seen_at",
    "resolved_at", "committed_at", "promoted_at",
}  # fmt: skip
OF_THE_CLOCK = ("look_back.at",)
# Tables of the end state, each with its key. `drift_metrics` is what each run measured; a day's
# drift stands in `closed_days` too.
STATE = {
    "transaction_scores": ("transaction_id", "model_version_id"),
    "fraud_alerts": ("alert_id",),
    "fraud_alert_reasons": ("alert_id", "rank"),
    "fraud_verdicts": ("verdict_id",),
    "closed_days": ("day",),
    "quarantined_rows": ("source_table", "row_key", "code", "day"),
    "source_days": ("day",),
    "customer_segments": ("customer_id", "valid_from"),
    "customer_features": ("customer_id",),
    "segments": ("segment_id", "model_version_id"),
    "segment_profiles": ("segment_id", "model_version_id", "feature"),
    "segment_lineage": ("to_model_version_id", "from_segment_id", "to_segment_id"),
    "model_versions": ("model_version_id",),
    "settings": ("key",),
}
State = Mapping[str, Mapping[tuple, tuple]]


class World(Bank):
    """The small bank with the jobs of both domains."""

    @property
    def dialect(self) -> str:
        return self.url.split(":")[0].split("+")[0]

    def do(self, job: str, now: datetime = NOW, **request: Any) -> Outcome:
        with runs.opened(self.config, job, now) as run:
            return runs.execute(run, JOBS[job], Request(**request), "manual")

    @property
    def begin(self) -> datetime:
        """Where scoring begins."""
        return datetime.combine(self.settings["score_from"], datetime.min.time(), END.tzinfo)

    @property
    def hours(self) -> int:
        """Of the source's time to be scored."""
        return (END - self.begin) // timedelta(hours=1)

    def copy(self, url: str) -> World:
        return World(url, self.results_url, dict(self.settings), self.mapped, self.source)

    def state(self) -> State:
        """All that a run leaves, without what names the run."""
        results = runs.open_results(self.config)
        found = {}
        with results.engine.connect() as connection:
            for name, key in STATE.items():
                table = getattr(results.tables, name)
                columns = [c for c in table.c if c.name not in OF_THE_RUN]
                select = sa.select(*columns)
                if name == "settings":
                    select = select.where(table.c.key.not_in(OF_THE_CLOCK))
                found[name] = _keyed(connection.execute(select).mappings().all(), key)
        return found

    def broken(self) -> int:
        """Rows that break what must hold at every moment, after a kill too."""
        (lacking,) = self.ask(
            "SELECT count(*) FROM #fraud_alerts a WHERE NOT EXISTS (SELECT 1 FROM "
            "#fraud_alert_reasons r WHERE r.alert_id = a.alert_id) OR NOT EXISTS (SELECT 1 FROM "
            "#transaction_scores s WHERE s.transaction_id = a.transaction_id "
            "AND s.role = 'published')"
        )
        (ledger,) = self.ask(
            "SELECT (SELECT COALESCE(sum(b.rows_written), 0) FROM #run_batches b JOIN "
            "#pipeline_runs r ON r.run_id = b.run_id WHERE r.job IN ('fraudwatch.score', "
            "'backfill.fraudwatch')) - (SELECT count(*) FROM #transaction_scores)"
        )
        return int(lacking[0]) + abs(int(ledger[0]))

    def denied(self, now: datetime = NOW) -> dict[str, int]:
        """What `verify` finds broken a day later."""
        checks = verifying.verify(self.config, now + timedelta(days=1))
        return {check["text"]: check["rows"] for check in checks if check["rows"]}

    def models(self) -> dict[str, str]:
        """Whole models and their status; a half one is an error."""
        results = runs.open_results(self.config)
        table = results.tables.model_versions
        with results.engine.connect() as connection:
            rows = connection.execute(sa.select(table)).mappings().all()
        for row in rows:
            artifacts.unpack(row["artifact"], row["sha256"])
        return {row["model_version_id"]: row["status"] for row in rows}


def _keyed(rows: Any, key: tuple[str, ...]) -> dict[tuple, tuple]:
    """Rows by key; a key that is there twice is told apart, so that it is seen."""
    seen: Counter[tuple] = Counter()
    found = {}
    for row in rows:
        name = tuple(str(row[column]) for column in key)
        seen[name] += 1
        found[(*name, seen[name])] = tuple(row.values())
    return found


def differences(found: State, expected: State) -> tuple[int, int, int]:
    """Rows that are lost, doubled (or too many), and other than expected."""
    lost = doubled = other = 0
    for name, wanted in expected.items():
        there = found[name]
        lost += len(wanted.keys() - there.keys())
        doubled += len(there.keys() - wanted.keys())
        other += sum(not _same(there[key], wanted[key]) for key in wanted.keys() & there.keys())
    return lost, doubled, other


def told(found: State, expected: State) -> list[str]:
    """The differences by name, for a failed test."""
    lines = []
    for name, wanted in expected.items():
        there = found[name]
        lines += [f"lost {name} {key}" for key in sorted(wanted.keys() - there.keys())]
        lines += [f"doubled {name} {key}" for key in sorted(there.keys() - wanted.keys())]
        lines += [
            f"other {name} {there[key]} for {wanted[key]}"
            for key in sorted(wanted.keys() & there.keys())
            if not _same(there[key], wanted[key])
        ]
    return lines[:20]


def _same(row: tuple, other: tuple) -> bool:
    return all(_equal(a, b) for a, b in zip(row, other, strict=True))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)
    return bool(a == b)


def prepared(url: str) -> World:
    """The fitted bank with customers in segments and rows that the gate refuses, to be scored."""
    world = World(url, settings=FEW)
    day = (END - timedelta(days=2)).replace(tzinfo=None)
    world.add(
        [
            a_transaction(REFUSED[0], day, amt=None),
            a_transaction(REFUSED[1], None),
            a_transaction(REFUSED[2], "2027-01-01 00:00:00"),
            a_transaction(REFUSED[3], day, amt=-1e300 if url.startswith("sqlite") else None),
        ]
    )
    world.do("segmenter.fit", until=END - timedelta(days=12))
    world.do("segmenter.score", until=END - timedelta(days=12))
    return world


def world_of(url: str, days: int) -> World:
    """A world that `prepared` made, of which the newest days are to be scored."""
    first = (END - timedelta(days=days)).date()
    return World(url, settings=FEW | {"score_from": first})


def without_the_future(world: World) -> World:
    """The world without its row of next year, which a clock ahead would take for the newest."""
    run_sql(world.url, f"DELETE FROM card_tx WHERE tx_id = {REFUSED[2]}")
    return world


def small_slices() -> None:
    accounts.SLICE_ROWS = SLICE


def in_scope(world: World) -> set[int]:
    """The ids of the bank's own rows that are to be scored."""
    return {row["tx_id"] for row in transactions() if moment_of(row) >= world.begin}


def keys_amiss(world: World, wanted: set[int]) -> tuple[int, int]:
    """How many of the wanted rows have no published score, and how many scores are too many."""
    rows = world.ask("SELECT transaction_id FROM #transaction_scores WHERE role = 'published'")
    found = [int(key) for (key,) in rows]
    return len(wanted - set(found)), len(found) - len(wanted & set(found))
