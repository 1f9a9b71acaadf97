"""Scoring of a window, slice after slice: each slice is one unit of work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fraudwatch import decisions, explanations, features, store
from fraudwatch.scope import KIND, require_same_champion, watermark
from shared import accounts, frames, registry, runs
from shared.accounts import days_before, local_day
from shared.jobs import Outcome, Request
from shared.runs import Run
from shared.source import Batch

if TYPE_CHECKING:
    from fraudwatch.detector import Detector

SCORING = "fraudwatch.score"  # the job; a backfill is the other that scores
SCORE_COLUMNS = (
    "transaction_id", "occurred_at", "customer_id", "counterparty_id", "amount", "currency",
)  # fmt: skip


@dataclass(frozen=True)
class Range:
    """What is looked at, and where the scope begins; microseconds."""

    since: int
    until: int
    scope: int


def score_range(
    run: Run, request: Request, model: registry.Stored, window: Range, role: str
) -> Outcome:
    from fraudwatch.detector import Detector

    settings = run.settings(KIND)
    inspection = accounts.inspect(run, window.since, window.until)
    accounts.require_quality(inspection, settings.quarantine_limit, run.command)
    scorer = _Scorer(run, request, model, Detector.from_arrays(model.header, model.arrays), role)
    with run.results.transaction() as connection:
        scorer.watermark = watermark(connection, run) or 0
    history = settings.history_days * frames.MICROSECONDS_PER_DAY
    undated: pd.DataFrame | None = inspection.undated
    for (since, until), (rows, own, batch) in zip(
        inspection.slices, accounts.stream(run, inspection.slices, history), strict=True
    ):
        scorer.slice(rows, own, batch, undated, (since, until))
        undated = None  # they stand with the first slice
    late = 0 if request.dry_run else _closed_books(run, window)
    verb = "would have scored" if request.dry_run else "scored"
    return Outcome(
        message=f"{verb} {scorer.written} transactions with {model.model_version_id} "
        f"and raised {scorer.raised} alerts",
        data={
            "scored": scorer.written,
            "alerts": scorer.raised,
            "quarantined": inspection.rows_refused,
            "too_late": late,
            "model_version_id": model.model_version_id,
        },
        rows_read=inspection.rows_read,
        rows_written=scorer.written,
        rows_quarantined=inspection.rows_refused,
        rows_late=scorer.late,
        rows_too_late=late,
        window_from=frames.moment(window.since),
        window_to=frames.moment(window.until),
        model_version_id=model.model_version_id,
    )


class _Scorer:
    """Scores slice after slice; each slice's scores, alerts, reasons, quarantine and ledger row
    become visible together."""

    def __init__(
        self, run: Run, request: Request, model: registry.Stored, detector: Detector, role: str
    ) -> None:
        self.run, self.request, self.model, self.detector = run, request, model, detector
        self.role = role
        self.level = detector.calibration.entry_level(run.settings(KIND).reviews_per_day)
        self.raises = role == "published" and (
            run.job == SCORING or bool(request.options.get("raise"))
        )
        self.watermark = self.written = self.raised = self.late = 0

    def slice(
        self,
        rows: pd.DataFrame,
        own: np.ndarray,
        batch: Batch,
        undated: pd.DataFrame | None,
        window: tuple[int, int],
    ) -> None:
        """One unit of work; the rows without a time, where given, belong to it."""
        with self.run.results.transaction() as connection:
            done = store.published(connection, self.run.tables, *window)
        targets = own
        if self.role == "published" and len(done):
            targets = own[~rows.transaction_id.iloc[own].isin(done).to_numpy()]
        scores = self.scores(rows, targets)
        alerts = decisions.decide(scores, self.level) if self.raises else scores.iloc[:0]
        explained = self._explained(rows, alerts)
        self.run.progress(batch.rows_read)
        if self.request.dry_run:
            self.written += len(scores)
            self.raised += len(alerts)
            return
        self._write(scores, alerts, explained, undated, batch, window)

    def scores(self, rows: pd.DataFrame, targets: np.ndarray) -> pd.DataFrame:
        """Scores of the target rows; a pure function of the model and the rows before them."""
        settings, calibration = self.run.settings(KIND), self.detector.calibration
        zone = self.run.source.settings.timezone
        frame = features.build(rows, targets, self.detector.reference, zone, settings.history_days)
        picked = with_all_columns(rows.iloc[targets])
        likelihood = self._log_likelihood(frame)
        moments = picked.occurred_at.to_numpy()
        days = pd.Series(frames.local_days(moments, zone), index=picked.index)
        return picked[list(SCORE_COLUMNS)].assign(
            day=days.dt.date if len(days) else days,
            log_likelihood=likelihood,
            anomaly_score=calibration.anomaly_score(likelihood),
            p_value=calibration.p_value(likelihood, moments),
            in_sample=moments < frames.micros(self.model.trained_to),
            model_version_id=self.model.model_version_id,
        )

    def _log_likelihood(self, frame: pd.DataFrame) -> np.ndarray:
        return self.detector.score(frame).log_likelihood if len(frame) else np.empty(0)

    def _explained(
        self, rows: pd.DataFrame, alerts: pd.DataFrame
    ) -> tuple[pd.DataFrame, list[str]]:
        """Reasons and summaries of the alerts."""
        if alerts.empty:
            return pd.DataFrame(), []
        at = pd.Index(rows.transaction_id).get_indexer(alerts.transaction_id)
        settings = self.run.settings(KIND)
        frame = features.build(
            rows, at, self.detector.reference, self.run.source.settings.timezone,
            settings.history_days,
        )  # fmt: skip
        return explained(self.detector, rows.iloc[at], frame)

    def _write(
        self,
        scores: pd.DataFrame,
        alerts: pd.DataFrame,
        explained: tuple[pd.DataFrame, list[str]],
        undated: pd.DataFrame | None,
        batch: Batch,
        window: tuple[int, int],
    ) -> None:
        run = self.run
        refused = frames.gather([batch.refused] if undated is None else [batch.refused, undated])
        with run.results.transaction() as connection:
            runs.lock(connection, KIND)
            if self.role == "published":
                require_same_champion(connection, run, self.model)
            own = None if self.role == "published" else self.model.model_version_id
            new = store.unscored(connection, run.tables, scores.transaction_id, own)
            written = store.write_scores(connection, run, scores[new], self.role)
            raised = self._raise(connection, alerts, explained, scores.transaction_id[new])
            refused = accounts.less_published(connection, run, refused)
            quarantined = accounts.quarantine(
                connection, run, refused, batch.rows.transaction_id, window,
                undated=undated is not None,
            )  # fmt: skip
            runs.record_batch(
                connection,
                run,
                window=(frames.moment(window[0]), frames.moment(window[1])),
                rows_read=batch.rows_read,
                rows_written=written,
                rows_quarantined=quarantined,
            )
        self.written += written
        self.raised += raised
        self.late += int((scores.occurred_at[new] < self.watermark).sum())

    def _raise(
        self,
        connection: Any,
        alerts: pd.DataFrame,
        explained: tuple[pd.DataFrame, list[str]],
        new: pd.Series,
    ) -> int:
        if alerts.empty:
            return 0
        reasons, summaries = explained
        alerts = alerts.assign(
            summary=summaries,
            alert_id=[decisions.natural_id("alert", key) for key in alerts.transaction_id],
            origin="threshold",
            priority=alerts.anomaly_score,
        )
        reasons = reasons.assign(alert_id=alerts.alert_id.to_numpy()[reasons["row"]])
        alerts = alerts[alerts.transaction_id.isin(new)]
        if alerts.empty:
            return 0
        earlier = store.earlier_alerts(connection, self.run.tables, alerts)
        case_days = self.run.settings(KIND).case_days
        alerts = alerts.assign(
            case_id=decisions.cases(alerts, earlier, case_days),
            segment_id=store.segments_then(connection, self.run, alerts),
        )
        kept = reasons[reasons.alert_id.isin(alerts.alert_id)].drop(columns="row")
        return store.write_alerts(connection, self.run, alerts.drop(columns="in_sample"), kept)


def explained(
    detector: Detector, rows: pd.DataFrame, frame: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """Reasons and summaries of rows whose features are `frame`."""
    surprise = explanations.Surprise(
        names=detector.names,
        focal=detector.focal,
        parts=detector.score(frame).surprise,
        baseline=detector.calibration.baseline,
        expected=detector.expected(frame, explanations.QUANTILES),
        levels=detector.levels(frame),
    )
    return explanations.explain(rows, frame, surprise, detector.reference)


def with_all_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns that the tables have, missing where nothing is mapped."""
    lacking = {
        name: np.nan if name == "amount" else None for name in SCORE_COLUMNS if name not in rows
    }
    return rows.assign(**lacking)


def _closed_books(run: Run, window: Range) -> int:
    """Renews the day counts and what the views need; returns the rows that came too late."""
    settings, zone = run.settings(KIND), run.source.settings.timezone
    scope = local_day(window.scope, zone)
    counted = run.source.counted(frames.micros(run.clock))
    with run.results.transaction() as connection:
        runs.lock(connection, KIND)
        if run.job == SCORING:
            _remember_reached(connection, run, window)
        newest = watermark(connection, run) or window.scope
        behind = local_day(days_before(newest, settings.allowed_lateness_days), zone)
        accounts.count_days(connection, run, scope, counted)
        runs.write_settings(
            connection,
            run.tables,
            {
                "reviews_per_day": str(settings.reviews_per_day),
                "score_from": str(scope),
                "look_back_from": str(behind),
                "timezone": zone,
            },
        )
        return accounts.too_late(connection, run)


def _remember_reached(connection: Any, run: Run, window: Range) -> None:
    """From where, and up to where, all that was visible is scored; microseconds."""
    known = runs.read_settings(connection, run.tables, "scored_until")
    until = max(window.until, int(known.get("", window.until)))
    reached = {"scored_from": str(window.scope), "scored_until": str(until)}
    runs.write_settings(connection, run.tables, reached)
