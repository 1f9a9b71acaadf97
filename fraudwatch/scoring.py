"""Scoring of a window, slice after slice: each slice is one unit of work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fraudwatch import decisions, store
from fraudwatch.closing import Closed, Explained, close_days, late_q_values
from fraudwatch.scope import (
    KIND,
    SCORE_COLUMNS,
    Range,
    remember_reached,
    require_same_champion,
    watermark,
    with_all_columns,
)
from fraudwatch.workers import Part, Task, Window, shared_out
from shared import accounts, frames, registry, runs
from shared.accounts import days_before, local_day
from shared.jobs import Outcome, Request
from shared.runs import Run
from shared.source import Batch

if TYPE_CHECKING:
    from fraudwatch.assessing import Assessed, Assessor

SCORING = "fraudwatch.score"  # the job; a backfill is the other that scores
GATE_ROWS = 2_000  # of a short window the gate judges as many, until the next whole look-back


def score_range(
    run: Run, request: Request, model: registry.Stored, window: Range, role: str
) -> Outcome:
    from fraudwatch.assessing import Assessor

    inspection = accounts.inspect(run, window.since, window.until, whole=window.whole)
    limit, least = run.settings(KIND).quarantine_limit, 0 if window.whole else GATE_ROWS
    accounts.require_quality(inspection, limit, run.command, least)
    assessor = Assessor(run, model)
    raises = role == "published" and (run.job == SCORING or bool(request.options.get("raise")))
    scorer = _Scorer(run, request, model, role, inspection.undated)
    with run.results.transaction() as connection:
        scorer.watermark = watermark(connection, run) or 0
    task = Task(
        str(run.config.path), run.job, run.run_id, run.clock.isoformat(),
        model.model_version_id, role, raises,
    )  # fmt: skip
    own = Slices(run, assessor, role, raises).assessed
    workers = int(request.options.get("workers") or 1)
    for part in shared_out(run, task, inspection.slices, own, workers):
        scorer.take(part)
    late, closed = 0, Closed(0, 0, None)
    if not request.dry_run:
        late = _closed_books(run, window)
        if run.job == SCORING:
            closed = close_days(run, window.scope, _explained_by(run, assessor))
    return _outcome(scorer, window, inspection, closed, late)


def _explained_by(run: Run, assessor: Assessor) -> Explained:
    """Explains rows by the model that scored them: the champion, or one before it.

    One of an older release cannot be read: the champion stands in, and says what does not add up.
    """
    from fraudwatch.assessing import Assessor
    from fraudwatch.detector import Detector

    def explained(
        name: str, window: tuple[int, int], ids: Sequence[Any]
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        if name == assessor.model.model_version_id:
            return assessor.explored(window, ids)
        with run.results.transaction() as connection:
            model = registry.load(connection, run.tables, name)
        if not Detector.readable(model.header):
            return assessor.explored(window, ids)
        return Assessor(run, model).explored(window, ids)

    return explained


def _outcome(
    scorer: _Scorer, window: Range, inspection: accounts.Inspection, closed: Closed, late: int
) -> Outcome:
    model_version_id = scorer.model.model_version_id
    verb = "would have scored" if scorer.request.dry_run else "scored"
    said = f"{verb} {scorer.written} transactions with {model_version_id} and raised "
    return Outcome(
        message="\n".join(filter(None, [f"{said}{scorer.raised} alerts", closed.note])),
        data={
            "scored": scorer.written,
            "alerts": scorer.raised,
            "explored": closed.explored,
            "days_closed": closed.days,
            "quarantined": inspection.rows_refused,
            "too_late": late,
            "model_version_id": model_version_id,
            "note": closed.note,
        },
        rows_read=inspection.rows_read,
        rows_written=scorer.written,
        rows_quarantined=inspection.rows_refused,
        rows_late=scorer.late,
        rows_too_late=late,
        window_from=frames.moment(window.since),
        window_to=frames.moment(window.until),
        model_version_id=model_version_id,
        note=closed.note,
    )


class Slices:
    """Assesses slice after slice; writes nothing, so that any process may do it."""

    def __init__(self, run: Run, assessor: Assessor, role: str, raises: bool) -> None:
        self.run, self.assessor, self.role, self.raises = run, assessor, role, raises
        self.model = assessor.model

    def assessed(self, slices: Sequence[Window]) -> Iterator[Part]:
        """What each slice gives, one after the other."""
        read = accounts.stream(self.run, tuple(slices), self.assessor.lead)
        for window, (rows, own, batch) in zip(slices, read, strict=True):
            yield self._part(rows, own, batch, window)

    def _part(self, rows: pd.DataFrame, own: np.ndarray, batch: Batch, window: Window) -> Part:
        with self.run.results.transaction() as connection:
            done = store.published(connection, self.run.tables, *window)
        targets = own
        if self.role == "published" and len(done):
            targets = own[~rows.transaction_id.iloc[own].isin(done).to_numpy()]
        assessed = self.assessor.assess(rows, targets)
        scores = self._scores(assessed)
        alerts, reasons = self._alerts(assessed, scores)
        passed = batch.rows[["transaction_id"]]
        return Part(window, batch.rows_read, scores, alerts, reasons, batch.refused, passed)

    def _scores(self, assessed: Assessed) -> pd.DataFrame:
        picked = with_all_columns(assessed.rows)
        moments = picked.occurred_at.to_numpy()
        days = pd.Series(
            frames.local_days(moments, self.run.source.settings.timezone), index=picked.index
        )
        judged = assessed.judged
        return picked[list(SCORE_COLUMNS)].assign(
            day=days.dt.date if len(days) else days,
            log_likelihood=judged.scored.log_likelihood,
            surprise=judged.surprise,
            anomaly_score=judged.anomaly_score,
            p_value=judged.p_value,
            in_sample=moments < frames.micros(self.model.trained_to),
            model_version_id=self.model.model_version_id,
        )

    def _alerts(
        self, assessed: Assessed, scores: pd.DataFrame
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The alerts that the scores raise, in order, with their reasons; all but case and segment.

        `alert_id` of the reasons says whose they are.
        """
        at = decisions.raised(scores, self.assessor.level)
        if not self.raises or not len(at):
            return scores.iloc[:0], pd.DataFrame()
        said, reasons = self.assessor.raised(assessed.part(at))
        alerts = scores.iloc[at].reset_index(drop=True)
        alerts = alerts.assign(
            **{name: said[name] for name in said},
            alert_id=[decisions.natural_id("alert", key) for key in alerts.transaction_id],
            origin="threshold",
        )
        return alerts, reasons.assign(alert_id=alerts.alert_id.to_numpy()[reasons["row"]])


class _Scorer:
    """Takes part after part: the scores, alerts, reasons, quarantine and ledger row of each become
    visible together. The rows without a time stand with the first."""

    def __init__(
        self,
        run: Run,
        request: Request,
        model: registry.Stored,
        role: str,
        undated: pd.DataFrame | None,
    ) -> None:
        self.run, self.request, self.model, self.role = run, request, model, role
        self.undated = undated
        self.watermark = self.written = self.raised = self.late = 0

    def take(self, part: Part) -> None:
        self.run.progress(part.rows_read)
        if self.request.dry_run:
            self.written += len(part.scores)
            self.raised += len(part.alerts)
            return
        self._write(part, self.undated)
        self.undated = None

    def _write(self, part: Part, undated: pd.DataFrame | None) -> None:
        """One unit of work."""
        run, scores, window = self.run, part.scores, part.window
        refused = frames.gather([part.refused] if undated is None else [part.refused, undated])

        def work(connection: Any) -> tuple[int, int, int]:
            if self.role == "published":
                require_same_champion(connection, run, self.model)
            own = None if self.role == "published" else self.model.model_version_id
            new = store.unscored(connection, run.tables, scores.transaction_id, own)
            written = store.write_scores(connection, run, scores[new], self.role)
            raised = self._raise(connection, part.alerts, part.reasons, scores.transaction_id[new])
            still = accounts.less_published(connection, run, refused)
            quarantined = accounts.quarantine(
                connection, run, still, part.passed.transaction_id, window,
                undated=undated is not None,
            )  # fmt: skip
            runs.record_batch(
                connection,
                run,
                window=(frames.moment(window[0]), frames.moment(window[1])),
                rows_read=part.rows_read,
                rows_written=written,
                rows_quarantined=quarantined,
            )
            return written, raised, int((scores.occurred_at[new] < self.watermark).sum())

        written, raised, late = runs.unit(run, KIND, work)
        self.written += written
        self.raised += raised
        self.late += late

    def _raise(
        self, connection: Any, alerts: pd.DataFrame, reasons: pd.DataFrame, new: pd.Series
    ) -> int:
        """Writes the alerts of the rows that are new, each with its case, segment and q-value."""
        alerts = alerts[alerts.transaction_id.isin(new)]
        if alerts.empty:
            return 0
        earlier = store.earlier_alerts(connection, self.run.tables, alerts)
        case_days = self.run.settings(KIND).case_days
        alerts = alerts.assign(
            case_id=decisions.cases(alerts, earlier, case_days),
            segment_id=store.segments_then(connection, self.run, alerts),
            q_value=late_q_values(connection, self.run, alerts),
        )
        kept = reasons[reasons.alert_id.isin(alerts.alert_id)].drop(columns="row")
        return store.write_alerts(
            connection, self.run, alerts.drop(columns=["in_sample", "surprise"]), kept
        )


def _closed_books(run: Run, window: Range) -> int:
    """Renews the day counts and what the views need; returns the rows that came too late."""
    settings, zone = run.settings(KIND), run.source.settings.timezone
    scope = local_day(window.scope, zone)
    first = None if window.whole else local_day(window.since, zone)
    begin = None if first is None else frames.day_start(first, zone)
    counted = run.source.counted(frames.micros(run.clock), begin)

    def work(connection: Any) -> int:
        if run.job == SCORING:
            remember_reached(connection, run, window)
        newest = watermark(connection, run) or window.scope
        behind = local_day(days_before(newest, settings.allowed_lateness_days), zone)
        accounts.count_days(connection, run, scope, counted, first)
        runs.write_settings(
            connection,
            run.tables,
            {
                "reviews_per_day": str(settings.reviews_per_day),
                "false_discovery_rate": str(settings.false_discovery_rate or ""),
                "score_from": str(scope),
                "look_back_from": str(behind),
                "timezone": zone,
            },
        )
        return accounts.too_late(connection, run)

    return runs.unit(run, KIND, work)
