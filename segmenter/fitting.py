"""A fit, from the customers of a window to the registered candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from segmenter import decisions, drift, explanations, features, lineage, store
from segmenter.champions import (
    IDS,
    KIND,
    Model,
    assigned,
    base_of,
    champion_of,
    require_same_champion,
)
from segmenter.lineage import Match
from segmenter.population import Population, quarantined
from segmenter.refitting import Fitted, Previous, Task, refitted
from shared import frames, registry, runs
from shared.accounts import days_before, until_or_newest
from shared.errors import ConfigurationError
from shared.jobs import Outcome, Request
from shared.reports import plural
from shared.runs import Run


@dataclass(frozen=True)
class Window:
    """What a fit learns from, and how far back is read to compare it with the champion."""

    since: int
    until: int
    read_from: int

    @property
    def moments(self) -> tuple[Any, Any]:
        return frames.moment(self.since), frames.moment(self.until)


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


def trained_on(
    run: Run, population: Population, window: Window, champion: Model | None
) -> tuple[Fitted, Previous]:
    """The candidate, and what the champion says of the same customers.

    Where the model to begin from was asked the same, the candidate is its warm refit; else a fit
    from nothing.
    """
    previous = _previous(population, window, champion)
    base = base_of(run, champion, window.moments[1])
    if base is not None and not previous.lacking:
        task = _task(run, population, window, base)
        if base.question == task.question:
            before = previous if base is champion else _previous(population, window, base)
            return refitted(task, base.segmentation, before), previous
    task = _task(run, population, window, None)
    return task.fitted(None, {"start": None, "reason": _why_cold(base)}), previous


def _why_cold(base: Model | None) -> str:
    return (
        "there is no earlier champion to begin from"
        if base is None
        else "the champion was asked otherwise: other features, settings or length of window"
    )


def _task(run: Run, population: Population, window: Window, base: Model | None) -> Task:
    """What is asked; levels of categories are the base's, else those typical of the rows."""
    rows = population.within(window.since, window.until)
    levels = features.typical_levels(rows) if base is None else base.segmentation.levels
    return Task(
        population.frame(window.since, window.until, levels),
        features.declared(rows, population.customers(window.until), levels),
        run.settings(KIND),
        levels,
        window.until - window.since,
        None if base is None else base.name,
    )


def _previous(population: Population, window: Window, champion: Model | None) -> Previous:
    nothing = Previous(pd.Series(dtype="Int64"), pd.DataFrame())
    if champion is None:
        return nothing
    frame = champion.frame(population, window.until)
    lacking = champion.lacks(frame)
    if lacking:
        return replace(nothing, lacking=tuple(lacking))
    seen = population.seen_before(window.until)
    decided, scores = assigned(champion.segmentation, champion.ids, frame, seen)
    held = decisions.memberships(decided, scores).set_axis(list(champion.ids), axis=1)
    return Previous(decided.set_index("customer_id").segment_id, held)


@dataclass(frozen=True)
class _Candidate:
    """A fit as it is stored: its id, whether it is new, and its gate."""

    name: str
    new: bool
    gate: dict[str, Any]


def registered(
    run: Run,
    population: Population,
    window: Window,
    champion: Model | None,
    previous: Previous,
    fitted: Fitted,
    outcome: Outcome,
) -> Outcome:
    """Stores the candidate, its segments, their lineage and its gate, and the challenger beside
    it, in one transaction with quarantine and ledger."""

    def work(connection: Any) -> tuple[_Candidate, _Candidate | None, str, int]:
        require_same_champion(connection, run, None if champion is None else champion.name)
        candidate, beside = _candidate(connection, run, window, champion, previous, fitted), None
        if fitted.challenger is not None:
            beside = _candidate(connection, run, window, champion, previous, fitted.challenger)
        name = candidate.name
        if candidate.new and candidate.gate["passed"]:
            registry.promote(connection, run.tables, name, by=registry.AUTOMATIC, now=run.clock)
        status = registry.card(connection, run.tables, name)["status"]
        written = sum(one.new for one in (candidate, beside) if one is not None)
        _books(connection, run, population, window, written)
        return candidate, beside, status, written

    candidate, beside, status, written = runs.unit(run, KIND, work)
    said = _said(outcome, candidate, status, fitted.diagnostics)
    return replace(_beside(said, beside), rows_written=written)


def _books(
    connection: Any, run: Run, population: Population, window: Window, rows_written: int
) -> None:
    """Quarantine and ledger row of what was read."""
    runs.record_batch(
        connection,
        run,
        window=window.moments,
        rows_read=population.inspection.rows_read,
        rows_written=rows_written,
        rows_quarantined=quarantined(connection, run, population, (window.read_from, window.until)),
    )


def _candidate(
    connection: Any,
    run: Run,
    window: Window,
    champion: Model | None,
    previous: Previous,
    fitted: Fitted,
) -> _Candidate:
    """Stores a fit as a candidate."""
    next_id = store.next_segment_id(connection, run.tables)
    matched = lineage.match(previous.memberships, fitted.memberships(), next_id)
    name, new = _stored(connection, run, window, fitted, matched)
    gate = _gate(previous, fitted, matched, champion)
    if new:
        names = _names(connection, run, champion)
        _published(connection, run, fitted, matched, name, names)
        if champion is not None and not previous.lacking:
            store.write_lineage(connection, run, matched.links, champion.name, name)
        registry.record_gate(connection, run.tables, name, gate)
    return _Candidate(name, new, gate)


def _stored(
    connection: Any, run: Run, window: Window, fitted: Fitted, matched: Match
) -> tuple[str, bool]:
    """The model's id and whether it is new. The ids of its segments are not part of what it is,
    so that the same fit twice is one model."""
    header = {
        **fitted.segmentation.header(),
        "lookback": window.until - window.since,
        "question": fitted.task.question,
        "base": fitted.task.base,
        "footing": drift.footing(
            fitted.task.frame, fitted.segmentation.columns, fitted.scores.log_density
        ),
    }
    return registry.store(
        connection,
        run.tables,
        KIND,
        header,
        fitted.segmentation.to_arrays(),
        now=run.clock,
        window=window.moments,
        rows=fitted.diagnostics["customers"],
        metrics={**figures(fitted.diagnostics), IDS: list(matched.ids)},
        card=_card(run, window, fitted),
    )


def _gate(
    previous: Previous, fitted: Fitted, matched: Match, champion: Model | None
) -> dict[str, Any]:
    if champion is None:  # nothing to compare with: it leads because it is alone
        reasons = decisions.refused(fitted.diagnostics)
        return {"first": True, "passed": True, "reasons": reasons}
    passed, reasons, moved = fitted.gate(matched, previous)
    if previous.lacking:
        lacking = ", ".join(previous.lacking)
        reasons.append(f"the champion's features {lacking} are no longer mapped")
    return {
        "first": False,
        "passed": passed and not previous.lacking,
        "reasons": reasons,
        "moved_share": moved,
        "kept": list(matched.kept),
        "new": list(matched.new),
        "retired": list(matched.retired),
        "compared": dict(fitted.compared),
    }


def _names(connection: Any, run: Run, champion: Model | None) -> dict[int, tuple[str, str]]:
    """Names that stay with their ids, and who gave them: the champion's, unless the configuration
    has another or gives one of them to another segment."""
    configured = {int(i): name for i, name in run.settings(KIND).names.items()}
    names = {i: (name, store.CONFIGURATION) for i, name in configured.items()}
    if champion is None:
        return names
    for row in store.segments(connection, run.tables, champion.name).itertuples():
        stays = row.named_by != store.CONFIGURATION and row.name not in configured.values()
        if stays and row.segment_id not in names:
            names[int(row.segment_id)] = (str(row.name), str(row.named_by))
    return names


def _published(
    connection: Any,
    run: Run,
    fitted: Fitted,
    matched: Match,
    model: str,
    names: Mapping[int, tuple[str, str]],
) -> None:
    """The segments of a new model with names and profiles; names: see `_names`."""
    task, segments = fitted.task, fitted.published(matched).reset_index(drop=True)
    given = {i: name for i, (name, _) in names.items()}
    told = explanations.name_segments(task.frame, segments, task.declared, given)
    counts = segments.value_counts().reindex(list(matched.ids), fill_value=0).astype("int64")
    table = told.set_index("segment_id").reindex(counts.index)
    unnamed = pd.Series([given.get(i, f"Segment {i}") for i in counts.index], counts.index)
    table = table.assign(
        name=table.name.fillna(unnamed),
        description=table.description.fillna("No customer of the fit is near enough to it."),
        named_by=[names[i][1] if i in names else store.MODEL for i in counts.index],
        customer_count=counts,
        share=counts / max(int(counts.sum()), 1),
        model_version_id=model,
    )
    profiles = explanations.profiles(task.frame, segments, task.declared)
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
            for feature in fitted.task.declared
        },
        "strata": [
            {key: value for key, value in stratum.items() if key != "columns"}
            for stratum in fitted.diagnostics["strata"]
        ],
        "compared": dict(fitted.compared),
        "assumptions": [
            "a customer's behaviour within the window says what the customer is like",
            "within a segment the features vary by the laws of their kinds: the continuous ones "
            "together, the others each by itself",
        ],
        "limits": [
            "segments describe the past; they promise nothing about one customer",
            *_limits_of_columns(run),
        ],
        "seed": run.settings(KIND).seed,
    }


def _limits_of_columns(run: Run) -> list[str]:
    """What is lost where the customers' table keeps no history."""
    mapped = run.source.settings.customers
    if mapped is None or mapped.valid_from is not None:
        return []
    return ["mapped customer columns are read as they are now, not as of the moment"]


def _said(
    outcome: Outcome, candidate: _Candidate, status: str, diagnostics: Mapping[str, Any]
) -> Outcome:
    """The outcome of a fit that was stored."""
    name, new, gate = candidate.name, candidate.new, candidate.gate
    told = {"champion": "champion", "candidate": "stays a candidate", "retired": "retired"}[status]
    verb = "fitted" if new else "fitted again, the same as before:"
    reasons = "" if status == "champion" or not new else f" ({'; '.join(gate['reasons'])})"
    customers = diagnostics["customers"] - diagnostics["without_purchase"]
    return replace(
        outcome,
        message=f"{verb} {name}: {plural(diagnostics['segments'], 'segment')} of {customers} "
        f"customers, {told}{reasons}",
        data={**figures(diagnostics), "model_version_id": name, "status": status, "gate": gate},
        model_version_id=name,
    )


def _beside(outcome: Outcome, challenger: _Candidate | None) -> Outcome:
    """The outcome with what became of a challenger that may not lead by itself."""
    if challenger is None:
        return outcome
    gain, reasons = challenger.gate["compared"]["gain"], "; ".join(challenger.gate["reasons"])
    return replace(
        outcome,
        message=f"{outcome.message}. A fit from nothing describes customers better, by "
        f"{gain:.2f} nats each, and stays a candidate beside it: {challenger.name} ({reasons})",
        data={**outcome.data, "challenger": challenger.name},
    )


def figures(diagnostics: Mapping[str, Any]) -> dict[str, Any]:
    """The single figures among the diagnostics."""
    return {k: v for k, v in diagnostics.items() if isinstance(v, int | float)}
