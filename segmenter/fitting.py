"""A fit, from the customers of a window to the registered candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from segmenter import decisions, explanations, features, store
from segmenter.champions import (
    IDS,
    KIND,
    Model,
    assigned,
    champion_of,
    require_same_champion,
)
from segmenter.decisions import Match
from segmenter.population import Population
from shared import accounts, frames, registry, runs
from shared.accounts import days_before, until_or_newest
from shared.encoding import Feature
from shared.errors import ConfigurationError
from shared.jobs import Outcome, Request
from shared.runs import Run

if TYPE_CHECKING:
    from segmenter.training import Segmentation


@dataclass(frozen=True)
class Window:
    """What a fit learns from, and how far back is read to compare it with the champion."""

    since: int
    until: int
    read_from: int

    @property
    def moments(self) -> tuple[Any, Any]:
        return frames.moment(self.since), frames.moment(self.until)


@dataclass(frozen=True)
class Fitted:
    """A new segmentation, the customers it was fitted on, and how it came about."""

    segmentation: Segmentation
    declared: tuple[Feature, ...]
    frame: pd.DataFrame
    positions: pd.Series  # by customer_id; null where not assigned
    seen_before: pd.Series
    diagnostics: dict[str, Any]


def training_window(run: Run, request: Request) -> tuple[Window, Model | None]:
    """The window of the fit, and the champion that it will be compared with."""
    champion = champion_of(run)
    until = until_or_newest(run, request.until)
    since = days_before(until, run.settings(KIND).lookback_days)
    if request.since is not None:
        since = frames.micros(request.since)
    if since >= until:
        raise ConfigurationError(
            f"segmenter fit was asked for {frames.moment(since):%Y-%m-%d %H:%M} to "
            f"{frames.moment(until):%Y-%m-%d %H:%M}; --from should be before --until."
        )
    read_from = since if champion is None else min(since, until - champion.lookback)
    return Window(since, until, read_from), champion


def trained_on(run: Run, population: Population, window: Window) -> Fitted:
    from segmenter import training

    settings = run.settings(KIND)
    rows = population.within(window.since, window.until)
    levels = features.typical_levels(rows)
    frame = population.frame(window.since, window.until, levels)
    declared = features.declared(rows, population.customers, levels)
    generator = np.random.default_rng(settings.seed)
    segmentation, diagnostics = training.train(frame, declared, settings, generator, levels)
    seen = population.seen_before(window.until)
    decided, scores = assigned(segmentation, range(segmentation.n_segments), frame, seen)
    positions = decided.set_index("customer_id").segment_id
    figures = {
        "mean_log_likelihood": float(np.nanmean(scores.log_density)),
        "assigned_share": float((decided.state == decisions.ASSIGNED).mean()),
    }
    return Fitted(segmentation, declared, frame, positions, seen, diagnostics | figures)


def registered(
    run: Run,
    population: Population,
    window: Window,
    champion: Model | None,
    fitted: Fitted,
    outcome: Outcome,
) -> Outcome:
    """Stores the candidate, its segments and its gate, in one transaction with quarantine and
    ledger."""
    previous, lacking = _previous(population, window, champion)
    inspection = population.inspection
    with run.results.transaction() as connection:
        runs.lock(connection, KIND)
        require_same_champion(connection, run, None if champion is None else champion.name)
        next_id = store.next_segment_id(connection, run.tables)
        matched = decisions.match(
            previous, fitted.positions, fitted.segmentation.n_segments, next_id
        )
        name, new = _stored(connection, run, window, fitted, matched)
        gate = _gate(previous, fitted, matched, champion, lacking)
        if new:
            _published(connection, run, fitted, matched, name)
            registry.record_gate(connection, run.tables, name, gate)
            if champion is None or gate["passed"]:
                registry.promote(connection, run.tables, name, by=registry.AUTOMATIC, now=run.clock)
        status = registry.load(connection, run.tables, name).status
        refused = frames.gather([inspection.refused, inspection.undated])
        refused = accounts.less_published(connection, run, refused)
        quarantined = accounts.quarantine(
            connection,
            run,
            refused,
            population.passed,
            (window.read_from, window.until),
            undated=True,
        )
        runs.record_batch(
            connection, run, window=window.moments, rows_read=inspection.rows_read,
            rows_written=int(new), rows_quarantined=quarantined,
        )  # fmt: skip
    return _said(outcome, name, new, status, gate, fitted.diagnostics)


def _previous(
    population: Population, window: Window, champion: Model | None
) -> tuple[pd.Series, list[str]]:
    """The champion's segment id of each customer for the same moment, and features it lacks."""
    nothing = pd.Series(dtype="Int64")
    if champion is None:
        return nothing, []
    frame = champion.frame(population, window.until)
    lacking = champion.lacks(frame)
    if lacking:
        return nothing, lacking
    seen = population.seen_before(window.until)
    decided, _ = assigned(champion.segmentation, champion.ids, frame, seen)
    return decided.set_index("customer_id").segment_id, []


def _stored(
    connection: Any, run: Run, window: Window, fitted: Fitted, matched: Match
) -> tuple[str, bool]:
    """The model's id and whether it is new. The ids of its segments are not part of what it is,
    so that the same fit twice is one model."""
    header = {**fitted.segmentation.header(), "lookback": window.until - window.since}
    plain = {k: v for k, v in fitted.diagnostics.items() if isinstance(v, int | float)}
    return registry.store(
        connection,
        run.tables,
        KIND,
        header,
        fitted.segmentation.to_arrays(),
        now=run.clock,
        window=window.moments,
        rows=fitted.diagnostics["customers"],
        metrics={**plain, IDS: list(matched.ids)},
        card=_card(run, window, fitted),
    )


def _gate(
    previous: pd.Series,
    fitted: Fitted,
    matched: Match,
    champion: Model | None,
    lacking: list[str],
) -> dict[str, Any]:
    current = fitted.positions.map(dict(enumerate(matched.ids))).astype("Int64")
    passed, reasons = decisions.gate(previous, current, matched, fitted.diagnostics)
    if champion is None:  # nothing to compare with: it leads because it is alone
        return {"first": True, "passed": True, "reasons": fitted_reasons(fitted)}
    if lacking:
        reasons.append(f"the champion's features {', '.join(lacking)} are no longer mapped")
    return {
        "first": False,
        "passed": passed and not lacking,
        "reasons": reasons,
        "moved_share": decisions.moved_share(previous, current),
        "kept": list(matched.kept),
        "new": list(matched.new),
        "retired": list(matched.retired),
    }


def fitted_reasons(fitted: Fitted) -> list[str]:
    """What a first model would be told by the gate about itself."""
    return [
        f"in stratum {stratum['stratum']}: {stratum['refused']}"
        for stratum in fitted.diagnostics["strata"]
        if stratum["refused"]
    ]


def _published(connection: Any, run: Run, fitted: Fitted, matched: Match, model: str) -> None:
    """The segments of a new model with names and profiles."""
    ids = fitted.positions.map(dict(enumerate(matched.ids))).astype("Int64")
    segments = ids.iloc[: len(fitted.frame)].reset_index(drop=True)
    names = run.settings(KIND).names
    told = explanations.name_segments(fitted.frame, segments, fitted.declared, names)
    counts = segments.value_counts().reindex(list(matched.ids), fill_value=0).astype("int64")
    table = told.set_index("segment_id").reindex(counts.index)
    table = table.assign(
        name=table.name.fillna(pd.Series([f"Segment {i}" for i in counts.index], counts.index)),
        description=table.description.fillna("No customer of the fit is near enough to it."),
        named_by=np.where(counts.index.isin(list(names)), "configuration", "model"),
        customer_count=counts,
        share=counts / max(int(counts.sum()), 1),
        model_version_id=model,
    )
    profiles = explanations.profiles(fitted.frame, segments, fitted.declared)
    store.write_segments(
        connection,
        run,
        table.rename_axis("segment_id").reset_index(),
        profiles.assign(model_version_id=model),
    )


def _card(run: Run, window: Window, fitted: Fitted) -> dict[str, Any]:
    """The model card: purpose, data, features with reasons, choices, limits."""
    since, until = window.moments
    used = {stratum["stratum"]: stratum["columns"] for stratum in fitted.diagnostics["strata"]}
    return {
        "purpose": "groups of customers who behave alike; a person decides what they are good for",
        "source": run.source.mapping.table,
        "trained_from": since.isoformat(),
        "trained_to": until.isoformat(),
        "customers": fitted.diagnostics["customers"],
        "without_purchase": fitted.diagnostics["without_purchase"],
        "features": {
            feature.name: {
                "description": feature.description,
                "unit": feature.unit,
                "role": feature.role,
                **{name: columns[feature.name] for name, columns in used.items()},
            }
            for feature in fitted.declared
        },
        "strata": [
            {key: value for key, value in stratum.items() if key != "columns"}
            for stratum in fitted.diagnostics["strata"]
        ],
        "assumptions": [
            "a customer's behaviour within the window says what the customer is like",
            "within a segment the features, on their own scales, vary like a Gaussian",
        ],
        "limits": [
            "segments describe the past; they promise nothing about one customer",
            "mapped customer columns are read as they are now, not as of the moment",
        ],
        "seed": run.settings(KIND).seed,
    }


def _said(
    outcome: Outcome,
    name: str,
    new: bool,
    status: str,
    gate: Mapping[str, Any],
    diagnostics: Mapping[str, Any],
) -> Outcome:
    """The outcome of a fit that was stored."""
    told = {"champion": "champion", "candidate": "stays a candidate", "retired": "retired"}[status]
    verb = "fitted" if new else "fitted again, the same as before:"
    reasons = "" if status == "champion" or not new else f" ({'; '.join(gate['reasons'])})"
    customers = diagnostics["customers"] - diagnostics["without_purchase"]
    return replace(
        outcome,
        message=f"{verb} {name}: {diagnostics['segments']} segments of {customers} customers, "
        f"{told}{reasons}",
        data={**figures(diagnostics), "model_version_id": name, "status": status, "gate": gate},
        rows_written=int(new),
        model_version_id=name,
    )


def figures(diagnostics: Mapping[str, Any]) -> dict[str, Any]:
    """The single figures among the diagnostics."""
    return {k: v for k, v in diagnostics.items() if isinstance(v, int | float)}
