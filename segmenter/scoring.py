"""Customers to segments and states as of a moment, and the history before the first one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from segmenter import decisions, drift, population, store
from segmenter.champions import KIND, Model, require_columns, require_same_champion
from segmenter.population import Population
from shared import accounts, frames, runs
from shared.errors import ConfigurationError
from shared.jobs import Outcome, Request
from shared.runs import Run

if TYPE_CHECKING:
    from segmenter.training import Scores


@dataclass(frozen=True)
class Looked:
    """The customers as of one moment: their features and what the champion's density says."""

    as_of: int
    frame: pd.DataFrame
    scores: Scores
    seen_before: pd.Series

    def assigned(self, ids: Sequence[int], current: pd.Series) -> pd.DataFrame:
        """States and segments; current: the segment of each customer just before the moment."""
        return decisions.decide(self.scores, ids, self.seen_before, current)


def look(model: Model, people: Population, as_of: int) -> Looked:
    frame = model.frame(people, as_of)
    require_columns(model, frame)
    return Looked(as_of, frame, model.segmentation.score(frame), people.seen_before(as_of))


def in_order(ids: Sequence[int], looks: Iterable[Looked]) -> pd.DataFrame:
    """What a scoring of each moment would have said, the one before it being the present: the
    rows of all moments, with as_of."""
    parts: list[pd.DataFrame] = []
    current = pd.Series(dtype="Int64")
    for looked in looks:
        decided = looked.assigned(ids, current)
        current = decided.set_index("customer_id").segment_id
        parts.append(decided.assign(as_of=looked.as_of))
    return pd.concat(parts, ignore_index=True)


def read(run: Run, model: Model, first: int, last: int) -> Population:
    """The customers of all moments from `first` to `last`, through the quality gate."""
    people = population.read(run, first - model.lookback, last)
    limit = run.settings("fraudwatch").quarantine_limit
    accounts.require_quality(people.inspection, limit, run.command)
    return people


def refuse_earlier(run: Run, as_of: int) -> None:
    """History goes forward; what lies before the newest as-of is a backfill."""
    with run.results.transaction() as connection:
        _require_newest(connection, run, frames.moment(as_of))


def _require_newest(connection: Any, run: Run, as_of: datetime) -> None:
    newest = store.newest_as_of(connection, run.tables)
    if newest is not None and as_of < newest:
        raise ConfigurationError(
            f"segmenter score was asked for {_shown(as_of)}, but customers are "
            f"scored as of {_shown(newest)} already. For history before each customer's first "
            "period: peerwatch backfill segmenter --from T --to T --every month"
        )


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def counted(run: Run, model: Model, people: Population, looked: Looked) -> Outcome:
    """What a scoring would tell."""
    with run.results.transaction() as connection:
        current = store.current_segments(connection, run.tables, frames.moment(looked.as_of))
    decided = looked.assigned(model.ids, current)
    return _outcome(model, people, looked, decided, _drift(model, looked), None)


def written(run: Run, model: Model, people: Population, looked: Looked) -> Outcome:
    """Periods, features, drift, quarantine and ledger of an as-of moment become visible together.

    The present segments are read within: what is written follows from what stands there.
    """
    as_of = frames.moment(looked.as_of)
    metrics = _drift(model, looked)

    def work(connection: Any) -> tuple[pd.DataFrame, int, datetime]:
        require_same_champion(connection, run, model.name)
        _require_newest(connection, run, as_of)
        current = store.current_segments(connection, run.tables, as_of)
        decided = looked.assigned(model.ids, current)
        opened = store.write_periods(connection, run, decided, as_of, model.name)
        store.write_features(connection, run, looked.frame, as_of)
        store.rename(connection, run.tables, model.name, run.settings(KIND).names)
        store.write_drift(connection, run, metrics)
        newest_fit = store.newest_fit(connection, run.tables, KIND)
        _books(connection, run, people, (looked.as_of - model.lookback, looked.as_of), opened)
        return decided, opened, newest_fit

    decided, opened, newest_fit = runs.unit(run, KIND, work)
    outcome = _outcome(model, people, looked, decided, metrics, opened)
    due = bool(drift.drifted(metrics)) and drift.challenger_due(newest_fit, as_of)
    return replace(
        outcome, then=(f"{KIND}.fit",) if due and run.settings(KIND).refit_on_drift else ()
    )


def _drift(model: Model, looked: Looked) -> pd.DataFrame:
    return drift.measured(model.footing, looked.frame, looked.scores.log_density)


def _books(
    connection: Any, run: Run, people: Population, window: tuple[int, int], rows_written: int
) -> None:
    """Quarantine and ledger row of what was read; window: microseconds."""
    runs.record_batch(
        connection,
        run,
        window=(frames.moment(window[0]), frames.moment(window[1])),
        rows_read=people.inspection.rows_read,
        rows_written=rows_written,
        rows_quarantined=population.quarantined(connection, run, people, window),
    )


def _outcome(
    model: Model,
    people: Population,
    looked: Looked,
    decided: pd.DataFrame,
    metrics: pd.DataFrame,
    opened: int | None,
) -> Outcome:
    """What a scoring tells; `opened` is None where nothing was written."""
    states = decided.state.value_counts()
    counts = {state: int(states.get(state, 0)) for state in decisions.STATES}
    sizes = decided.segment_id.value_counts().reindex(list(model.ids), fill_value=0)
    verb = "would have scored" if opened is None else "scored"
    changes = "" if opened is None else f"; {opened} changed"
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return Outcome(
        message=f"{verb} {len(decided)} customers as of "
        f"{_shown(frames.moment(looked.as_of))} with {model.name}: {told}{changes}"
        f"{drift.said(metrics)}",
        data={
            "as_of": frames.moment(looked.as_of).isoformat(),
            "customers": len(decided),
            "states": counts,
            "segments": {str(key): int(count) for key, count in sizes.items()},
            "drifted": drift.drifted(metrics),
            "periods_opened": opened or 0,
            "rows_without_customer": people.unnamed,
            "quarantined": people.inspection.rows_refused,
            "model_version_id": model.name,
        },
        rows_read=people.inspection.rows_read,
        rows_written=len(decided) if opened is not None else 0,
        rows_quarantined=people.inspection.rows_refused,
        window_from=frames.moment(looked.as_of - model.lookback),
        window_to=frames.moment(looked.as_of),
        model_version_id=model.name,
        note=drift.said(metrics).removeprefix("; ") or None,
    )


def month_starts(run: Run, request: Request) -> list[int]:
    """The first moments of the months in [from, to), by the source's calendar."""
    if request.since is None or request.until is None:
        raise ConfigurationError("backfill segmenter needs --from and --to.")
    zone = run.source.settings.timezone
    clock = frames.micros(run.clock)
    since, until = frames.micros(request.since), min(frames.micros(request.until), clock)
    days = accounts.local_day(since, zone), accounts.local_day(until, zone)
    months = np.arange(days[0].astype("datetime64[M]"), days[1].astype("datetime64[M]") + 1)
    starts = [frames.day_start(month.astype("datetime64[D]"), zone) for month in months]
    found = [start for start in starts if since <= start < until]
    if not found:
        raise ConfigurationError(
            f"backfill segmenter found no first of a month from {_shown(request.since)} to "
            f"{_shown(request.until)}. Widen the range: --from, --to."
        )
    return found


def rebuilt(run: Run, request: Request, model: Model, moments: list[int]) -> Outcome:
    """Segment history as of each moment, up to each customer's first period."""
    with run.results.transaction() as connection:
        first = store.first_periods(connection, run.tables)
    if first.empty:
        raise ConfigurationError(
            "backfill segmenter found no customers with a segment or state yet. Score first: "
            "peerwatch segmenter score"
        )
    before = [moment for moment in moments if moment < int(first.valid_from.max())]
    if not before:
        return Outcome("nothing to rebuild: every customer's history begins earlier", {"rows": 0})
    window = before[0] - model.lookback, before[-1]
    people = read(run, model, before[0], before[-1])
    every = in_order(model.ids, (look(model, people, as_of) for as_of in before))

    def work(connection: Any) -> pd.DataFrame:
        require_same_champion(connection, run, model.name)
        history = decisions.history(every, store.first_periods(connection, run.tables))
        if not request.dry_run:
            store.write_history(connection, run, history, model.name)
            _books(connection, run, people, window, len(history))
        return history

    history = runs.unit(run, KIND, work)
    verb = "would have rebuilt" if request.dry_run else "rebuilt"
    customers = history.customer_id.nunique()
    return Outcome(
        message=f"{verb} {len(history)} periods of {customers} customers as of {len(before)} "
        "months",
        data={"rows": len(history), "customers": customers, "months": len(before)},
        rows_read=people.inspection.rows_read,
        rows_written=0 if request.dry_run else len(history),
        rows_quarantined=people.inspection.rows_refused,
        window_from=frames.moment(window[0]),
        window_to=frames.moment(window[1]),
        model_version_id=model.name,
    )
