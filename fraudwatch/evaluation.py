"""How well scores rank frauds: pure figures of arrays, higher scores meant to be the frauds.

Everywhere `fraud` holds 0 and 1 (or booleans), known for every row, and all arrays have one length.
A figure that has no meaning (no fraud, or nothing but frauds) is NaN. Equal scores are worth what
chance would make of them in `auc` and `average_precision`; where a list is cut (`card_precision`,
`value_found`) they keep the order of the keys or rows, so that the answer is repeatable.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


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


def value_found(
    day: ArrayLike, amount: ArrayLike, score: ArrayLike, fraud: ArrayLike, k: int = 100
) -> float:
    """The share of the defrauded money that stands in the k highest rows of each day.

    Money is |amount| over the whole span, so that days with more of it weigh more.
    """
    rows = pd.DataFrame(
        {
            "day": np.asarray(day),
            "money": np.abs(np.asarray(amount, dtype=np.float64)) * np.asarray(fraud, dtype=bool),
            "score": np.asarray(score, dtype=np.float64),
        }
    )
    top = rows.sort_values("score", ascending=False, kind="stable").groupby("day").head(k)
    total = rows["money"].sum()
    return float(top["money"].sum() / total) if total > 0 else float("nan")


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
