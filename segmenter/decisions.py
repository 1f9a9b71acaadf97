"""From densities to what is published: states, segments, and whether a new model may lead."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from segmenter.lineage import Match
from segmenter.training import Scores

ASSIGNED, OUTLIER, TOO_NEW, INACTIVE = "assigned", "outlier", "too_new", "inactive"
STATES = (ASSIGNED, OUTLIER, TOO_NEW, INACTIVE)
LEAD = 0.2  # of the new segment's probability over the present one's, for a customer to move
MAX_MOVED = 0.05  # share of the customers that a new model may move without a person


def decide(
    scores: Scores,
    ids: Sequence[int],
    seen_before: Collection[Any] = (),
    current: pd.Series | None = None,
) -> pd.DataFrame:
    """One row per customer: customer_id, state, segment_id, probability, log_likelihood.

    ids: of the segments, by position. seen_before: customers who had any transaction before the
    moment, within the lookback window or earlier; those of them who are not among the scored get
    a row too. current: segment id by customer_id (index) just before the moment, null or absent
    where there is none; see `chosen`. A customer without a purchase within the window is inactive
    when seen before, else too_new. segment_id and probability are null unless assigned;
    log_likelihood is null without a purchase.
    """
    seen = pd.Index(list(seen_before), dtype=scores.customer_id.dtype)
    bought = ~np.isnan(scores.log_density)
    usual = bought & (scores.log_density >= scores.floor)
    absent = np.where(scores.customer_id.isin(seen), INACTIVE, TOO_NEW)
    position = chosen(scores.posterior, _positions(scores.customer_id, ids, current))
    probability = scores.posterior[np.arange(len(position)), position]
    segment = pd.array(np.asarray(ids, dtype=np.int64)[position], dtype="Int64")
    segment[~usual] = pd.NA
    frame = pd.DataFrame(
        {
            "customer_id": scores.customer_id,
            "state": np.where(usual, ASSIGNED, np.where(bought, OUTLIER, absent)),
            "segment_id": segment,
            "probability": np.where(usual, probability, np.nan),
            "log_likelihood": scores.log_density,
        }
    )
    gone = seen[~seen.isin(scores.customer_id)].unique().sort_values()
    missing = pd.DataFrame({"customer_id": gone, "state": INACTIVE}).reindex(columns=frame.columns)
    return pd.concat([frame, missing.astype(frame.dtypes.to_dict())], ignore_index=True)


def chosen(posterior: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Positions (n,): the most probable segment, or the present one while that does not lead.

    posterior: (n, segments). present: (n,) the present position, negative without one. A customer
    moves where another segment is more probable by at least LEAD, or the present one is
    impossible: noise in the features then moves hardly anybody to and fro.
    """
    rows = np.arange(len(posterior))
    best = posterior.argmax(axis=1)
    held = np.where(present >= 0, posterior[rows, present], 0.0)
    stays = (held > 0) & (posterior[rows, best] - held < LEAD)
    return np.where(stays, present, best)


def _positions(customers: pd.Series, ids: Sequence[int], current: pd.Series | None) -> np.ndarray:
    """Position of each customer's present segment among the ids; -1 where there is none."""
    if current is None or current.empty:
        return np.full(len(customers), -1)
    present = customers.map(current).map({segment: p for p, segment in enumerate(ids)})
    return present.fillna(-1).to_numpy(dtype=np.int64)


def memberships(decided: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """Posteriors of the assigned, (customers, segments): customer_id as index, positions as
    columns."""
    scored = decided.iloc[: len(scores.posterior)]
    held = (scored.state == ASSIGNED).to_numpy()
    return pd.DataFrame(scores.posterior[held], index=pd.Index(scored.customer_id[held]))


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


def moved_share(previous: pd.Series, current: pd.Series) -> float:
    """Share of the customers assigned in both whose segment id differs; 0 where none is.

    Both: segment id by customer_id (index), null where not assigned.
    """
    pairs = pd.concat([previous.rename("old"), current.rename("new")], axis=1).dropna()
    if pairs.empty:
        return 0.0
    return float((pairs["old"].astype(int) != pairs["new"].astype(int)).mean())


def refused(diagnostics: Mapping[str, Any]) -> list[str]:
    """Per stratum with a component that is no density of customers, what is wrong with it."""
    return [
        f"in stratum {stratum['stratum']} the chosen model has a refused component: "
        f"{stratum['refused']}"
        for stratum in diagnostics["strata"]
        if stratum["refused"]
    ]


def gate(
    previous: pd.Series, current: pd.Series, matched: Match, diagnostics: Mapping[str, Any]
) -> tuple[bool, list[str]]:
    """Whether a candidate may replace the champion, and every reason against it.

    previous, current: segment id by customer_id under both models, for the same moment; current
    as it would be published with previous as the present segments.
    """
    reasons = refused(diagnostics)
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
