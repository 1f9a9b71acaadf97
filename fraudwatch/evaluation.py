"""How well scores rank frauds: pure figures of arrays, higher scores meant to be the frauds.

Everywhere `fraud` holds 0 and 1 (or booleans), known for every row, and all arrays have one length.
A figure that has no meaning (no fraud, or nothing but frauds) is NaN. Equal scores are worth what
chance would make of them in `auc` and `average_precision`; where a list is cut (`card_precision`,
`reviewed` and what follows from it) they keep the order of the keys or rows, so that the answer is
repeatable; a missing score comes last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import cycle
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

CONFIDENCE = 0.95  # of every interval
RESAMPLES = 1000  # of the days, for the interval of a sum of money


def auc(fraud: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a fraud scores above an honest row, ties half."""
    positive = np.asarray(fraud, dtype=bool)
    ranks = pd.Series(np.asarray(score, dtype=np.float64)).rank().to_numpy()
    frauds, honest = int(positive.sum()), int((~positive).sum())
    if frauds == 0 or honest == 0:
        return float("nan")
    above = ranks[positive].sum() - frauds * (frauds + 1) / 2
    return float(above / (frauds * honest))


def average_precision(fraud: ArrayLike, score: ArrayLike) -> float:
    """Mean precision at the frauds, from the top; rows of one score enter together.

    The step-wise sum over (recall - recall before) x precision, without interpolation.
    """
    positive = np.asarray(fraud, dtype=bool)
    values = np.asarray(score, dtype=np.float64)
    if not positive.any():
        return float("nan")
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    hits = np.cumsum(positive[order])[ends]
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def card_precision(
    day: ArrayLike, customer: ArrayLike, score: ArrayLike, fraud: ArrayLike, k: int = 100
) -> float:
    """Card Precision@k of the fraud-detection handbook (chapter 4): the mean over days.

    Each day the k customers with the highest maximum score are looked at; the figure is the share
    of k with a fraud on that day. A customer once found is not looked at again on later days. With
    fewer than k customers on a day the divisor stays k, as in the book.
    """
    cards = (
        pd.DataFrame(
            {
                "day": np.asarray(day),
                "customer": np.asarray(customer),
                "score": np.asarray(score, dtype=np.float64),
                "fraud": np.asarray(fraud, dtype=bool),
            }
        )
        .groupby(["day", "customer"], as_index=False)
        .max()
    )
    found: set[object] = set()
    shares = []
    for _, today in cards.groupby("day"):
        left = today[~today["customer"].isin(found)]
        top = left.sort_values("score", ascending=False, kind="stable").head(k)
        caught = top.loc[top["fraud"], "customer"]
        found.update(caught)
        shares.append(len(caught) / k)
    return float(np.mean(shares)) if shares else float("nan")


def reviewed(day: ArrayLike, score: ArrayLike, k: int) -> np.ndarray:
    """(n,) whether a row is among the k highest of its day: what k reviews a day look at."""
    return _place(np.asarray(day), np.asarray(score, dtype=np.float64)) < k


def reviewed_together(day: ArrayLike, first: ArrayLike, second: ArrayLike, k: int) -> np.ndarray:
    """(n,) the rows of k reviews a day shared by two lists, half and half.

    The lists take turns, each with its highest row that is not yet taken, so that the reviews are
    as many as of one list alone.
    """
    days = np.asarray(day)
    chosen = np.zeros(len(days), dtype=bool)
    lists = (_heads(days, np.asarray(score, dtype=np.float64), k) for score in (first, second))
    for one, other in zip(*lists, strict=True):
        chosen[_in_turns(one.tolist(), other.tolist())] = True
    return chosen


def _heads(day: np.ndarray, score: np.ndarray, k: int) -> list[np.ndarray]:
    """The rows of each day's k highest, highest first, day by day."""
    place = _place(day, score)
    rows = np.lexsort((place, day))
    rows = rows[place[rows] < k]
    return np.split(rows, np.flatnonzero(np.diff(place[rows]) <= 0) + 1)


def _in_turns(first: list[int], second: list[int]) -> list[int]:
    """As many rows as either of two lists of one length has, taken in turns, none twice."""
    taken: dict[int, None] = {}
    turns = cycle((iter(first), iter(second)))
    while len(taken) < len(first):
        taken[next(row for row in next(turns) if row not in taken)] = None
    return list(taken)


def _place(day: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(n,) place of each row on its day, 0 for the highest."""
    order = np.lexsort((-score, day))
    starts = np.flatnonzero(np.append(True, day[order][1:] != day[order][:-1]))[: len(order)]
    sizes = np.diff(np.append(starts, len(order)))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    return place


def value_found(
    day: ArrayLike, amount: ArrayLike, score: ArrayLike, fraud: ArrayLike, k: int = 100
) -> float:
    """The share of the defrauded money that stands in the k highest rows of each day.

    Money is |amount| over the whole span, so that days with more of it weigh more.
    """
    money = _defrauded(amount, fraud)
    total = money.sum()
    return float(money[reviewed(day, score, k)].sum() / total) if total > 0 else float("nan")


def _defrauded(amount: ArrayLike, fraud: ArrayLike) -> np.ndarray:
    return np.abs(np.asarray(amount, dtype=np.float64)) * np.asarray(fraud, dtype=bool)


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Interval of a share of independent trials (Wilson 1927): within [0, 1], also at its ends."""
    if trials == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    share, spread = hits / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread * spread / 4) / (1 + spread)
    # The ends are exact: there rounding would leave a remainder, whose inverse is a ratio.
    return (middle - half if hits else 0.0), (middle + half if hits < trials else 1.0)


def value_interval(
    day: ArrayLike, amount: ArrayLike, fraud: ArrayLike, looked_at: np.ndarray, seed: int
) -> tuple[float, float]:
    """Interval of the share of the defrauded money found: whole days drawn anew (Efron 1979).

    NaN with fewer than two days, or where no money was lost.
    """
    money = _defrauded(amount, fraud)
    _, code = np.unique(np.asarray(day), return_inverse=True)
    days = int(code.max(initial=-1)) + 1
    lost = np.bincount(code, money, days)
    if days < 2 or lost.sum() == 0:
        return math.nan, math.nan
    found = np.bincount(code, money * looked_at, days)
    drawn = np.random.default_rng(seed).multinomial(days, np.full(days, 1 / days), RESAMPLES)
    totals = drawn @ lost
    shares = (drawn @ found)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(shares, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def side_by_side(
    day: ArrayLike,
    amount: ArrayLike,
    fraud: ArrayLike,
    lists: Mapping[str, np.ndarray],
    against: Mapping[str, str],
    seed: int,
) -> list[dict[str, object]]:
    """One row per list of reviews: what it finds, and what it and the list beside it do not share.

    lists: (n,) whether a row is reviewed. against: the name of the list that each is set beside.
    A false-positive ratio is false alerts per fraud found; its interval follows from that of the
    share of frauds among the reviews.
    """
    positive = np.asarray(fraud, dtype=bool)
    table = []
    for name, looked_at in lists.items():
        found, other = positive & looked_at, positive & lists[against[name]]
        interval = value_interval(day, amount, fraud, looked_at, seed)
        table.append(
            {
                "score": name,
                **_yield(positive, looked_at, _defrauded(amount, fraud)),
                "value_share_interval": interval,
                "against": against[name],
                "found_only_by_it": int((found & ~other).sum()),
                "found_only_by_the_other": int((other & ~found).sum()),
                "found_by_neither": int((positive & ~found & ~other).sum()),
            }
        )
    return table


def _yield(fraud: np.ndarray, looked_at: np.ndarray, money: np.ndarray) -> dict[str, object]:
    """What the reviews of one list bring."""
    hits, reviews = int((fraud & looked_at).sum()), int(looked_at.sum())
    low, high = wilson(hits, reviews)
    return {
        "reviews": reviews,
        "frauds_found": hits,
        "share_found": _ratio(hits, int(fraud.sum())),
        "share_found_interval": wilson(hits, int(fraud.sum())),
        "false_positive_ratio": _ratio(reviews - hits, hits),
        "false_positive_ratio_interval": (_ratio(1 - high, high), _ratio(1 - low, low)),
        "value_found": float(money[looked_at].sum()),
        "value_share": _ratio(float(money[looked_at].sum()), float(money.sum())),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def per_kind(fraud: ArrayLike, kind: ArrayLike, score: ArrayLike) -> pd.DataFrame:
    """One row per kind of fraud, in order of the kinds: kind, frauds, auc, average_precision.

    The frauds of a kind stand against the honest rows alone: finding another kind is no mistake.
    """
    positive, values = np.asarray(fraud, dtype=bool), np.asarray(score, dtype=np.float64)
    kinds = np.asarray(kind)
    rows = []
    for name in sorted(pd.unique(kinds[positive])):
        of_kind = positive & (kinds == name)
        kept = of_kind | ~positive
        rows.append(
            {
                "kind": name,
                "frauds": int(of_kind.sum()),
                "auc": auc(of_kind[kept], values[kept]),
                "average_precision": average_precision(of_kind[kept], values[kept]),
            }
        )
    return pd.DataFrame(rows, columns=["kind", "frauds", "auc", "average_precision"])
