"""Which rows are in scope, who is champion, and the books that close a scoring run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from fraudwatch import store
from shared import frames, registry, runs
from shared.accounts import days_before, local_day
from shared.errors import ConfigurationError, TemporaryError
from shared.runs import Run

KIND, RANKER = "fraudwatch", "ranker"  # the models of this domain
SCORE_COLUMNS = (
    "transaction_id", "occurred_at", "customer_id", "counterparty_id", "amount", "currency",
)  # fmt: skip
IN_SAMPLE_DAYS = 7  # before the end of the first training window: a new user sees alerts at once


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


def require_same_champion(connection: Any, run: Run, model: registry.Stored) -> None:
    """A promotion in the middle of a run ends it: the next run goes on with the new champion."""
    now = registry.champion_id(connection, run.tables, KIND)
    if now != model.model_version_id:
        raise TemporaryError(
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


def look_back(connection: Any, run: Run, scope: int) -> int:
    """Where new rows are looked for: a few days behind the newest scored row, within the scope.

    An earlier scope than the last run's is looked at from its start.
    """
    newest = watermark(connection, run)
    known = runs.read_settings(connection, run.tables, "scored_from")
    if newest is None or int(known[""]) > scope:
        return scope
    late = run.settings(KIND).allowed_lateness_days
    zone = run.source.settings.timezone
    return max(scope, frames.day_start(local_day(days_before(newest, late), zone), zone))


def watermark(connection: Any, run: Run) -> int | None:
    """The newest scored moment up to which all that was visible is scored; None before any run.

    A backfill may have scored newer rows, and a run that was killed some of its slices.
    """
    newest = store.watermark(connection, run.tables)
    reached = runs.read_settings(connection, run.tables, "scored_until").get("")
    return None if newest is None or reached is None else min(newest, int(reached))
