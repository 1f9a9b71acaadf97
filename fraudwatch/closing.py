"""The close of a day: q-values, the promise of a rate, and the reviews drawn to be explored.

It has no twin: a segment has no day. A day closes once, in order, each in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy.engine import Connection

from fraudwatch import decisions, store
from fraudwatch.config import span
from fraudwatch.decisions import Footing
from fraudwatch.explanations import EVIDENCE, RANKER
from fraudwatch.scope import KIND
from shared import frames, registry, runs
from shared.accounts import local_day
from shared.runs import Run

RECENT_DAYS = 30  # the longest window of delayed risk: what an alert's verdict still tells
DRIFT = "largest deviation of a day's shares of p-values"  # in standard deviations of one day

# (model, window of the day in microseconds, transaction ids of it) -> (alerts, reasons): of each id
# the row that its alert will be (source columns and summary; priority and more where there is
# more), and its reasons, `row` being their place in the alerts.
Explained = Callable[[str, tuple[int, int], Sequence[Any]], tuple[pd.DataFrame, pd.DataFrame]]
SAME = 1e-5  # nats: what lines that sum to a score may differ from it


@dataclass(frozen=True)
class Closed:
    """What a run closed. note: why the newest closed day has no promised rate, where it lacks it
    although one is asked."""

    days: int
    explored: int
    note: str | None


def close_days(run: Run, scope: int, explained: Explained) -> Closed:
    """Closes the days in scope, from the first with a score on, that ended `close_after` ago.

    Now is the moment up to which all that is visible is scored (`scored_until`, never later than
    the clock), so that it does not matter when a run happens. scope: where scoring begins,
    microseconds.
    """
    closer = _Closer(run, explained)
    for day in _due(run, scope):
        closer.close(day)
    with run.results.transaction() as connection:
        note = promise_note(connection, run)
    return Closed(closer.days, closer.explored, note)


def _due(run: Run, scope: int) -> list[date]:
    """The days to close, in order."""
    zone = run.source.settings.timezone
    settle = span(run.settings(KIND).close_after) or timedelta()  # the settings were checked
    with run.results.transaction() as connection:
        reached = runs.setting(connection, run.tables, "scored_until")
        oldest = store.oldest_scored(connection, run.tables, scope)
        if reached is None or oldest is None:
            return []
        over = min(int(reached), frames.micros(run.clock)) - settle // timedelta(microseconds=1)
        last: date = (local_day(over, zone) - np.timedelta64(1, "D")).astype(object)
        first: date = local_day(oldest, zone).astype(object)
        return store.days_to_close(connection, run.tables, first, last)


def promise_note(connection: Connection, run: Run) -> str | None:
    """Why no rate is promised as of the newest closed day; None where one is, or none is asked."""
    last = store.last_closed(connection, run.tables)
    if last is None or last.promised or last.false_discovery_rate is None:
        return None
    return f"No false-discovery rate is promised for {last.day}: {last.reason}."


def late_q_values(connection: Connection, run: Run, alerts: pd.DataFrame) -> np.ndarray:
    """(n,) q-values of alerts whose day is closed already, by that day's stored cut; else NaN.

    alerts: day, p_value. To be called under the writers' lock, so that no day closes meanwhile.
    """
    found = np.full(len(alerts), np.nan)
    days = np.array([pd.Timestamp(day).date() for day in alerts.day], dtype=object)
    cuts, steps = store.closed_steps(connection, run.tables, days)
    p_values = alerts.p_value.to_numpy(dtype=float)
    for closed in cuts.itertuples():
        here, own = days == closed.day, steps[steps.day == closed.day]
        known = (own.p_value.to_numpy(dtype=float), own.q_value.to_numpy(dtype=float))
        found[here] = decisions.late_q_values(
            p_values[here], known, _number(closed.cut), _number(closed.false_discovery_rate)
        )
    return found


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


class _Closer:
    """Closes day after day; what models say of their calibration is read once."""

    def __init__(self, run: Run, explained: Explained) -> None:
        self.run, self.explained, self.settings = run, explained, run.settings(KIND)
        self.footings: dict[str, Footing | None] = {}
        self.days = self.explored = 0

    def close(self, day: date) -> None:
        """One unit of work: reviews, q-values, drift and the day's row become visible together."""
        run, zone = self.run, self.run.source.settings.timezone
        ends = [frames.day_start(np.datetime64(day) + step, zone) for step in (0, 1)]
        window = (ends[0], ends[1])
        reviews, reasons = self._reviews(day, window)  # reads the source: not within our lock

        def work(connection: Connection) -> bool:
            if store.is_closed(connection, run.tables, day):
                return False
            if len(reviews):
                segments = store.segments_then(connection, run, reviews)
                store.write_alerts(connection, run, reviews.assign(segment_id=segments), reasons)
            self._judge(connection, day, store.day_p_values(connection, run.tables, day, window))
            return True

        if runs.unit(run, KIND, work):
            self.days += 1
            self.explored += len(reviews)

    def _judge(self, connection: Connection, day: date, found: pd.DataFrame) -> None:
        """Writes the q-values of the day's alerts, its drift, and its row."""
        p_values, counts = found.p_value.to_numpy(float), found["count"].to_numpy(np.int64)
        q_values = decisions.benjamini_hochberg(p_values, counts)
        rate = self.settings.false_discovery_rate
        cut = decisions.cut_of(p_values, q_values, rate)
        alerts = store.alerts_on(connection, self.run.tables, day)
        found_q = decisions.late_q_values(
            alerts.p_value.to_numpy(float), (p_values, q_values), None, None
        )
        store.write_q_values(connection, self.run.tables, alerts.assign(q_value=found_q))
        model = _main_model(found)
        drift, limit = self._drift(connection, model, found)
        drifted = drift is not None and drift > limit
        reason = self._against(connection, day, found, drifted)
        if drift is not None:
            metric = {"feature": "p_value", "statistic": f"{DRIFT}, {day}", "value": drift,
                      "threshold": limit, "drifted": drifted}  # fmt: skip
            store.write_drift(connection, self.run, metric)
        closed = {
            "day": day,
            "scored": int(counts.sum()),
            "cut": cut,
            "false_discovery_rate": rate,
            "promised": reason is None,
            "reason": reason,
            "drift": drift,
            "drifted": drifted,
            "model_version_id": model,
        }
        store.write_closed_day(connection, self.run, closed)

    def _drift(
        self, connection: Connection, model: str | None, found: pd.DataFrame
    ) -> tuple[float | None, float]:
        """How far the day's p-values lie from their model's calibration, and how far they may."""
        footing = None if model is None else self._footing(connection, model)
        if footing is None or found.in_sample.any():
            return None, np.inf
        own = found[found.model_version_id == model]
        drift = footing.drift(own.p_value.to_numpy(float), own["count"].to_numpy(np.int64))
        return drift, footing.drift_limit

    def _against(
        self, connection: Connection, day: date, found: pd.DataFrame, drifted: bool
    ) -> str | None:
        """What speaks against promising the asked rate for a day; None where nothing does."""
        if self.settings.false_discovery_rate is None:
            return "no rate is asked"
        if found.empty:
            return "no transaction was scored"
        if found.in_sample.any():
            return "some of its transactions lie in the training window of their model"
        models = sorted(found.model_version_id.unique())
        for model in models:
            footing = self._footing(connection, model)
            if footing is None:
                return f"{model} does not tell how well its calibration is known; fit anew"
            weakness = footing.weakness()
            if weakness is not None:
                return weakness
        since = store.first_drift(connection, self.run.tables, models, day)
        if since is None and not drifted:
            return None
        return (
            f"the p-values have drifted from their calibration since {since or day}; "
            "recalibrate or fit anew"
        )

    def _footing(self, connection: Connection, model: str) -> Footing | None:
        """What a promise on the model's p-values rests on; None of a model of an older version."""
        if model not in self.footings:
            said = registry.load(connection, self.run.tables, model).header.get("footing")
            self.footings[model] = None if said is None else Footing.from_json(said)
        return self.footings[model]

    def _reviews(self, day: date, window: tuple[int, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The alerts, with their reasons, of the day's rows that are drawn to be explored."""
        run, size = self.run, self.settings.exploration_per_day
        if not size:
            return pd.DataFrame(), pd.DataFrame()
        with run.results.transaction() as connection:
            scores = store.unalerted(connection, run.tables, day, window)
            since = day - timedelta(days=RECENT_DAYS - 1)
            recent = store.alerted_counterparties(connection, run.tables, since, day)
        rows = run.source.read(*window, frames.micros(run.clock)).rows
        generator = np.random.default_rng([self.settings.seed, day.toordinal()])
        keys = _candidates(rows, scores.transaction_id.tolist())
        chosen = drawn(keys, recent, size, generator)
        picked = scores[scores.transaction_id.isin(chosen)]
        found = [
            _explored(*self.explained(str(model), window, own.transaction_id.tolist()), own, day)
            for model, own in picked.groupby("model_version_id")
        ]
        if not found:
            return pd.DataFrame(), pd.DataFrame()
        alerts, reasons = (pd.concat(each, ignore_index=True) for each in zip(*found, strict=True))
        return alerts, reasons


def _main_model(found: pd.DataFrame) -> str | None:
    """The model that scored most of a day; the first by name among equals."""
    if found.empty:
        return None
    rows = found.groupby("model_version_id", sort=True)["count"].sum()
    return str(rows.idxmax())


def _candidates(rows: pd.DataFrame, unalerted: list[Any]) -> list[tuple[Any, Any]]:
    """(transaction, counterparty or None) of the source rows without an alert, in key order."""
    keys = rows.transaction_id.tolist()
    named: list[Any] = [None] * len(keys)
    if "counterparty_id" in rows:
        column = rows.counterparty_id.astype("object")
        named = column.where(column.notna(), None).tolist()
    there = set(unalerted)
    return sorted(
        ((key, name) for key, name in zip(keys, named, strict=True) if key in there),
        key=lambda pair: pair[0],
    )


def drawn(
    rows: Sequence[tuple[Any, Any]], recent: set[Any], size: int, generator: np.random.Generator
) -> list[Any]:
    """Transactions to review that raised no alert: `size` of them, or all there are.

    rows: (transaction, counterparty or None) in key order. Half of them are one row each of
    counterparties drawn evenly among those without a recent alert, so that a small one is looked
    at as often as a large one; the others, and what the half lacks, evenly among the rows.
    """
    of: dict[Any, list[int]] = {}
    for at, (_, counterparty) in enumerate(rows):
        if counterparty is not None and counterparty not in recent:
            of.setdefault(counterparty, []).append(at)
    names = sorted(of)
    some = generator.permutation(len(names))[: size // 2]
    chosen = [of[names[at]][int(generator.integers(len(of[names[at]])))] for at in some]
    left = np.setdiff1d(np.arange(len(rows)), np.array(chosen, dtype=np.int64))
    more = generator.permutation(left)[: size - len(chosen)]
    return [rows[at][0] for at in [*chosen, *more.tolist()]]


def _explored(
    alerts: pd.DataFrame, reasons: pd.DataFrame, scores: pd.DataFrame, day: date
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Alerts of drawn rows as they are written, with the scores as published, and their reasons.

    Each is a case of its own: it raised nothing that another alert could go on from. A row whose
    lines no longer sum to its score, for an earlier one came late, is not reviewed.
    """
    keys = alerts.transaction_id.tolist()
    published = scores.set_index("transaction_id").loc[keys].reset_index(drop=True)
    alerts = alerts.reset_index(drop=True).assign(
        **{name: published[name] for name in published},
        alert_id=[decisions.natural_id("alert", key) for key in keys],
        case_id=[decisions.natural_id("case", "exploration", key) for key in keys],
        origin="exploration",
        day=day,
    )
    if "priority" not in alerts:
        alerts["priority"] = alerts.anomaly_score
    reasons = reasons.reset_index(drop=True)
    within = ~reasons.feature.str.startswith((EVIDENCE, RANKER))
    sums = reasons[within].groupby("row").contribution.sum().reindex(alerts.index)
    same = ((sums + alerts.log_likelihood).abs() <= SAME).to_numpy()
    names = alerts.alert_id.to_numpy()[reasons["row"]]
    kept = reasons[same[reasons["row"]]]
    return alerts[same], kept.drop(columns="row").assign(alert_id=names[kept.index])
