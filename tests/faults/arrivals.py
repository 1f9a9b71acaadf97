"""Rows that come late or are broken, runs in any portions, clocks that jump, lost databases."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tests.builders import a_transaction, run_sql
from tests.faults.harness import SEED, TEMPORARY, Arm, Line, done, tell
from tests.faults.kills import Undisturbed, trial
from tests.faults.rivals import between_units, go_on, stopped
from tests.faults.worlds import REFUSED, World, in_scope, keys_amiss, small_slices
from tests.small_bank import END, NOW, TYPES, copies, moment_of, transactions


def _rows(ids: set[int]) -> list[Any]:
    return [row for row in transactions() if row["tx_id"] in ids]


def _remove(world: World, ids: set[int]) -> None:
    run_sql(world.url, f"DELETE FROM card_tx WHERE tx_id IN ({', '.join(map(str, ids))})")


@contextmanager
def _uncommitted(world: World, rows: list[Any]) -> Iterator[Callable[[], None]]:
    """Rows of a transaction that is open until it is told to commit. SQLite has one writer, which
    would be waited for: there they come when the commit would."""
    if world.dialect == "sqlite":
        yield lambda: world.add(rows)
        return
    engine = sa.create_engine(world.url, poolclass=sa.NullPool)
    table = sa.table("card_tx", *(sa.column(name) for name in TYPES))
    with engine.connect() as connection:
        connection.execute(sa.insert(table), [dict(row) for row in rows])
        yield connection.commit


def commit_order_hole(
    world: World, times: int, arm: Arm | None = None, *, control: bool = False
) -> Line:
    """Rows with lower ids and earlier times that are committed after later ones were scored."""
    name = "committed out of order" + " (control: plain watermark)" * control
    line = Line(name, world.dialect, SEED, f"{times} times", expected=not control)
    generator = random.Random(SEED)
    for _ in range(times):
        with copies(world.url) as url:
            copy = world.copy(url)
            wanted = in_scope(copy)
            slow = set(generator.sample(sorted(wanted)[:-1], 20))
            _remove(copy, slow)
            with _uncommitted(copy, _rows(slow)) as commit:
                done(lambda copy=copy: copy.score(), arm)
                commit()
            done(lambda copy=copy: copy.score(now=NOW + timedelta(hours=2)), arm)
            lost, doubled = keys_amiss(copy, wanted)
            line.lost, line.doubled = line.lost + lost, line.doubled + doubled
            line.other += copy.broken()
    return tell(line)


def beyond_the_look_back(world: World, times: int) -> Line:
    """Rows that come later than is looked for: counted, shown, and taken by a backfill."""
    line = Line("late beyond the look-back", world.dialect, SEED, "")
    generator, rows = random.Random(SEED), 0
    for _ in range(times):
        with copies(world.url) as url:
            copy = world.copy(url)
            copy.settings |= {"allowed_lateness_days": 1}
            copy.settings |= {"score_from": (END - timedelta(days=3)).date()}
            wanted, limit = in_scope(copy), END - timedelta(days=2)  # a day, and where it began
            old = sorted(row["tx_id"] for row in _rows(wanted) if moment_of(row) < limit)
            late = set(generator.sample(old, 20))
            _remove(copy, late)
            done(lambda copy=copy: copy.score())
            copy.add(_rows(late))
            later = NOW + timedelta(hours=2)
            done(lambda copy=copy, later=later: copy.score(now=later))
            told = copy.ask("SELECT rows_too_late FROM #pipeline_runs ORDER BY started_at")[-1][0]
            line.other += abs(told - len(late)) + abs(copy.covered("too_late") - len(late))
            span = {"since": copy.begin, "until": END}
            done(lambda copy=copy, span=span: copy.do("backfill.fraudwatch", NOW, **span))
            lost, doubled = keys_amiss(copy, wanted)
            line.lost, line.doubled = line.lost + lost, line.doubled + doubled
            line.other += copy.broken() + len(copy.unbalanced())
            rows += len(late)
    line.done = f"{rows} rows"
    return tell(line)


def in_portions(world: World, expected: Undisturbed, times: int) -> Line:
    """The same rows in runs and slices of other sizes, from a table in another order; and each
    range again, which writes nothing more."""
    line = Line("other portions, other order, again", world.dialect, SEED, "")
    generator, made = random.Random(SEED), 0
    for turn in range(times):
        with trial(line, world, expected) as copy:
            _shuffle(copy, generator)
            hours = sorted(generator.sample(range(1, copy.hours), (0, 1, 3, 7)[turn % 4]))
            moments = [copy.begin + timedelta(hours=hour) for hour in hours] + [None]
            for at, until in enumerate(moments):
                now = NOW + timedelta(minutes=at)
                for again in range(3 if until is None else 1):
                    clock = now + timedelta(seconds=again)
                    done(lambda copy=copy, clock=clock, until=until: _score(copy, clock, until))
                    made += 1
    line.done = f"{made} runs"
    return tell(line)


def _score(world: World, now: datetime, until: datetime | None) -> str:
    small_slices()
    return world.score(now=now, until=until).message


def _shuffle(world: World, generator: random.Random) -> None:
    """The source's rows in another order, without a key that would put them in order."""
    names = ", ".join(TYPES)
    kinds = ", ".join(f"{n} {k}" for n, k in (TYPES | {"tx_id": "BIGINT UNIQUE"}).items())
    run_sql(world.url, "ALTER TABLE card_tx RENAME TO old", f"CREATE TABLE card_tx ({kinds})")
    seed = generator.randint(2, 10**6)
    order = f"(tx_id * {seed}) % 1009, tx_id"
    run_sql(
        world.url,
        f"INSERT INTO card_tx ({names}) SELECT {names} FROM old ORDER BY {order}",
        "DROP TABLE old",
    )


def clock_jumps(world: World, expected: Undisturbed, times: int) -> Line:
    """A clock that goes back a day, 400 days ahead, back again, and stands still."""
    line = Line("clock back a day, 400 days ahead, frozen", world.dialect, SEED, "")
    generator, made = random.Random(SEED), 0
    for _ in range(times):
        with trial(line, world, expected) as copy:
            jumps = [timedelta(), timedelta(days=-1), timedelta(days=400), timedelta(), timedelta()]
            hours = sorted(generator.sample(range(1, copy.hours), len(jumps) - 1))
            untils = [copy.begin + timedelta(hours=hour) for hour in hours] + [None]
            for jump, until in zip(jumps, untils, strict=True):
                now = NOW + jump
                done(lambda copy=copy, now=now, until=until: _score(copy, now, until))
                made += 1
            line.other += copy.count("pipeline_runs", "finished_at < started_at")
    line.done = f"{made} runs"
    return tell(line)


def results_restored(world: World, expected: Undisturbed, times: int) -> Line:
    """Results in a database of their own that is set back; the next run heals it."""
    line = Line("results restored to an earlier point", world.dialect, SEED, f"{times} times")
    generator = random.Random(SEED)
    for _ in range(times):
        with copies(world.url) as source, copies(world.url) as results:
            ours = World(source, results, dict(world.settings))
            until = END - timedelta(hours=generator.randint(1, ours.hours - 1))
            done(lambda ours=ours, until=until: _score(ours, NOW, until))
            with copies(results) as backup:
                done(lambda ours=ours: _score(ours, NOW + timedelta(minutes=1), None))
                with trial(line, World(source, backup, ours.settings), expected) as restored:
                    done(lambda it=restored: _score(it, NOW + timedelta(minutes=2), None))
    return tell(line)


def source_restored(world: World, times: int) -> Line:
    """A source that is set back to an earlier point: `verify` names each orphan, and is content
    when the rows are there again."""
    line = Line("source restored to an earlier point", world.dialect, SEED, "")
    generator, orphans = random.Random(SEED), 0
    for _ in range(times):
        with copies(world.url) as url:
            copy = world.copy(url)
            wanted = in_scope(copy)
            done(lambda copy=copy: _score(copy, NOW, None))
            cut = END - timedelta(hours=generator.randint(1, copy.hours - 1))
            gone = {row["tx_id"] for row in _rows(wanted) if moment_of(row) >= cut}
            _remove(copy, gone)
            done(lambda copy=copy: _score(copy, NOW + timedelta(hours=2), None))
            named = copy.denied().get("no scored row has gone from the source", 0)
            copy.add(_rows(gone))
            done(lambda copy=copy: _score(copy, NOW + timedelta(hours=4), None))
            lost, doubled = keys_amiss(copy, wanted)
            line.lost, line.doubled = line.lost + lost, line.doubled + doubled
            line.other += abs(named - len(gone)) + sum(copy.denied().values())
            orphans += len(gone)
    line.done = f"{orphans} orphans"
    return tell(line)


def source_changes(world: World, times: int) -> Line:
    """Rows that are removed or changed while a run is under way: each is scored once or not at
    all, and one that was scored and then removed is named."""
    line = Line("source changed during a run", world.dialect, SEED, "")
    generator, changed = random.Random(SEED), 0
    for _ in range(times):
        with copies(world.url) as url:
            copy = world.copy(url)
            wanted = in_scope(copy)
            some = generator.sample(sorted(wanted), 30)
            gone, other = set(some[:15]), ", ".join(map(str, some[15:]))
            child = stopped(
                lambda copy=copy: _score(copy, NOW, None), between_units(generator.randint(4, 8))
            )
            _remove(copy, gone)
            run_sql(copy.url, f"UPDATE card_tx SET amt = amt + 1 WHERE tx_id IN ({other})")
            line.other += int(go_on(child).code not in (0, TEMPORARY))  # a change is noticed
            done(lambda copy=copy: _score(copy, NOW + timedelta(hours=2), None))
            lost, orphans = keys_amiss(copy, wanted - gone)
            named = copy.denied().get("no scored row has gone from the source", 0)
            line.lost += lost
            line.other += abs(named - orphans) + copy.broken()
            changed += len(some)
    line.done = f"{changed} rows"
    return tell(line)


POISON: dict[str, dict[str, list[Any]]] = {
    "sqlite": {
        "amt": [None, "abc", "1.234,56", float("inf"), 1e300, b"\xff\xfe", ""],
        "ts": [None, "", "2026-13-45", "yesterday", b"\xff", 1e300],
        "km": ["far", float("inf"), b"\xff"],
        "cust": ["somebody", b"\xff"],
    },
    "postgresql": {
        "amt": [None, "NaN"],
        "ts": [None, "infinity", "-infinity", "0044-03-15 BC"],
        "km": ["NaN", "Infinity", "-Infinity", "1e300"],
    },
}


def poison(world: World, times: int) -> Line:
    """Rows that cannot be scored among those that can, one of each kind in every slice."""
    line = Line("poison rows in every slice", world.dialect, SEED, "")
    put = 0
    for _ in range(times):
        with copies(world.url) as url:
            copy = world.copy(url)
            wanted = in_scope(copy)
            rows = list(_poison(copy))
            copy.add(rows)
            done(lambda copy=copy: _score(copy, NOW, None))
            lost, doubled = keys_amiss(copy, wanted)
            line.lost, line.doubled = line.lost + lost, line.doubled + doubled
            told = copy.covered("quarantined") - len(REFUSED)
            line.other += abs(told - len(rows)) + len(copy.unbalanced()) + copy.covered("pending")
            put += len(rows)
    line.done = f"{put} rows"
    return tell(line)


def _poison(world: World) -> Iterator[dict[str, Any]]:
    ids = iter(range(100_000, 200_000))
    for day in range((END.date() - world.settings["score_from"]).days):
        moment = (END - timedelta(days=day, hours=19)).replace(tzinfo=None)
        for column, values in POISON[world.dialect].items():
            for value in values:
                yield a_transaction(next(ids), moment.isoformat(sep=" ")) | {column: value}
