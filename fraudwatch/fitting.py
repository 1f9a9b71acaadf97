"""A fit from the window to the registered candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fraudwatch import decisions, features
from fraudwatch.scope import KIND, champion_of, scope_day
from shared import accounts, frames, registry, runs
from shared.accounts import days_before, until_or_newest
from shared.errors import DataQualityError
from shared.jobs import Outcome, Request
from shared.runs import Run

if TYPE_CHECKING:
    from fraudwatch.detector import Detector


@dataclass(frozen=True)
class Window:
    """Training until `split`, calibration from it on; microseconds."""

    since: int
    split: int
    until: int


def training_window(run: Run, request: Request) -> Window:
    settings = run.settings(KIND)
    until = until_or_newest(run, request.until)
    since = days_before(until, settings.training_days)
    if request.since is not None:
        since = frames.micros(request.since)
    since = max(since, _oldest(run, since, until))
    calibration = min(settings.calibration_days * frames.MICROSECONDS_PER_DAY, (until - since) // 3)
    return Window(since, until - calibration, until)


def _oldest(run: Run, since: int, until: int) -> int:
    """The first day with rows in the window: a shorter history than asked is split as it is."""
    counts, _ = run.source.counted(frames.micros(run.clock), since)
    if counts.empty:
        return since
    return frames.day_start(counts.index[0], run.source.settings.timezone)


def trained_on(
    run: Run, window: Window, inspection: accounts.Inspection
) -> tuple[Detector, int, dict[str, Any]]:
    from fraudwatch import detector

    settings = run.settings(KIND)
    rows = _reference_rows(run, window, inspection)
    if rows.empty:
        raise DataQualityError(
            "fraudwatch fit found no valid transaction from "
            f"{frames.moment(window.since):%Y-%m-%d} to {frames.moment(window.split):%Y-%m-%d}. "
            "Train on another window: --from, --until."
        )
    reference = features.reference(rows)
    parts = ((window.since, window.split), (window.split, window.until))
    slices = tuple(piece for part in parts for piece in within(inspection.slices, part))
    frame, moments = features_of(run, slices, reference, settings.history_days)
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


def _reference_rows(run: Run, window: Window, inspection: accounts.Inspection) -> pd.DataFrame:
    """Amounts and currencies of the training rows, for what is typical."""
    clock = frames.micros(run.clock)
    pieces = [
        run.source.read(start, end, clock).rows
        for start, end in within(inspection.slices, (window.since, window.split))
    ]
    kept = [piece.drop(columns="transaction_id") for piece in pieces]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


def within(
    slices: tuple[tuple[int, int], ...], window: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """The parts of the slices that lie in the window."""
    for start, end in slices:
        low, high = max(start, window[0]), min(end, window[1])
        if low < high:
            yield low, high


def features_of(
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
    # Rows of one moment, as of a source with dates only, have no older part: all are compared.
    older = np.sort(-scored.log_likelihood[newest if newest.all() else ~newest])
    expected = min(
        1.0, decisions.RAISED_PER_REVIEW * settings.reviews_per_day
        * fitted.calibration.days / max(len(frame), 1),
    )  # fmt: skip
    cut = older[int((1 - expected) * (len(older) - 1))]
    return {
        "finite": bool(np.isfinite(scored.log_likelihood).all()),
        "held_out_share": float(np.mean(-scored.log_likelihood[newest] > cut)),
        "expected_share": float(expected),
        "held_out_rows": int(newest.sum()),
        "mean_log_likelihood": float(scored.log_likelihood.mean()),
    }


def registered(
    run: Run,
    window: Window,
    inspection: accounts.Inspection,
    detector: Detector,
    trained: int,
    diagnostics: dict[str, Any],
    outcome: Outcome,
) -> Outcome:
    """Stores the candidate with its gate in one transaction with quarantine and ledger."""
    champion = champion_of(run)
    figures = _compared(run, window, inspection, detector, champion)
    gate = decisions.gate(diagnostics | figures[0], figures[1])
    moments = (frames.moment(window.since), frames.moment(window.until))
    counted = run.source.counted(frames.micros(run.clock))
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
        accounts.count_days(connection, run, scope_day(connection, run), counted)
        runs.record_batch(
            connection, run, window=moments, rows_read=inspection.rows_read, rows_written=1,
            rows_quarantined=new,
        )  # fmt: skip
        champions = registry.champion_id(connection, run.tables, KIND)
    verdict = "champion" if champions == name else "stays a candidate"
    data = {**diagnostics, "gate": gate, "status": verdict}
    against = "; ".join(f"not so: {check}" for check, good in gate["checks"].items() if not good)
    if champions != name and against:
        verdict = f"{verdict} ({against})"
    return said(outcome, f"fitted {name} on {trained} transactions: {verdict}", data, name)


def _compared(
    run: Run,
    window: Window,
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
    slices = tuple(within(inspection.slices, (window.split, window.until)))
    found = []
    for model in (detector, other):
        frame, _ = features_of(run, slices, model.reference, run.settings(KIND).history_days)
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


def _quarantine(connection: Any, run: Run, inspection: accounts.Inspection) -> int:
    refused = frames.gather([inspection.refused, inspection.undated])
    refused = accounts.less_published(connection, run, refused)
    window = (inspection.slices[0][0], inspection.slices[-1][1])
    return accounts.quarantine(connection, run, refused, None, window, undated=True)


def said(
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
