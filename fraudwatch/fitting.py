"""A fit from the window to the registered candidate, and a recalibration of the champion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fraudwatch import decisions, features, store
from fraudwatch.scope import KIND, RANKER, champion_of, require_same_champion, scope_day
from fraudwatch.segments import LEAST_KNOWN, SEGMENTER, Segments
from shared import accounts, frames, registry, runs
from shared.accounts import days_before, until_or_newest
from shared.errors import DataQualityError
from shared.jobs import Outcome, Request
from shared.runs import Run

FLOODED = 0.1  # share of all transactions as alerts from which a fit says so

if TYPE_CHECKING:
    from fraudwatch.detector import Detector
    from fraudwatch.judging import Journal
    from fraudwatch.learning import Learned, Ranked, Window


def training_window(run: Run, request: Request) -> Window:
    from fraudwatch.learning import Window

    settings = run.settings(KIND)
    until = until_or_newest(run, request.until)
    since = days_before(until, settings.training_days)
    if request.since is not None:
        since = frames.micros(request.since)
    since = max(since, _oldest(run, since))
    calibration = min(settings.calibration_days * frames.MICROSECONDS_PER_DAY, (until - since) // 3)
    split = until - calibration
    return Window(since, split, until, accounts.span_days(split, until))


def recalibration_window(run: Run, request: Request, champion: registry.Stored) -> Window:
    """The newest calibration days, with what evidence needs before them."""
    from fraudwatch.learning import Window

    until = until_or_newest(run, request.until)
    split = days_before(until, run.settings(KIND).calibration_days)
    split = max(split, _oldest(run, split))
    since = days_before(split, champion.header["evidence"]["days"] + 1)
    return Window(since, split, until, accounts.span_days(split, until))


def _oldest(run: Run, since: int) -> int:
    """The first day with rows from a moment on: a shorter history than asked is split as it is."""
    counts, _ = run.source.counted(frames.micros(run.clock), since)
    if counts.empty:
        return since
    return frames.day_start(counts.index[0], run.source.settings.timezone)


# --- reading --------------------------------------------------------------------------------------


def learned_on(run: Run, window: Window, inspection: accounts.Inspection) -> Learned:
    """The window's rows → a detector, its evidence and calibration learned."""
    from fraudwatch import learning

    settings = run.settings(KIND)
    rows = _reference_rows(run, window, inspection)
    if rows.empty:
        span = f"before {frames.moment(window.until):%Y-%m-%d}"
        if window.since < window.split:
            span = f"from {frames.moment(window.since):%Y-%m-%d} to "
            span += f"{frames.moment(window.split):%Y-%m-%d}"
        raise DataQualityError(
            f"fraudwatch fit found no valid transaction {span} (UTC). Train on another window: "
            "--from, --until."
        )
    reference = features.reference(rows)
    context = _segments(run)
    parts = ((window.since, window.split), (window.split, window.until))
    slices = tuple(piece for part in parts for piece in within(inspection.slices, part))
    built = features_of(run, slices, reference, context)
    context, lacking = _known_enough(context, built.frame, settings.segment_context)
    columns = [c for c in built.columns if context is not None or c != features.SEGMENT]
    journal = _journal(run, window)
    learned = learning.learn(
        built.frame,
        journal.places(built.ids),
        journal,
        features.declared(columns, settings.roles),
        reference,
        window,
        settings,
        run.source.settings.timezone,
    )
    detector = replace(learned.detector, segmenter=None if context is None else context.version)
    left_out = learned.diagnostics["left_out"] | lacking
    return replace(
        learned, detector=detector, diagnostics=learned.diagnostics | {"left_out": left_out}
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


@dataclass(frozen=True, eq=False)
class Built:
    """Features of rows, the rows' ids, and which columns the rows have."""

    frame: pd.DataFrame
    ids: pd.Series
    columns: list[str]


def features_of(
    run: Run,
    slices: tuple[tuple[int, int], ...],
    reference: features.Reference,
    context: Segments | None,
) -> Built:
    """Features of all rows of the slices."""
    settings, zone = run.settings(KIND), run.source.settings.timezone
    history = settings.history_days * frames.MICROSECONDS_PER_DAY
    built, ids, columns = [], [], []
    for read, own, batch in accounts.stream(run, slices, history):
        rows = read if context is None else context.joined(read, zone)
        built.append(features.build(rows, own, reference, zone, settings.history_days))
        ids.append(rows.transaction_id.iloc[own])
        columns = [str(name) for name in rows]
        run.progress(batch.rows_read)
    frame = pd.concat(built, ignore_index=True)
    return Built(frame, pd.concat(ids, ignore_index=True), columns)


def _journal(run: Run, window: Window) -> Journal:
    """Who paid when, and what is known of it, from as long before as a label can tell something."""
    from fraudwatch.assessing import journal_of
    from fraudwatch.judging import horizon

    with run.results.transaction() as connection:
        verdicts = store.verdicts(connection, run.tables)
    since = window.since - horizon(run.settings(KIND).label_delay_days)
    return journal_of(run, since, window.until, verdicts)


def _segments(run: Run) -> Segments | None:
    """The segments of the champion segmenter, where they are to be context and there is one."""
    from fraudwatch.assessing import segments_of

    if not run.settings(KIND).segment_context:
        return None
    with run.results.transaction() as connection:
        version = registry.champion_id(connection, run.tables, SEGMENTER)
    return segments_of(run, version)


def _known_enough(
    context: Segments | None, frame: pd.DataFrame, asked: bool
) -> tuple[Segments | None, dict[str, str]]:
    """The segments where enough of the rows have one; else why they are left out, if asked for."""
    if context is None:
        return None, {features.SEGMENT: "there is no champion segmenter"} if asked else {}
    known = float(np.mean(frame[features.SEGMENT] != ""))
    if known >= LEAST_KNOWN:
        return context, {}
    reason = f"known for {known:.0%} of the rows only, {LEAST_KNOWN:.0%} are needed"
    return None, {features.SEGMENT: reason}


# --- registering ----------------------------------------------------------------------------------


def registered(
    run: Run,
    window: Window,
    inspection: accounts.Inspection,
    learned: Learned,
    outcome: Outcome,
) -> Outcome:
    """Stores the candidate and its ranker with their gates, with quarantine and ledger at once."""
    from fraudwatch import learning

    champion = champion_of(run)
    zone, settings = run.source.settings.timezone, run.settings(KIND)
    figures = _gate_figures(learned, window, settings)
    ours, theirs = _compared(run, window, inspection, learned, champion)
    gate = decisions.gate(figures | ours, theirs)
    ranked = learning.rank(learned, window.until, zone, settings.seed)
    diagnostics = learned.diagnostics | figures
    counted = run.source.counted(frames.micros(run.clock))

    def work(connection: Any) -> tuple[str, str | None, dict[str, Any]]:
        require_same_champion(connection, run, champion)
        name = _stored(connection, run, window, learned.detector, len(learned.frame), diagnostics)
        _decided(connection, run, name, gate, champion)
        champions = registry.champion_id(connection, run.tables, KIND)
        leads = _ranker(connection, run, window, learned.detector, ranked, champions == name)
        new = _quarantine(connection, run, inspection)
        accounts.count_days(connection, run, scope_day(connection, run), counted)
        runs.record_batch(
            connection, run, window=_moments(window), rows_read=inspection.rows_read,
            rows_written=1, rows_quarantined=new,
        )  # fmt: skip
        return name, champions, leads

    name, champions, leads = runs.unit(run, KIND, work)
    verdict = _verdict(name, champions, gate)
    data = {**diagnostics, "gate": gate, "status": verdict.split(" (")[0], "ranker": leads}
    told = (
        f"fitted {name} on {len(learned.frame)} transactions: {verdict}\n"
        f"evidence: {_learnt(diagnostics)}\nranker: {leads['said']}"
        f"{_flooded(figures['expected_share'], settings.reviews_per_day)}"
    )
    return said(outcome, told, data, name)


def _moments(window: Window) -> tuple[datetime, datetime]:
    return frames.moment(window.since), frames.moment(window.until)


def _stored(
    connection: Any,
    run: Run,
    window: Window,
    detector: Detector,
    rows: int,
    diagnostics: Mapping[str, Any],
    parent_id: str | None = None,
) -> str:
    name, _new = registry.store(
        connection,
        run.tables,
        KIND,
        detector.header(),
        detector.to_arrays(),
        now=run.clock,
        window=_moments(window),
        rows=rows,
        metrics={k: v for k, v in diagnostics.items() if isinstance(v, (int, float))},
        card=_card(run, detector, diagnostics, _moments(window)),
        parent_id=parent_id,
    )
    return name


def _decided(
    connection: Any,
    run: Run,
    name: str,
    gate: Mapping[str, Any],
    champion: registry.Stored | None,
) -> None:
    """Records the gate and promotes what passed it; the first of its kind is champion at once."""
    if champion is None or champion.model_version_id != name:
        registry.record_gate(connection, run.tables, name, {"first": champion is None, **gate})
    if champion is None or (gate["passed"] and champion.model_version_id != name):
        registry.promote(connection, run.tables, name, by=registry.AUTOMATIC, now=run.clock)


def _ranker(
    connection: Any,
    run: Run,
    window: Window,
    detector: Detector,
    ranked: Ranked | None,
    leading: bool,
) -> dict[str, Any]:
    """Stores the ranker of a density; champion where its gate and the density's let it."""
    from fraudwatch.ranker import LEAST_FRAUDS, LEAST_LATER

    if ranked is None:
        needed = f"{LEAST_FRAUDS}, and {LEAST_LATER} on the newest days with answers, are needed"
        return {"said": f"none, for too few frauds are known: {needed}", "status": None}
    name, _new = registry.store(
        connection,
        run.tables,
        RANKER,
        {**ranked.ranker.header(), "density": detector.density_id},
        ranked.ranker.to_arrays(),
        now=run.clock,
        window=_moments(window),
        rows=ranked.rows,
        metrics={k: v for k, v in ranked.gate.items() if isinstance(v, float)},
        card={
            "purpose": "the order of alerts (priority); it raises none",
            "columns": list(ranked.ranker.columns),
            "known_frauds": ranked.frauds,
            "density": detector.density_id,
        },
    )
    registry.record_gate(connection, run.tables, name, ranked.gate)
    if leading and ranked.gate["passed"]:
        registry.promote(connection, run.tables, name, by=registry.AUTOMATIC, now=run.clock)
    now = registry.champion_id(connection, run.tables, RANKER)
    status = "champion" if now == name else "stays a candidate"
    return {"said": f"{name} {status}: {next(iter(ranked.gate['checks']))}", "status": status,
            "model_version_id": name, "gate": ranked.gate}  # fmt: skip


def _learnt(diagnostics: Mapping[str, Any]) -> str:
    from fraudwatch.evidence import LEAST_FRAUDS

    kinds = ", ".join(diagnostics["learnt"])
    frauds = diagnostics["known_frauds"]
    if kinds:
        return f"learnt from {frauds} known frauds for {kinds}"
    return f"assumed, for want of known frauds: {frauds} are known, {LEAST_FRAUDS} needed"


def _flooded(share: float, reviews_per_day: int) -> str:
    """A line about a budget that raises a good part of all payments; nothing where it does not."""
    if share < FLOODED:
        return ""
    return (
        f"\nreviews_per_day = {reviews_per_day} raises about {share:.0%} of all transactions as "
        "alerts; lower it: it says how many you want to see, not how many are fraud"
    )


def _verdict(name: str, champions: str | None, gate: Mapping[str, Any]) -> str:
    if champions == name:
        return "champion"
    against = "; ".join(check for check, good in gate["checks"].items() if not good)
    why = f", as this does not hold: {against}" if against else ""
    return f"stays a candidate{why}"


def _gate_figures(learned: Learned, window: Window, settings: Any) -> dict[str, Any]:
    """What the gate looks at: the newest quarter of the calibration days against the older."""
    moments = learned.journal.times[learned.at]
    held_out = moments >= window.split
    surprise, moments = -learned.scored.log_likelihood[held_out], moments[held_out]
    newest = moments >= np.quantile(moments, 0.75)
    # Rows of one moment, as of a source with dates only, have no older part: all are compared.
    older = np.sort(surprise[newest if newest.all() else ~newest])
    budget = decisions.RAISED_PER_REVIEW * settings.reviews_per_day * window.days
    expected = min(1.0, budget / max(len(surprise), 1))
    cut = older[int((1 - expected) * (len(older) - 1))]
    return {
        "finite": bool(np.isfinite(surprise).all()),
        "held_out_share": float(np.mean(surprise[newest] > cut)),
        "expected_share": float(expected),
        "held_out_rows": int(newest.sum()),
        "mean_log_likelihood": float(-surprise.mean()),
    }


def _compared(
    run: Run,
    window: Window,
    inspection: accounts.Inspection,
    learned: Learned,
    champion: registry.Stored | None,
) -> tuple[dict[str, float], dict[str, float] | None]:
    """Mean log likelihood of the focal columns that both models know, on the calibration rows."""
    from fraudwatch.assessing import segments_of
    from fraudwatch.detector import Detector

    if champion is None or not Detector.readable(champion.header):
        return {}, None  # none, or of an older release: what holds by itself takes its place
    other = Detector.from_arrays(champion.header, champion.arrays)
    slices = tuple(within(inspection.slices, (window.split, window.until)))
    built = features_of(run, slices, other.reference, segments_of(run, other.segmenter))
    rows = np.flatnonzero(learned.journal.times[learned.at] >= window.split)
    scored = ((learned.detector, learned.scored.part(rows)), (other, other.score(built.frame)))
    common = set(learned.detector.names) & set(other.names)
    ours, theirs = (
        -float(found.surprise[:, [name in common for name in model.names]].sum(1).mean())
        for model, found in scored
    )
    return {"common_log_likelihood": ours}, {"common_log_likelihood": theirs}


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
        "left_out": diagnostics.get("left_out", {}),
        "evidence": detector.evidence.to_json(),
        "evidence_learnt": detector.learnt,
        "segmenter": detector.segmenter,
        "assumptions": [
            "calibration rows without the confirmed frauds are mostly genuine",
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
    named = {} if model is None else {"model_version_id": model}
    return replace(
        outcome,
        message=message,
        data={**data, **named},
        rows_written=len(named),
        model_version_id=model,
    )


# --- recalibration --------------------------------------------------------------------------------


def recalibrated(
    run: Run, window: Window, inspection: accounts.Inspection, champion: registry.Stored
) -> Learned:
    """The champion with a new calibration: newest days, and what is known of them by now."""
    from fraudwatch.assessing import segments_of
    from fraudwatch.detector import Detector
    from fraudwatch.judging import filled
    from fraudwatch.learning import Learned, calibrated

    detector = Detector.from_arrays(champion.header, champion.arrays)
    context = segments_of(run, detector.segmenter)
    built = features_of(run, inspection.slices, detector.reference, context)
    scored, journal = detector.score(built.frame), _journal(run, window)
    at = journal.places(built.ids)
    journal = filled(journal, at, detector.surprise(scored))
    detector = calibrated(
        detector,
        built.frame,
        scored,
        journal,
        at,
        window,
        run.settings(KIND),
        run.source.settings.timezone,
    )
    return Learned(detector, built.frame, scored, journal, at, {})


def registered_as_child(
    run: Run, window: Window, learned: Learned, champion: registry.Stored, outcome: Outcome
) -> Outcome:
    """Stores the recalibrated model as a child of the champion; it leads if its gate lets it."""
    figures = _gate_figures(learned, window, run.settings(KIND))
    gate = decisions.gate(figures, None)

    def work(connection: Any) -> tuple[str, str | None]:
        require_same_champion(connection, run, champion)
        name = _stored(
            connection, run, replace(window, since=frames.micros(champion.trained_from)),
            learned.detector, len(learned.frame), figures, champion.model_version_id,
        )  # fmt: skip
        _decided(connection, run, name, gate, champion)
        champions = registry.champion_id(connection, run.tables, KIND)
        runs.record_batch(
            connection, run, window=_moments(window), rows_read=len(learned.frame),
            rows_written=1, rows_quarantined=0,
        )  # fmt: skip
        return name, champions

    name, champions = runs.unit(run, KIND, work)
    verdict = _verdict(name, champions, gate)
    told = f"recalibrated {champion.model_version_id} as {name}: {verdict}"
    return said(outcome, told, {**figures, "gate": gate, "status": verdict}, name)
