"""What people look at: the report, quality figures, synthetic customers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from segmenter import decisions, evaluation, features, picture, report, store
from segmenter.champions import Model, assigned, require_champion, require_columns
from segmenter.population import Population, read
from segmenter.publishing import BASIS
from shared import accounts, frames, registry, reports
from shared.encoding import Feature
from shared.errors import DataQualityError
from shared.jobs import Outcome, Request
from shared.runs import Run

if TYPE_CHECKING:
    from segmenter.training import Scores

CERTAIN = 0.8  # probability from which a label is not in doubt
PICTURED = 20_000  # customers that place the ellipses; the picture shows fewer
AHEAD_DAYS = 90  # a quarter: what the segments of a moment tell about the time after it


# --- report -------------------------------------------------------------------------------------


def write_report(run: Run, request: Request) -> Outcome:
    """The HTML report of the champion's segments and the newest scoring."""
    champion = require_champion(run, frames.micros(run.clock))
    with run.results.transaction() as connection:
        newest = store.newest_as_of(connection, run.tables)
        found = store.report_frames(connection, run.tables, champion.name)
        customers = store.sampled_features(connection, run.tables, champion.columns, PICTURED)
        card = registry.card(connection, run.tables, champion.name)
        scoring = store.scoring_run(connection, run.tables, newest)
        scored_by = None if scoring.empty else str(scoring.run_id.iloc[0])
        found["run"], found["drift"] = (
            scoring, store.drift_of(connection, run.tables, scored_by),
        )  # fmt: skip
    found |= _model_frames(champion, card) | _picture_frames(customers, card)
    path = Path(str(request.options.get("out") or "segmenter_report.html"))
    when = "not scored yet" if newest is None else f"as of {newest:%Y-%m-%d %H:%M} UTC"
    html = reports.render(
        "Customer segments", f"{run.source.mapping.table}, {when}", report.sections(found),
        generated_at=run.clock,
    )  # fmt: skip
    if not request.dry_run:
        path.write_text(html, encoding="utf-8")
    verb = "would have written" if request.dry_run else "wrote"
    return Outcome(
        f"{verb} {path}",
        {"path": str(path), "segments": len(champion.ids), "as_of": newest and newest.isoformat()},
        model_version_id=champion.name,
    )


def _model_frames(champion: Model, card: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """How the model came about, from its card."""
    stored = champion.stored
    strata = card["card"]["strata"]
    scan = [
        {
            "k": cell["n_components"],
            "family": f"{cell['covariance_type']}{', t' if cell['tails'] == 't' else ''}",
            "criterion": cell["criterion"],
            "chosen": (cell["covariance_type"], cell["n_components"], cell["tails"])
            == (stratum["covariance_type"], stratum["components"], stratum["tails"]),
            "stratum": stratum["stratum"],
        }
        for stratum in strata
        for cell in stratum["scan"]
        if cell["criterion"] is not None
    ]
    published = [
        {"stratum": stratum["stratum"], **stratum["published"]}
        for stratum in strata
        if "published" in stratum
    ]
    names = [stratum["stratum"] for stratum in strata]
    used = [
        {
            "feature": name,
            "description": told["description"],
            "unit": told["unit"],
            **_use({n: told[n] for n in names}),
        }
        for name, told in card["card"]["features"].items()
    ]
    model = {"model_version_id": stored.model_version_id, "trained_from": stored.trained_from,
             "trained_to": stored.trained_to, "rows": card["rows"], "metrics": stored.metrics,
             "sha256": card["sha256"]}  # fmt: skip
    return {
        "criterion": pd.DataFrame(scan),
        "published": pd.DataFrame(published),
        "features": pd.DataFrame(used),
        "model": pd.DataFrame([model]),
    }


def _use(by_stratum: Mapping[str, str]) -> dict[str, Any]:
    """Whether a feature shaped segments anywhere, and else why not."""
    reasons = {name: reason for name, reason in by_stratum.items() if reason != "used"}
    if len(reasons) < len(by_stratum):
        return {"used": True, "reason": ""}
    if len(set(reasons.values())) == 1:
        return {"used": False, "reason": next(iter(reasons.values()))}
    return {"used": False, "reason": "; ".join(f"{n} customers: {r}" for n, r in reasons.items())}


def _picture_frames(customers: pd.DataFrame, card: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    told = card["card"]["features"]
    known = {feature.name: feature for feature in features.FEATURES}
    shown = [known.get(name) or _numeric(name, told[name]) for name in customers if name in told]
    drawn = picture.draw(customers, customers.segment_id, shown, np.random.default_rng(0))
    if drawn is None:
        return {}
    axes = pd.DataFrame([{"x": drawn.axes[0], "y": drawn.axes[1]}])
    return {"picture": drawn.points, "ellipses": drawn.ellipses, "axes": axes}


def _numeric(name: str, told: Mapping[str, Any]) -> Feature:
    """A mapped feature as the card describes it."""
    transform = "logit" if told["unit"] == "share" else "none"
    kind = "share" if told["unit"] == "share" else "continuous"
    return Feature(name, kind, told["role"], told["unit"], told["description"], transform)


# --- evaluate -----------------------------------------------------------------------------------


def evaluate(run: Run, request: Request) -> Outcome:
    """Likelihood, certainty, stability between halves, the figures of each segment, and what the
    segments tell about the time after them."""
    as_of = accounts.until_or_newest(run, request.until)
    champion = require_champion(run, as_of)
    moment, end = _ahead(run, as_of)
    people = read(run, moment - champion.lookback, max(as_of, end))
    frame = champion.frame(people, as_of)
    require_columns(champion, frame)
    decided, scores = assigned(
        champion.segmentation, champion.ids, frame, people.seen_before(as_of)
    )
    with run.results.transaction() as connection:
        names = store.segments(connection, run.tables, champion.name)
    bought = np.isfinite(scores.log_density)
    if not bought.any():
        raise DataQualityError(
            f"segmenter evaluate found no customer with a purchase in {run.source.mapping.table} "
            f"as of {frames.moment(as_of):%Y-%m-%d}. Choose another moment: --until."
        )
    is_assigned = decided.state == decisions.ASSIGNED
    total = {
        "customers": len(decided),
        "with_purchase": int(bought.sum()),
        "assigned": int(is_assigned.sum()),
        "mean_log_likelihood": float(scores.log_density[bought].mean()),
        "certain_share": float((decided.probability[is_assigned] >= CERTAIN).mean()),
        "split_half_ari": _split_half(run, champion, people, frame, as_of),
    }
    table = _per_segment(frame, decided, names)
    told = _foresight(run, champion, people, moment, end)
    head = "\n".join(f"{name:<22}{_figure(value)}" for name, value in total.items())
    return Outcome(
        f"as of {frames.moment(as_of):%Y-%m-%d %H:%M} UTC, {champion.name}\n{head}\n\n"
        f"{table.to_string(index=False, float_format=_figure)}\n\n{_foresight_told(told)}",
        {
            **total,
            "model_version_id": champion.name,
            "segments": table.to_dict("records"),
            "foresight": told,
        },
    )


def _ahead(run: Run, as_of: int) -> tuple[int, int]:
    """The moment whose segments are looked at ahead, and the end of the time after it: as_of, or
    earlier where less than AHEAD_DAYS of rows follow it."""
    newest = run.source.newest(frames.micros(run.clock))
    span = AHEAD_DAYS * frames.MICROSECONDS_PER_DAY
    moment = as_of if newest is None else min(as_of, newest + 1 - span)
    return moment, moment + span


def _foresight(
    run: Run, champion: Model, people: Population, moment: int, end: int
) -> dict[str, Any] | None:
    """What the segments as of a moment tell about spend and activity up to the end, beside k-means
    and RFM with as many groups; None where too few customers had bought by then.

    Every customer with a purchase counts, in the likeliest segment.
    """
    from segmenter import training

    frame = champion.frame(people, moment)
    frame = frame[frame.purchase_days > 0].reset_index(drop=True)
    if len(frame) < training.MIN_CUSTOMERS:
        return None
    later = people.frame(moment, end).set_index("customer_id").reindex(frame.customer_id)
    outcomes = {"purchase days": later.purchase_days.fillna(0.0).to_numpy()}
    if later.net_amount.notna().any():
        outcomes = {"spend": later.net_amount.fillna(0.0).to_numpy(), **outcomes}
    positions = _positions(champion.segmentation.score(frame))
    groups, seed = len(np.unique(positions)), run.settings("segmenter").seed
    groupings = {
        evaluation.SEGMENTS: positions,
        evaluation.K_MEANS: evaluation.k_means(frame, groups, seed),
        evaluation.RFM: evaluation.rfm_groups(frame, groups),
    }
    trained_to = champion.stored.trained_to
    return {
        "as_of": frames.moment(moment).isoformat(),
        "until": frames.moment(end).isoformat(),
        "customers": len(frame),
        "trained_to": trained_to.isoformat(),
        "in_sample": trained_to > frames.moment(moment),
        "rows": evaluation.foresight(outcomes, groupings, seed),
    }


def _foresight_told(told: Mapping[str, Any] | None) -> str:
    """The foresight as text: a sentence and a table."""
    if told is None:
        return (
            f"What the segments tell about {AHEAD_DAYS} days ahead: unknown, as too few customers "
            f"had bought before the last {AHEAD_DAYS} days."
        )
    table = pd.DataFrame(told["rows"])
    for name in ("interval", "ahead_interval"):
        table[name] = [f"{low:.3f} to {high:.3f}" for low, high in table[name]]
    learned = (
        f"; the model was trained up to {told['trained_to'][:10]} and has seen some of them"
        if told["in_sample"]
        else ""
    )
    return (
        f"What the groups as of {told['as_of'][:10]} tell about the next {AHEAD_DAYS} days of "
        f"{told['customers']:,} customers (rank eta squared{learned})\n"
        f"{table.to_string(index=False, float_format=_figure)}"
    )


def _figure(value: float | None) -> str:
    if value is None:
        return "too few customers"
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


def _per_segment(frame: pd.DataFrame, decided: pd.DataFrame, names: pd.DataFrame) -> pd.DataFrame:
    """Size, certainty and typical figures of each segment."""
    known = decided.iloc[: len(frame)].reset_index(drop=True)
    known = known.assign(
        certain=(known.probability >= CERTAIN).astype(float),
        **frame[list(BASIS)].reset_index(drop=True),
    )
    grouped = known[known.segment_id.notna()].groupby("segment_id")
    table = pd.DataFrame(
        {
            "customers": grouped.size(),
            "share": grouped.size() / grouped.size().sum(),
            "probability": grouped.probability.mean(),
            "certain": grouped.certain.mean(),
            "log_likelihood": grouped.log_likelihood.mean(),
            **{name: grouped[name].median() for name in BASIS},
        }
    ).reset_index()
    table = table.assign(segment_id=table.segment_id.astype("int64"))
    return table.merge(names[["segment_id", "name"]], on="segment_id", how="left")


def _split_half(
    run: Run, champion: Model, people: Population, frame: pd.DataFrame, as_of: int
) -> float | None:
    """Adjusted Rand index of two fits, each on half of the customers, over all customers.

    None where a half is too small to be fitted.
    """
    from sklearn.metrics import adjusted_rand_score

    from segmenter import training

    settings = run.settings("segmenter")
    generator = np.random.default_rng(settings.seed)
    bought = frame[frame.purchase_days > 0]
    if len(bought) < 2 * training.MIN_CUSTOMERS:
        return None
    levels = champion.segmentation.levels
    rows = people.within(as_of - champion.lookback, as_of)
    declared = features.declared(rows, people.customers(as_of), levels)
    half = generator.permutation(len(bought)) % 2 == 0
    labels = [
        _positions(training.train(part, declared, settings, generator, levels)[0].score(bought))
        for part in (bought[half], bought[~half])
    ]
    return float(adjusted_rand_score(*labels))


def _positions(scores: Scores) -> np.ndarray:
    return np.asarray(scores.posterior.argmax(axis=1))


# --- sample -------------------------------------------------------------------------------------


def sample(run: Run, request: Request) -> Outcome:
    """Synthetic customers from the champion's density, as a CSV file."""
    champion = require_champion(run, frames.micros(run.clock))
    size, seed = int(request.options.get("size", 1000)), int(request.options.get("seed", 0))
    drawn = champion.segmentation.sample(size, seed)
    drawn = drawn.assign(segment_id=drawn.segment.map(dict(enumerate(champion.ids))))
    drawn = drawn[
        ["segment_id", *(name for name in drawn if name not in ("segment", "segment_id"))]
    ]
    path = Path(str(request.options.get("out") or "segmenter_sample.csv"))
    if not request.dry_run:
        frames.write_csv(drawn, path)
    verb = "would have written" if request.dry_run else "wrote"
    return Outcome(
        f"{verb} {len(drawn)} synthetic customers to {path}",
        {"path": str(path), "rows": len(drawn), "model_version_id": champion.name},
    )
