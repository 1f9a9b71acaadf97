"""From densities to what is published: states, stable ids, and whether a new model may lead."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from segmenter.training import Scores

ASSIGNED, OUTLIER, TOO_NEW, INACTIVE = "assigned", "outlier", "too_new", "inactive"
STATES = (ASSIGNED, OUTLIER, TOO_NEW, INACTIVE)
MIN_OVERLAP = 0.3  # of two segments, intersection over union, for one to inherit the other's id
MAX_MOVED = 0.05  # share of the customers that a new model may move without a person


def decide(scores: Scores, seen_before: Collection[Any] = ()) -> pd.DataFrame:
    """One row per customer: customer_id, state, segment, probability, log_likelihood.

    seen_before: customers who had any transaction before the moment, within the lookback window
    or earlier; those of them who are not among the scored get a row too. A customer without a
    purchase within the window is inactive when seen before, else too_new. segment (position) and
    probability are null unless assigned; log_likelihood is null without a purchase.
    """
    seen = pd.Index(list(seen_before), dtype=scores.customer_id.dtype)
    bought = ~np.isnan(scores.log_density)
    usual = bought & (scores.log_density >= scores.floor)
    absent = np.where(scores.customer_id.isin(seen), INACTIVE, TOO_NEW)
    segment = pd.array(scores.posterior.argmax(axis=1), dtype="Int64")
    segment[~usual] = pd.NA
    frame = pd.DataFrame(
        {
            "customer_id": scores.customer_id,
            "state": np.where(usual, ASSIGNED, np.where(bought, OUTLIER, absent)),
            "segment": segment,
            "probability": np.where(usual, scores.posterior.max(axis=1), np.nan),
            "log_likelihood": scores.log_density,
        }
    )
    gone = seen[~seen.isin(scores.customer_id)].unique().sort_values()
    missing = pd.DataFrame({"customer_id": gone, "state": INACTIVE}).reindex(columns=frame.columns)
    return pd.concat([frame, missing.astype(frame.dtypes.to_dict())], ignore_index=True)


def history(assigned: pd.DataFrame, first: pd.DataFrame) -> pd.DataFrame:
    """Periods before each customer's first one, from assignments as of several moments.

    assigned: as_of, customer_id, state, segment_id, probability, log_likelihood, one row per
    customer and moment. first: customer_id, valid_from, state, segment_id of the first periods;
    customers without one are left out. Moments are microseconds. goes_on: the period is the same
    as the first one, which it meets.
    """
    begun = first.set_axis([f"first_{name}" for name in first.columns], axis=1)
    known = assigned.merge(begun, left_on="customer_id", right_on="first_customer_id")
    known = known[known.as_of < known.first_valid_from]
    known = known.sort_values(["customer_id", "as_of"], ignore_index=True)
    kind = known.state + known.segment_id.astype("str").fillna("")
    opens = (known.customer_id != known.customer_id.shift()) | (kind != kind.shift())
    grouped = known.groupby(opens.cumsum())
    periods = grouped.last().assign(valid_from=grouped.as_of.first())
    following = periods.valid_from.shift(-1).where(
        periods.customer_id == periods.customer_id.shift(-1), periods.first_valid_from
    )
    same = periods.state + periods.segment_id.astype("str").fillna("")
    same = same == periods.first_state + periods.first_segment_id.astype("str").fillna("")
    periods = periods.assign(
        valid_to=following.astype("int64"),
        last_scored_at=periods.as_of,
        goes_on=same & (following == periods.first_valid_from),
    )
    return periods.drop(columns=["as_of", *begun.columns]).reset_index(drop=True)


@dataclass(frozen=True)
class Match:
    """Ids of a new model's segments: `ids[position]`; which of the old were kept or retired."""

    ids: tuple[int, ...]
    kept: tuple[int, ...]
    new: tuple[int, ...]
    retired: tuple[int, ...]
    next_id: int


def match(
    previous: pd.Series,
    positions: pd.Series,
    n_segments: int,
    next_id: int,
) -> Match:
    """Ids for positions 0..n_segments-1, inherited where a segment keeps its customers.

    previous: segment id by customer_id (index) as the champion has it; positions: the new
    model's position by customer_id, for the same moment; null where not assigned. Pairs are
    chosen together so that intersection over union, summed, is largest (Hungarian method); a
    pair under MIN_OVERLAP is no heir. New ids count up from next_id, which the caller stores,
    so that a retired id never returns.
    """
    old = sorted(int(i) for i in previous.dropna().unique())
    overlap = _overlap(previous, positions, old, n_segments)
    rows, columns = linear_sum_assignment(-overlap)
    heirs = {
        int(column): old[row]
        for row, column in zip(rows, columns, strict=True)
        if overlap[row, column] >= MIN_OVERLAP
    }
    ids, following = [], max([next_id, *(i + 1 for i in old)])
    for position in range(n_segments):
        if position in heirs:
            ids.append(heirs[position])
        else:
            ids.append(following)
            following += 1
    kept = tuple(i for i in old if i in ids)
    new = tuple(i for i in ids if i not in old)
    return Match(tuple(ids), kept, new, tuple(i for i in old if i not in ids), following)


def _overlap(
    previous: pd.Series, positions: pd.Series, old: Sequence[int], n_segments: int
) -> np.ndarray:
    """(old, new) intersection over union of the customers assigned in both."""
    pairs = pd.concat([previous.rename("old"), positions.rename("new")], axis=1).dropna()
    counts = (
        pd.crosstab(pairs["old"].astype(int), pairs["new"].astype(int))
        .reindex(index=list(old), columns=range(n_segments), fill_value=0)
        .to_numpy(dtype=np.float64)
    )
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0) - counts
    return np.divide(counts, union, out=np.zeros_like(counts), where=union > 0)


def moved_share(previous: pd.Series, current: pd.Series) -> float:
    """Share of the customers assigned in both whose segment id differs; 0 where none is.

    Both: segment id by customer_id (index), null where not assigned.
    """
    pairs = pd.concat([previous.rename("old"), current.rename("new")], axis=1).dropna()
    if pairs.empty:
        return 0.0
    return float((pairs["old"].astype(int) != pairs["new"].astype(int)).mean())


def gate(
    previous: pd.Series, current: pd.Series, matched: Match, diagnostics: dict[str, Any]
) -> tuple[bool, list[str]]:
    """Whether a candidate may replace the champion, and every reason against it.

    previous, current: segment id by customer_id under both models, for the same moment.
    """
    reasons = [
        f"in stratum {stratum['stratum']} the chosen model has a refused component: "
        f"{stratum['refused']}"
        for stratum in diagnostics["strata"]
        if stratum["refused"]
    ]
    if matched.new:
        reasons.append(f"published segments appear: {_listed(matched.new)}")
    if matched.retired:
        reasons.append(f"published segments vanish: {_listed(matched.retired)}")
    moved = moved_share(previous, current)
    if moved > MAX_MOVED:
        reasons.append(f"{moved:.1%} of the customers move; at most {MAX_MOVED:.0%} may")
    return not reasons, reasons


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(str(i) for i in ids)
