"""What people look at: the report, the figures, one transaction, and what they say of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fraudwatch import evaluation, features, report, store
from fraudwatch.scope import KIND, require_champion, scope_day, transaction_key
from fraudwatch.scoring import explained, with_all_columns
from shared import accounts, frames, registry, reports
from shared.accounts import days_before, local_day, until_or_newest
from shared.errors import ConfigurationError, DataQualityError
from shared.jobs import Outcome, Request
from shared.runs import Run


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
        "Fraud alerts",
        f"{run.source.mapping.table}, the last four weeks to {local_day(newest, zone)}",
        report.sections(found),
        generated_at=run.clock,
    )
    if not request.dry_run:
        path.write_text(html, encoding="utf-8")
    verb = "would have written" if request.dry_run else "wrote"
    return Outcome(f"{verb} {path}", {"path": str(path), "alerts": len(found["alerts"])})


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
    """The last amounts of the customers of the newest alerts, up to each alert."""
    empty = pd.DataFrame({"transaction_id": [], "occurred_at": [], "amount": []})
    named = alerts[alerts.customer_id.notna()]
    named = named.sort_values(["day", "priority"], ascending=False).head(most)
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
    champion = require_champion(run)
    with run.results.transaction() as connection:
        scope = scope_day(connection, run)
    zone = run.source.settings.timezone
    since = frames.micros(request.since) if request.since else frames.day_start(scope, zone)
    since = max(since, frames.micros(champion.trained_to)) if request.since is None else since
    until = until_or_newest(run, request.until)
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
        picked = with_all_columns(rows.iloc[own]).reset_index(drop=True)
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
    if scores.empty:
        raise DataQualityError(
            "fraudwatch evaluate found no scores from "
            f"{frames.moment(since):%Y-%m-%d} to {frames.moment(until):%Y-%m-%d}. Score first: "
            "peerwatch fraudwatch score, or choose another window: --from, --to."
        )
    return labelled.merge(scores, on="transaction_id", how="inner")


def _evaluated(run: Run, rows: pd.DataFrame, column: str, window: tuple[int, int]) -> Outcome:
    settings = run.settings(KIND)
    ripe = days_before(frames.micros(run.clock), settings.label_delay_days)
    # A zero that is younger than a chargeback may still become a fraud: it is unknown.
    known = rows[(rows.label > 0) | (rows.label.notna() & (rows.occurred_at <= ripe))]
    _require_labels(known, len(rows), column)
    fraud = known.label.to_numpy() > 0
    day = frames.local_days(known.occurred_at.to_numpy(), run.source.settings.timezone)
    budget = settings.reviews_per_day
    customer = known.customer_id.astype("object").where(
        known.customer_id.notna(), known.transaction_id
    )
    amount = known.amount.fillna(0.0).to_numpy()
    scorers = {
        "peerwatch (anomaly_score)": known.anomaly_score.to_numpy(),
        "peerwatch (log_likelihood)": -known.log_likelihood.to_numpy(),
        "rule: amount": amount,
        # Who has no payments yet is compared with a typical amount, which is 100 %.
        "rule: amount over own mean": amount / known.own_mean.replace(0, np.nan).fillna(100),
    }
    kinds = known.label_kind.to_numpy() if "label_kind" in known else None
    table = [
        {
            "score": name,
            **_figures(fraud, np.asarray(values), day, customer.to_numpy(), amount, budget, kinds),
        }
        for name, values in scorers.items()
    ]
    since, until = (frames.moment(value) for value in window)
    head = (
        f"{len(known)} labelled transactions, {int(fraud.sum())} frauds, "
        f"{since:%Y-%m-%d} to {until:%Y-%m-%d}"
    )
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
    """The figures of one score, over all frauds and per kind.

    Of a kind, Card Precision and value found say how much of the same reviews goes to that kind.
    """
    found = {
        "AUC": evaluation.auc(fraud, score),
        "AP": evaluation.average_precision(fraud, score),
    }
    reviewed = {"": fraud}
    if kinds is not None:
        for row in evaluation.per_kind(fraud, kinds, score).itertuples():
            found[f"AUC kind {row.kind}"] = row.auc
            found[f"AP kind {row.kind}"] = row.average_precision
            reviewed[f" kind {row.kind}"] = fraud & (kinds == row.kind)
    for k in sorted({100, budget}):
        for name, hits in reviewed.items():
            precision = evaluation.card_precision(day, customer, score, hits, k)
            found[f"Card Precision@{k}{name}"] = precision
            found[f"value found@{k}{name}"] = evaluation.value_found(day, amount, score, hits, k)
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

    key = transaction_key(run, str(request.options["transaction_id"]))
    champion = require_champion(run)
    detector = Detector.from_arrays(champion.header, champion.arrays)
    found = run.source.moment_of(str(key), frames.micros(run.clock))
    history = run.settings(KIND).history_days
    since = days_before(found, history)
    rows = run.source.read(since, found + 1, frames.micros(run.clock)).rows
    own = np.flatnonzero(rows.transaction_id == key)
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
        "evidence": _evidence(frame, rows.columns),
    }
    shown = reasons[["feature", "value", "expected", "contribution", "baseline"]].to_string(
        index=False
    )
    head = (
        f"{summaries[0]}\nlog_likelihood {data['log_likelihood']:.3f}, "
        f"anomaly_score {data['anomaly_score']:.2f} (alerts from {data['entry_level']:.2f}), "
        f"p_value {data['p_value']:.2g}"
    )
    return Outcome(f"{head}\n{shown}", data)


def _evidence(frame: pd.DataFrame, columns: Collection[str]) -> dict[str, float]:
    """What stands beside the density: shown, not part of the score."""
    beside = [f.name for f in features.declared(columns) if f.role == "evidence"]
    return {name: float(frame[name].iloc[0]) for name in beside if pd.notna(frame[name].iloc[0])}


def sample(run: Run, request: Request) -> Outcome:
    """Synthetic transactions from the champion's density, as a CSV file."""
    from fraudwatch.detector import Detector

    champion = require_champion(run)
    detector = Detector.from_arrays(champion.header, champion.arrays)
    drawn = detector.sample(int(request.options["size"]), int(request.options["seed"]))
    path = Path(str(request.options.get("out") or "fraudwatch_sample.csv"))
    if not request.dry_run:
        drawn.to_csv(path, index=False)
    verb = "would have written" if request.dry_run else "wrote"
    return Outcome(
        f"{verb} {len(drawn)} synthetic transactions to {path}",
        {"path": str(path), "rows": len(drawn)},
    )
