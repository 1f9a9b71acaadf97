"""Which rows are in scope, who is champion, and the books that close a scoring run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from fraudwatch import store
from shared import frames, registry, runs
from shared.accounts import days_before, local_day
from shared.errors import ConfigurationError, OvertakenError
from shared.jobs import Request
from shared.runs import Run

KIND, RANKER = "fraudwatch", "ranker"  # the models of this domain
SCORE_COLUMNS = (
    "transaction_id", "occurred_at", "customer_id", "counterparty_id", "amount", "currency",
)  # fmt: skip
IN_SAMPLE_DAYS = 7  # before the end of the first training window: a new user sees alerts at once
HOUR, DAY = 3_600_000_000, frames.MICROSECONDS_PER_DAY
LOOK_BACK_EVERY = HOUR  # a look-back of days, made at each run, would be most of what is read
OVERLAP = HOUR  # rows seldom become visible in the order of their times
ARRIVAL_MARGIN = HOUR  # the longest transaction that writes rows: their arrival is its beginning


def transaction_key(run: Run, text: str) -> Any:
    """A transaction's id, given as text, as its table has it."""
    kind, expected = run.source.kinds["transaction"], {"integer": "whole numbers", "uuid": "UUIDs"}
    try:
        key: Any = int(text) if kind == "integer" else str(UUID(text)) if kind == "uuid" else text
    except ValueError:
        key = None
    if key in (None, "") or (kind == "integer" and not -(2**63) <= key < 2**63):
        raise ConfigurationError(
            f'"{text}" is no transaction id; they are {expected.get(kind, "texts")} here.'
        )
    return key


def with_all_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns that the tables have, missing where nothing is mapped."""
    lacking = {
        name: np.nan if name == "amount" else None for name in SCORE_COLUMNS if name not in rows
    }
    return rows.assign(**lacking)


def champion_of(run: Run) -> registry.Stored | None:
    with run.results.transaction() as connection:
        return registry.champion(connection, run.tables, KIND)


def require_champion(run: Run) -> registry.Stored:
    champion = champion_of(run)
    if champion is None:
        raise ConfigurationError(
            f"{run.command} found no champion. Fit one first: peerwatch fraudwatch fit"
        )
    return champion


def require_same_champion(connection: Any, run: Run, model: registry.Stored | None) -> None:
    """A promotion in the middle of a run ends it: the next run goes on with the new champion.

    model: the champion when the run began; None where there was none.
    """
    now = registry.champion_id(connection, run.tables, KIND)
    if now != (None if model is None else model.model_version_id):
        raise OvertakenError(
            f"{run.command} was overtaken: {now} became champion. What is written stays; run it "
            "again."
        )


def scope_start(connection: Any, run: Run) -> int:
    """Where scoring begins, in microseconds."""
    return frames.day_start(scope_day(connection, run), run.source.settings.timezone)


def scope_day(connection: Any, run: Run) -> np.datetime64:
    given = run.settings(KIND).score_from
    if given is not None:
        return np.datetime64(given, "D")
    end = store.first_training_end(connection, run.tables)
    end = frames.micros(run.clock) if end is None else end
    return local_day(
        end - IN_SAMPLE_DAYS * frames.MICROSECONDS_PER_DAY, run.source.settings.timezone
    )


@dataclass(frozen=True)
class Range:
    """What is looked at, and where the scope begins; microseconds."""

    since: int
    until: int
    scope: int
    whole: bool = True  # a whole look-back, with the rows that have no time
    arrived: int | None = None  # the newest arrival that was seen before anything was read


def to_score(run: Run, request: Request, until: int) -> Range:
    """What a run looks at: the whole look-back, or what is new and what is known to be late.

    A person's run always looks back wholly, so that what is there is found. The schedule's does so
    when it is due, and in between begins shortly before the watermark, or with the earliest row
    that arrived late.
    """
    with run.results.transaction() as connection:
        scope = scope_start(connection, run)
        whole = look_back(connection, run, scope)
        newest = watermark(connection, run)
        known = runs.read_settings(connection, run.tables, "look_back.")
        same = runs.setting(connection, run.tables, "scored_from") == str(scope)
    by_hand = not request.options.get("scheduled")
    if newest is None or not same or by_hand or _is_due(run, known):
        return Range(whole, until, scope, arrived=_newest_arrival(run))
    since, arrived = max(whole, newest - OVERLAP), None
    if run.source.mapping.arrived_at is not None:
        late, arrived = _arrived_late(run, int(known[_arrivals(run)]), (whole, since))
        since = min(since, late)
    return Range(since, until, scope, whole=False, arrived=arrived)


def _is_due(run: Run, known: Mapping[str, str]) -> bool:
    """Whether the last whole look-back is too long ago, or (as of a clock that went back) to
    come."""
    mapped = run.source.mapping.arrived_at is not None
    every = DAY if mapped else LOOK_BACK_EVERY
    if "at" not in known or (mapped and _arrivals(run) not in known):
        return True
    return not 0 <= frames.micros(run.clock) - int(known["at"]) < every


def _arrivals(run: Run) -> str:
    """The setting that holds the newest arrival that was seen, of this column."""
    return f"arrived.{run.source.mapping.arrived_at}"


def _newest_arrival(run: Run) -> int | None:
    if run.source.mapping.arrived_at is None:
        return None
    return run.source.newest(frames.micros(run.clock), "arrived_at")


def _arrived_late(run: Run, seen: int, window: tuple[int, int]) -> tuple[int, int]:
    """(the earliest moment in the window of a row that arrived of late and has no score, the newest
    arrival); the window's end where there is no such row."""
    late, newest = run.source.arrived(seen - ARRIVAL_MARGIN, window, frames.micros(run.clock))
    with run.results.transaction() as connection:
        new = store.unscored(connection, run.tables, late.transaction_id)
    earliest = late.occurred_at[new].min() if new.any() else window[1]
    return int(earliest), max(seen, newest or seen)


def remember_reached(connection: Any, run: Run, window: Range) -> None:
    """From where, and up to where, all that was visible is scored; microseconds.

    A run that ended before the newest scored row, as of `--until`, is no look-back.
    """
    known = runs.setting(connection, run.tables, "scored_until")
    until = max(window.until, int(known or window.until))
    reached = {"scored_until": str(until)}
    newest = store.watermark(connection, run.tables)
    to_the_end = newest is None or window.until > newest
    if to_the_end:
        reached["scored_from"] = str(window.scope)
    if to_the_end and window.whole:
        reached["look_back.at"] = str(frames.micros(run.clock))
        reached["look_back.until"] = str(newest or until)
    if to_the_end and window.arrived is not None:
        reached[f"look_back.{_arrivals(run)}"] = str(window.arrived)
    runs.write_settings(connection, run.tables, reached)


def look_back(connection: Any, run: Run, scope: int) -> int:
    """Where new rows are looked for: a few days behind the newest row that was scored when the last
    look-back was whole, within the scope.

    An earlier scope than the last run's is looked at from its start.
    """
    newest = watermark(connection, run)
    known = runs.setting(connection, run.tables, "scored_from")
    if newest is None or known is None or int(known) > scope:
        return scope
    until = runs.setting(connection, run.tables, "look_back.until")
    newest = newest if until is None else min(newest, int(until))
    late = run.settings(KIND).allowed_lateness_days
    zone = run.source.settings.timezone
    return max(scope, frames.day_start(local_day(days_before(newest, late), zone), zone))


def watermark(connection: Any, run: Run) -> int | None:
    """The newest scored moment up to which all that was visible is scored; None before any run.

    A backfill may have scored newer rows, and a run that was killed some of its slices.
    """
    newest = store.watermark(connection, run.tables)
    reached = runs.setting(connection, run.tables, "scored_until")
    return None if newest is None or reached is None else min(newest, int(reached))
