"""The jobs of fraudwatch: each a few verbs from the database to the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fraudwatch import decisions, evaluation, explanations, features, report, store
from shared import accounts, frames, registry, reports, runs
from shared.accounts import days_before, local_day
from shared.errors import ConfigurationError, DataQualityError, TemporaryError
from shared.jobs import Job, Outcome, Request
from shared.runs import Run
from shared.source import Batch

if TYPE_CHECKING:
    from fraudwatch.detector import Detector

KIND = "fraudwatch"
IN_SAMPLE_DAYS = 7  # before the end of the first training window: a new user sees alerts at once
SCORE_COLUMNS = [
    "transaction_id",
    "occurred_at",
    "customer_id",
    "counterparty_id",
    "amount",
    "currency",
]


# --- fit ---------------------------------------------------------------------------------------


def fit(run: Run, request: Request) -> Outcome:
    """Trains on the window, calibrates on its end, stores a candidate and asks the gate."""
    window = _training_window(run, request)
    inspection = accounts.inspect(run, window.since, window.until)
    settings = run.settings(KIND)
    accounts.require_quality(inspection, settings.quarantine_limit, "fraudwatch fit")
    detector, trained, diagnostics = _trained(run, window, inspection)
    outcome = Outcome(
        message="",
        rows_read=inspection.rows_read,
        rows_quarantined=inspection.rows_refused,
        window_from=frames.moment(window.since),
        window_to=frames.moment(window.until),
    )
    if request.dry_run:
        return _said(outcome, f"would have fitted a model on {trained} transactions", diagnostics)
    return _registered(run, window, inspection, detector, trained, diagnostics, outcome)


@dataclass(frozen=True)
class _Window:
    """Training until `split`, calibration from it on; microseconds."""

    since: int
    split: int
    until: int


def _training_window(run: Run, request: Request) -> _Window:
    settings = run.settings(KIND)
    until = _moment_or_newest(run, request.until) + (0 if request.until else 1)
    since = days_before(until, settings.training_days)
    if request.since is not None:
        since = frames.micros(request.since)
    since = max(since, _oldest(run, since, until))
    calibration = min(settings.calibration_days * frames.MICROSECONDS_PER_DAY, (until - since) // 3)
    return _Window(since, until - calibration, until)


def _oldest(run: Run, since: int, until: int) -> int:
    """The first day with rows in the window: a shorter history than asked is split as it is."""
    counts, _ = run.source.counted(frames.micros(run.clock), since)
    if counts.empty:
        return since
    return frames.day_start(counts.index[0], run.source.settings.timezone)


def _moment_or_newest(run: Run, given: datetime | None) -> int:
    """T: as given, else the newest valid transaction, never later than the clock."""
    clock = frames.micros(run.clock)
    if given is not None:
        return min(frames.micros(given), clock)
    newest = run.source.newest(clock)
    if newest is None:
        raise DataQualityError(
            f"{run.job} found no valid transaction in {run.source.mapping.table}. Check that the "
            "table has rows and that [source.transactions] time names the right column: "
            "peerwatch doctor"
        )
    return newest


def _trained(
    run: Run, window: _Window, inspection: accounts.Inspection
) -> tuple[Detector, int, dict[str, Any]]:
    from fraudwatch import detector

    settings = run.settings(KIND)
    rows = _reference_rows(run, window, inspection)
    if rows.empty:
        raise DataQualityError(
            f"fraudwatch fit found no valid transaction from {frames.moment(window.since):%Y-%m-%d} "
            f"to {frames.moment(window.split):%Y-%m-%d}. Train on another window: --from, --until."
        )
    reference = features.reference(rows)
    parts = ((window.since, window.split), (window.split, window.until))
    slices = tuple(piece for part in parts for piece in _within(inspection.slices, part))
    frame, moments = _features(run, slices, reference, settings.history_days)
    train = moments < window.split
    days = accounts.span_days(window.split, window.until)
    declared = features.declared(rows.columns)
    fitted, diagnostics = detector.fit(
        frame[train],
        frame[~train],
        declared,
        reference,
        (window.split, window.until, days),
        np.random.default_rng(settings.seed),
    )
    return (
        fitted,
        len(frame),
        diagnostics | _gate_figures(fitted, frame[~train], moments[~train], settings),
    )


def _reference_rows(run: Run, window: _Window, inspection: accounts.Inspection) -> pd.DataFrame:
    """Amounts and currencies of the training rows, for what is typical."""
    clock = frames.micros(run.clock)
    pieces = [
        run.source.read(start, end, clock).rows
        for start, end in _within(inspection.slices, (window.since, window.split))
    ]
    kept = [piece.drop(columns=["transaction_id", "occurred_at"]) for piece in pieces]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


def _within(
    slices: tuple[tuple[int, int], ...], window: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """The parts of the slices that lie in the window."""
    for start, end in slices:
        low, high = max(start, window[0]), min(end, window[1])
        if low < high:
            yield low, high


def _features(
    run: Run, slices: tuple[tuple[int, int], ...], reference: features.Reference, history_days: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Features of all rows of the slices, and their moments."""
    history = history_days * frames.MICROSECONDS_PER_DAY
    zone = run.source.settings.timezone
    built, moments = [], []
    for rows, own, batch in accounts.stream(run, slices, history):
        built.append(features.build(rows, own, reference, zone, history_days))
        moments.append(rows.occurred_at.to_numpy()[own])
        run.progress(batch.rows_read)
    return pd.concat(built, ignore_index=True), np.concatenate(moments)


def _gate_figures(
    fitted: Detector, frame: pd.DataFrame, moments: np.ndarray, settings: Any
) -> dict[str, Any]:
    """What the gate looks at: the newest quarter of the calibration days against the older."""
    scored = fitted.score(frame)
    newest = moments >= np.quantile(moments, 0.75)
    older = np.sort(-scored.log_likelihood[~newest])
    expected = min(
        1.0, decisions.RAISED_PER_REVIEW * settings.reviews_per_day
        * fitted.calibration.days / max(len(frame), 1),
    )  # fmt: skip
    cut = older[int((1 - expected) * (len(older) - 1))] if len(older) else 0.0
    return {
        "finite": bool(np.isfinite(scored.log_likelihood).all()),
        "held_out_share": float(np.mean(-scored.log_likelihood[newest] > cut)),
        "expected_share": float(expected),
        "held_out_rows": int(newest.sum()),
        "mean_log_likelihood": float(scored.log_likelihood.mean()),
    }


def _registered(
    run: Run,
    window: _Window,
    inspection: accounts.Inspection,
    detector: Detector,
    trained: int,
    diagnostics: dict[str, Any],
    outcome: Outcome,
) -> Outcome:
    """Stores the candidate with its gate in one transaction with quarantine and ledger."""
    champion = _champion(run)
    figures = _compared(run, window, inspection, detector, champion)
    gate = decisions.gate(diagnostics | figures[0], figures[1])
    moments = (frames.moment(window.since), frames.moment(window.until))
    with run.results.transaction() as connection:
        runs.lock(connection, KIND)
        name, _new = registry.store(
            connection,
            run.tables,
            KIND,
            detector.header(),
            detector.to_arrays(),
            now=run.clock,
            window=moments,
            rows=trained,
            metrics={k: v for k, v in diagnostics.items() if isinstance(v, (int, float))},
            card=_card(run, detector, diagnostics, moments),
        )
        first = champion is None
        if champion is None or champion.model_version_id != name:
            registry.record_gate(connection, run.tables, name, {"first": first, **gate})
        if champion is None or (gate["passed"] and champion.model_version_id != name):
            registry.promote(connection, run.tables, name, by=registry.AUTOMATIC, now=run.clock)
        new = _quarantine(connection, run, inspection)
        accounts.count_days(connection, run, _scope_day(connection, run))
        runs.record_batch(
            connection, run, window=moments, rows_read=inspection.rows_read, rows_written=1,
            rows_quarantined=new,
        )  # fmt: skip
    verdict = "champion" if first or gate["passed"] else "stays a candidate"
    data = {**diagnostics, "gate": gate, "status": verdict}
    return _said(outcome, f"fitted {name} on {trained} transactions: {verdict}", data, name)


def _compared(
    run: Run,
    window: _Window,
    inspection: accounts.Inspection,
    detector: Detector,
    champion: registry.Stored | None,
) -> tuple[dict[str, float], dict[str, float] | None]:
    """Mean log likelihood of the focal columns that both models know, on the calibration rows."""
    if champion is None:
        return {}, None
    from fraudwatch.detector import Detector

    other = Detector.from_arrays(champion.header, champion.arrays)
    common = [name for name in detector.names if name in other.names]
    slices = tuple(_within(inspection.slices, (window.split, window.until)))
    found = []
    for model in (detector, other):
        frame, _ = _features(run, slices, model.reference, run.settings(KIND).history_days)
        at = [model.names.index(name) for name in common]
        found.append(
            {"common_log_likelihood": -float(model.score(frame).surprise[:, at].sum(1).mean())}
        )
    return found[0], found[1]


def _card(
    run: Run, detector: Detector, diagnostics: Mapping[str, Any], window: tuple[datetime, datetime]
) -> dict[str, Any]:
    """The model card: purpose, data, assumptions, limits."""
    return {
        "purpose": "likelihood of a transaction given its customer's history; a person decides",
        "source": run.source.mapping.table,
        "trained_from": window[0].isoformat(),
        "trained_to": window[1].isoformat(),
        "calibrated_from": frames.moment(detector.calibration.since).isoformat(),
        "focal": {feature.name: feature.description for feature in detector.focal},
        "context": {feature.name: feature.description for feature in detector.context},
        "left_out": diagnostics["left_out"],
        "assumptions": [
            "calibration rows are mostly genuine",
            "amounts are judged on their own scale, relative to the customer and the currency",
        ],
        "limits": [
            "a compromised counterparty with ordinary payments cannot be seen without labels",
            "a customer without history is judged against all customers",
        ],
        "seed": run.settings(KIND).seed,
    }


# --- score -------------------------------------------------------------------------------------


def score(run: Run, request: Request) -> Outcome:
    """Scores what is in scope, visible and unscored, and raises alerts."""
    champion = _require_champion(run)
    until = _moment_or_newest(run, request.until) + (0 if request.until else 1)
    with run.results.transaction() as connection:
        scope = _scope(connection, run, champion)
        since = _look_back(connection, run, scope)
    return _scored(run, request, champion, _Range(since, until, scope), role="published")


def backfill(run: Run, request: Request) -> Outcome:
    """Scores a past range: published for what has no score, or a given model's beside them."""
    given = request.options.get("model")
    if request.since is None or request.until is None:
        raise ConfigurationError("backfill fraudwatch needs --from and --to.")
    champion = _require_champion(run)
    with run.results.transaction() as connection:
        scope = _scope(connection, run, champion)
        model = champion if given is None else registry.load(connection, run.tables, given)
    if model.kind != KIND:
        raise ConfigurationError(f"{model.model_version_id} is a {model.kind}, not a {KIND}.")
    window = _Range(frames.micros(request.since), frames.micros(request.until), scope)
    return _scored(run, request, model, window, role="backfill" if given else "published")


@dataclass(frozen=True)
class _Range:
    """What is looked at, and where the scope begins; microseconds."""

    since: int
    until: int
    scope: int


def _scored(
    run: Run, request: Request, model: registry.Stored, window: _Range, role: str
) -> Outcome:
    from fraudwatch.detector import Detector

    settings = run.settings(KIND)
    inspection = accounts.inspect(run, window.since, window.until)
    accounts.require_quality(inspection, settings.quarantine_limit, run.job)
    scorer = _Scorer(run, request, model, Detector.from_arrays(model.header, model.arrays), role)
    with run.results.transaction() as connection:
        scorer.watermark = store.watermark(connection, run.tables) or 0
    history = settings.history_days * frames.MICROSECONDS_PER_DAY
    undated = inspection.undated
    for (since, until), (rows, own, batch) in zip(
        inspection.slices, accounts.stream(run, inspection.slices, history), strict=True
    ):
        scorer.slice(rows, own, batch, undated, (since, until))
        undated = frames.no_refusals()
    late = 0 if request.dry_run else _closed_books(run, model, window)
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
            run.job != "backfill.fraudwatch" or bool(request.options.get("raise"))
        )
        self.watermark = self.written = self.raised = self.late = 0

    def slice(
        self,
        rows: pd.DataFrame,
        own: np.ndarray,
        batch: Batch,
        undated: pd.DataFrame,
        window: tuple[int, int],
    ) -> None:
        """One unit of work."""
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
        self._write(
            scores, alerts, explained, frames.gather([batch.refused, undated]), batch, window
        )

    def scores(self, rows: pd.DataFrame, targets: np.ndarray) -> pd.DataFrame:
        """Scores of the target rows; a pure function of the model and the rows before them."""
        settings, calibration = self.run.settings(KIND), self.detector.calibration
        zone = self.run.source.settings.timezone
        frame = features.build(rows, targets, self.detector.reference, zone, settings.history_days)
        picked = _with_all_columns(rows.iloc[targets])
        likelihood = self._log_likelihood(frame)
        moments = picked.occurred_at.to_numpy()
        days = pd.Series(frames.local_days(moments, zone), index=picked.index)
        return picked[SCORE_COLUMNS].assign(
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
        refused: pd.DataFrame,
        batch: Batch,
        window: tuple[int, int],
    ) -> None:
        run = self.run
        with run.results.transaction() as connection:
            runs.lock(connection, KIND)
            if self.role == "published":
                _require_same_champion(connection, run, self.model)
            own = None if self.role == "published" else self.model.model_version_id
            new = store.unscored(connection, run.tables, scores.transaction_id, own)
            written = store.write_scores(connection, run, scores[new], self.role)
            raised = self._raise(connection, alerts, explained, scores.transaction_id[new])
            refused = _less_published(connection, run, refused)
            quarantined = accounts.quarantine(connection, run, refused, batch.rows.transaction_id)
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
        alerts = alerts.assign(case_id=decisions.cases(alerts, earlier, case_days))
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


def _with_all_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns that the tables have, missing where nothing is mapped."""
    lacking = {
        name: np.nan if name == "amount" else None for name in SCORE_COLUMNS if name not in rows
    }
    return rows.assign(**lacking)


def _less_published(connection: Any, run: Run, refused: pd.DataFrame) -> pd.DataFrame:
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


# --- scope, champion, books ----------------------------------------------------------------------


def _champion(run: Run) -> registry.Stored | None:
    with run.results.transaction() as connection:
        return registry.champion(connection, run.tables, KIND)


def _require_champion(run: Run) -> registry.Stored:
    champion = _champion(run)
    if champion is None:
        raise ConfigurationError(
            f"{run.job} found no champion. Fit one first: peerwatch fraudwatch fit"
        )
    return champion


def _require_same_champion(connection: Any, run: Run, model: registry.Stored) -> None:
    """A promotion in the middle of a run ends it: the next run goes on with the new champion."""
    now = registry.champion_id(connection, run.tables, KIND)
    if now != model.model_version_id:
        raise TemporaryError(
            f"{run.job} was overtaken: {now} became champion. What is written stays; run it again."
        )


def _scope(connection: Any, run: Run, champion: registry.Stored) -> int:
    """Where scoring begins, in microseconds; recorded, so that it can be seen in `settings`."""
    day = _scope_day(connection, run)
    runs.write_settings(connection, run.tables, {"score_from": str(day)})
    return frames.day_start(day, run.source.settings.timezone)


def _scope_day(connection: Any, run: Run) -> np.datetime64:
    given = run.settings(KIND).score_from
    if given is not None:
        return np.datetime64(given, "D")
    end = store.first_training_end(connection, run.tables)
    end = frames.micros(run.clock) if end is None else end
    return local_day(
        end - IN_SAMPLE_DAYS * frames.MICROSECONDS_PER_DAY, run.source.settings.timezone
    )


def _look_back(connection: Any, run: Run, scope: int) -> int:
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


def _quarantine(connection: Any, run: Run, inspection: accounts.Inspection) -> int:
    refused = frames.gather([inspection.refused, inspection.undated])
    return accounts.quarantine(connection, run, _less_published(connection, run, refused))


def _closed_books(run: Run, model: registry.Stored, window: _Range) -> int:
    """Renews the day counts and what the views need; returns the rows that came too late."""
    settings, zone = run.settings(KIND), run.source.settings.timezone
    with run.results.transaction() as connection:
        newest = store.watermark(connection, run.tables) or window.scope
        behind = local_day(days_before(newest, settings.allowed_lateness_days), zone)
        accounts.count_days(connection, run, local_day(window.scope, zone))
        runs.write_settings(
            connection,
            run.tables,
            {
                "reviews_per_day": str(settings.reviews_per_day),
                "look_back_from": str(behind),
                "scored_from": str(window.scope).zfill(20),
                "timezone": zone,
                "model.fraudwatch": model.model_version_id,
            },
        )
        return accounts.too_late(connection, run)


# --- report, evaluate, explain, sample -----------------------------------------------------------


def write_report(run: Run, request: Request) -> Outcome:
    """The HTML report of the newest days."""
    zone = run.source.settings.timezone
    with run.results.transaction() as connection:
        newest = store.watermark(connection, run.tables)
        if newest is None:
            raise ConfigurationError(
                "fraudwatch report found no scores. Score first: peerwatch fraudwatch score"
            )
        day = local_day(newest, zone) - np.timedelta64(27, "D")
        found = store.report_frames(connection, run.tables, day.astype(object))
        champion = registry.champion(connection, run.tables, KIND)
    found |= _report_extras(run, found["alerts"], champion)
    path = Path(str(request.options.get("out") or "fraudwatch_report.html"))
    html = reports.render(
        "Fraud alerts", f"{run.source.mapping.table}, the last four weeks to {local_day(newest, zone)}",
        report.sections(found), generated_at=run.clock,
    )  # fmt: skip
    if not request.dry_run:
        path.write_text(html, encoding="utf-8")
    return Outcome(f"wrote {path}", {"path": str(path), "alerts": len(found["alerts"])})


def _report_extras(
    run: Run, alerts: pd.DataFrame, champion: registry.Stored | None
) -> dict[str, Any]:
    """Level, identity, and the recent amounts of the customers with alerts."""
    extras: dict[str, Any] = {"run": pd.DataFrame([{"run_id": run.run_id, "at": run.clock}])}
    if champion is not None:
        from fraudwatch.detector import Detector

        detector = Detector.from_arrays(champion.header, champion.arrays)
        level = detector.calibration.entry_level(run.settings(KIND).reviews_per_day)
        extras["level"] = pd.DataFrame([{"level": level}])
        extras["model"] = pd.DataFrame(
            [
                {
                    "model_version_id": champion.model_version_id,
                    "trained_from": champion.trained_from,
                    "trained_to": champion.trained_to,
                    **champion.metrics,
                }
            ]
        )
    extras["history"] = _history(run, alerts)
    return extras


def _history(run: Run, alerts: pd.DataFrame, most: int = 60) -> pd.DataFrame:
    """The last amounts of the customers of the foremost alerts, up to each alert."""
    empty = pd.DataFrame({"transaction_id": [], "occurred_at": [], "amount": []})
    named = alerts[alerts.customer_id.notna()].nlargest(most, "priority") if len(alerts) else alerts
    if named.empty or run.source.mapping.amount is None:
        return empty
    until = frames.micros(max(named.occurred_at)) + 1
    since = frames.micros(min(named.occurred_at)) - 30 * frames.MICROSECONDS_PER_DAY
    rows = run.source.read(since, until, frames.micros(run.clock)).rows
    rows = rows[rows.customer_id.isin(named.customer_id)]
    parts = []
    for alert in named.itertuples():
        own = rows[(rows.customer_id == alert.customer_id)]
        own = own[own.occurred_at <= frames.micros(alert.occurred_at)].tail(30)
        parts.append(own[["occurred_at", "amount"]].assign(transaction_id=alert.transaction_id))
    history = pd.concat(parts, ignore_index=True)
    return history.assign(occurred_at=[frames.moment(value) for value in history.occurred_at])


def evaluate(run: Run, request: Request) -> Outcome:
    """Quality against labels: AUC, AP, card precision and value found, beside one-line rules."""
    column = request.options.get("label") or run.source.mapping.label
    if column is None:
        raise ConfigurationError(
            "fraudwatch evaluate needs labels. Name their column: --label COLUMN, or map "
            "[source.transactions] label."
        )
    run.source.require_label(str(column))
    champion = _require_champion(run)
    with run.results.transaction() as connection:
        scope = _scope_day(connection, run)
    zone = run.source.settings.timezone
    since = frames.micros(request.since) if request.since else frames.day_start(scope, zone)
    since = max(since, frames.micros(champion.trained_to)) if request.since is None else since
    until = _moment_or_newest(run, request.until) + (0 if request.until else 1)
    rows = _labelled_rows(run, str(column), since, until, champion)
    return _evaluated(run, rows, str(column), (since, until))


def _labelled_rows(
    run: Run, column: str, since: int, until: int, champion: registry.Stored
) -> pd.DataFrame:
    """Published scores of the window with their labels and the rules' inputs."""
    from fraudwatch.detector import Detector

    detector = Detector.from_arrays(champion.header, champion.arrays)
    settings, zone = run.settings(KIND), run.source.settings.timezone
    inspection = accounts.inspect(run, since, until)
    history = settings.history_days * frames.MICROSECONDS_PER_DAY
    parts = []
    for rows, own, _batch in accounts.stream(run, inspection.slices, history, label=column):
        built = features.build(rows, own, detector.reference, zone, settings.history_days)
        picked = _with_all_columns(rows.iloc[own]).reset_index(drop=True)
        mean = (
            built["mean_amount_30d"]
            if "mean_amount_30d" in built
            else pd.Series(np.nan, built.index)
        )
        parts.append(picked.assign(own_mean=mean))
    if not parts:
        raise DataQualityError("fraudwatch evaluate found no transactions in the window.")
    labelled = pd.concat(parts, ignore_index=True)
    with run.results.transaction() as connection:
        scores = store.scores_between(connection, run.tables, since, until)
    return labelled.merge(scores, on="transaction_id", how="inner")


def _evaluated(run: Run, rows: pd.DataFrame, column: str, window: tuple[int, int]) -> Outcome:
    known = rows[rows.label.notna()]
    _require_labels(known, len(rows), column)
    fraud = known.label.to_numpy() > 0
    day = frames.local_days(known.occurred_at.to_numpy(), run.source.settings.timezone)
    budget = run.settings(KIND).reviews_per_day
    customer = known.customer_id.astype("object").where(
        known.customer_id.notna(), known.transaction_id
    )
    amount = known.amount.fillna(0.0).to_numpy()
    scorers = {
        "peerwatch (anomaly_score)": known.anomaly_score.to_numpy(),
        "peerwatch (log_likelihood)": -known.log_likelihood.to_numpy(),
        "rule: amount": amount,
        "rule: amount over own mean": amount
        / np.maximum(known.own_mean.fillna(0).to_numpy(), 1e-9),
    }
    kinds = known.label_kind.to_numpy() if "label_kind" in known else None
    table = [
        {"score": name, **_figures(fraud, values, day, customer.to_numpy(), amount, budget, kinds)}
        for name, values in scorers.items()
    ]
    since, until = (frames.moment(value) for value in window)
    head = f"{len(known)} labelled transactions, {int(fraud.sum())} frauds, {since:%Y-%m-%d} to {until:%Y-%m-%d}"
    return Outcome(
        f"{head}\n{pd.DataFrame(table).set_index('score').T.to_string()}",
        {"rows": len(known), "frauds": int(fraud.sum()), "scores": table},
    )


def _figures(
    fraud: np.ndarray,
    score: np.ndarray,
    day: np.ndarray,
    customer: np.ndarray,
    amount: np.ndarray,
    budget: int,
    kinds: np.ndarray | None,
) -> dict[str, float]:
    """The figures of one score, over all frauds and per kind."""
    found = {
        "AUC": evaluation.auc(fraud, score),
        "AP": evaluation.average_precision(fraud, score),
    }
    for k in sorted({100, budget}):
        found[f"Card Precision@{k}"] = evaluation.card_precision(day, customer, score, fraud, k)
        found[f"value found@{k}"] = evaluation.value_found(day, amount, score, fraud, k)
    if kinds is not None:
        for row in evaluation.per_kind(fraud, kinds, score).itertuples():
            found[f"AUC kind {row.kind}"] = row.auc
            found[f"AP kind {row.kind}"] = row.average_precision
    return {name: round(float(value), 4) for name, value in found.items()}


def _require_labels(known: pd.DataFrame, total: int, column: str) -> None:
    if known.empty:
        raise DataQualityError(
            f"fraudwatch evaluate found no label: {column} is null in all {total} scored rows of "
            "the window. Choose a window whose labels are known: --from, --to."
        )
    if known.label.nunique() == 1:
        raise DataQualityError(
            f"fraudwatch evaluate found one label only: {column} is {known.label.iloc[0]:g} in all "
            f"{len(known)} rows. It needs frauds and genuine ones: --from, --to."
        )


def explain(run: Run, request: Request) -> Outcome:
    """The likelihood, its parts and the reasons of one transaction, alert or not."""
    from fraudwatch.detector import Detector

    key = str(request.options["transaction_id"])
    champion = _require_champion(run)
    detector = Detector.from_arrays(champion.header, champion.arrays)
    found = run.source.moment_of(key, frames.micros(run.clock))
    history = run.settings(KIND).history_days
    since = days_before(found, history)
    rows = run.source.read(since, found + 1, frames.micros(run.clock)).rows
    own = np.flatnonzero(rows.transaction_id.astype("str") == key)
    zone = run.source.settings.timezone
    frame = features.build(rows, own, detector.reference, zone, history)
    reasons, summaries = explained(detector, rows.iloc[own], frame)
    likelihood = detector.score(frame).log_likelihood
    data = {
        "transaction_id": key,
        "model_version_id": champion.model_version_id,
        "log_likelihood": float(likelihood[0]),
        "anomaly_score": float(detector.calibration.anomaly_score(likelihood)[0]),
        "p_value": float(detector.calibration.p_value(likelihood, np.array([found]))[0]),
        "entry_level": detector.calibration.entry_level(run.settings(KIND).reviews_per_day),
        "summary": summaries[0],
        "reasons": reasons.drop(columns="row")
        .astype(object)
        .where(reasons.notna(), None)
        .to_dict("records"),
        "evidence": _evidence(frame),
    }
    shown = reasons[["feature", "value", "expected", "contribution", "baseline"]].to_string(
        index=False
    )
    head = f"{summaries[0]}\nlog_likelihood {data['log_likelihood']:.3f}, anomaly_score {data['anomaly_score']:.2f} (alerts from {data['entry_level']:.2f}), p_value {data['p_value']:.2g}"
    return Outcome(f"{head}\n{shown}", data)


def _evidence(frame: pd.DataFrame) -> dict[str, float]:
    """What stands beside the density: shown, not part of the score."""
    return {
        name: float(frame[name].iloc[0])
        for name in ("counterparty_surprise_7d",)
        if name in frame and pd.notna(frame[name].iloc[0])
    }


def sample(run: Run, request: Request) -> Outcome:
    """Synthetic transactions from the champion's density, as a CSV file."""
    from fraudwatch.detector import Detector

    champion = _require_champion(run)
    detector = Detector.from_arrays(champion.header, champion.arrays)
    drawn = detector.sample(int(request.options["size"]), int(request.options["seed"]))
    path = Path(str(request.options.get("out") or "fraudwatch_sample.csv"))
    if not request.dry_run:
        drawn.to_csv(path, index=False)
    return Outcome(
        f"wrote {len(drawn)} synthetic transactions to {path}",
        {"path": str(path), "rows": len(drawn)},
    )


def _said(
    outcome: Outcome, message: str, data: Mapping[str, Any], model: str | None = None
) -> Outcome:
    from dataclasses import replace

    return replace(
        outcome,
        message=message,
        data=data,
        rows_written=0 if model is None else 1,
        model_version_id=model,
    )


JOBS = {
    job.name: job
    for job in (
        Job("fraudwatch.fit", fit),
        Job("fraudwatch.score", score),
        Job("backfill.fraudwatch", backfill),
        Job("fraudwatch.report", write_report),
        Job("fraudwatch.evaluate", evaluate, writes=False),
        Job("fraudwatch.explain", explain, writes=False),
        Job("fraudwatch.sample", sample, writes=False),
    )
}
