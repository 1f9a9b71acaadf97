"""Which rows are in scope, who is champion, and the books that close a scoring run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fraudwatch import store
from shared import frames, registry, runs
from shared.accounts import days_before, local_day
from shared.errors import ConfigurationError, TemporaryError
from shared.runs import Run

if TYPE_CHECKING:
    pass

KIND = "fraudwatch"
IN_SAMPLE_DAYS = 7  # before the end of the first training window: a new user sees alerts at once


def champion_of(run: Run) -> registry.Stored | None:
    with run.results.transaction() as connection:
        return registry.champion(connection, run.tables, KIND)


def require_champion(run: Run) -> registry.Stored:
    champion = champion_of(run)
    if champion is None:
        raise ConfigurationError(
            f"{run.job} found no champion. Fit one first: peerwatch fraudwatch fit"
        )
    return champion


def require_same_champion(connection: Any, run: Run, model: registry.Stored) -> None:
    """A promotion in the middle of a run ends it: the next run goes on with the new champion."""
    now = registry.champion_id(connection, run.tables, KIND)
    if now != model.model_version_id:
        raise TemporaryError(
            f"{run.job} was overtaken: {now} became champion. What is written stays; run it again."
        )


def scope_start(connection: Any, run: Run, champion: registry.Stored) -> int:
    """Where scoring begins, in microseconds; recorded, so that it can be seen in `settings`."""
    day = scope_day(connection, run)
    runs.write_settings(connection, run.tables, {"score_from": str(day)})
    return frames.day_start(day, run.source.settings.timezone)


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
    newest = store.watermark(connection, run.tables)
    known = runs.read_settings(connection, run.tables, "scored_from")
    if newest is None or known.get("", "9999") > str(scope).zfill(20):
        return scope
    late = run.settings(KIND).allowed_lateness_days
    zone = run.source.settings.timezone
    return max(scope, frames.day_start(local_day(days_before(newest, late), zone), zone))


def less_published(connection: Any, run: Run, refused: pd.DataFrame) -> pd.DataFrame:
    """A repeated id whose first row is scored already has one row less to account for."""
    repeated = refused[refused.code == "id_duplicate"]
    if repeated.empty:
        return refused
    keys = repeated.row_key.astype("str")
    typed = keys.astype("int64") if run.source.kinds["transaction"] == "integer" else keys
    scored = ~store.unscored(connection, run.tables, typed)
    less = refused.source_rows.astype("int64")
    less.loc[repeated.index[scored]] -= 1
    return refused.assign(source_rows=less)
