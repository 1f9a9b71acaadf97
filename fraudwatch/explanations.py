"""Why a transaction is surprising: its surprise in nats by feature, in real units and plain words.

The contribution of a feature is the posterior-weighted -log p(x_j | z, c), see
`TransactionVAE.parts`; the lines of a transaction sum to -log_likelihood. Reasons rank by what a
line has above its median over the calibration rows; the line that belongs to no feature is last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fraudwatch.features import FLOOR, NO, YES, Reference
from shared.encoding import CATEGORY, Feature

QUANTILES = (0.05, 0.95)  # of what is expected: nine in ten payments like it lie between
TELLING = 0.15  # share of the surprise from which a reason enters the summary
SUMMARY_REASONS = 3
COMMON = 0.2  # a level with this probability is named as expected
LATENT_TEXT = "the combination of these values is unusual"


@dataclass(frozen=True)
class Surprise:
    """What the detector says of n rows, ready to be put into words.

    parts: (n, len(names)) nats. expected: (n, focal, 2) quantiles in real units, NaN for
    categories. levels: per category feature the (n, L) probabilities.
    """

    names: Sequence[str]
    focal: Sequence[Feature]
    parts: np.ndarray
    baseline: Mapping[str, float]
    expected: np.ndarray
    levels: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class _Line:
    """One reason of one row, before it has a rank."""

    value: str
    expected: str
    text: str
    unit: str
    value_number: float | None = None
    expected_low: float | None = None
    expected_high: float | None = None


def explain(
    rows: pd.DataFrame, frame: pd.DataFrame, surprise: Surprise, reference: Reference
) -> tuple[pd.DataFrame, list[str]]:
    """(reasons, one summary sentence per row).

    rows: amount and currency where mapped; frame: features; both in the order of
    `surprise.parts`. Reasons have the columns of `fraud_alert_reasons`, with `row` (the position)
    in the place of the alert's id.
    """
    excess = surprise.parts - np.array([surprise.baseline[name] for name in surprise.names])
    shares = np.maximum(excess[:, : len(surprise.focal)], 0)
    shares = shares / np.maximum(shares.sum(1, keepdims=True), 1e-12)
    scale = _amount_scale(rows, reference)
    found, summaries = [], []
    for row in range(len(rows)):
        order = [*np.argsort(-excess[row, :-1], kind="stable").tolist(), excess.shape[1] - 1]
        lines = [_line(at, row, rows, frame, surprise, scale) for at in order]
        ranked = [surprise.names[at] for at in order]
        summaries.append(_summary(ranked, lines, shares[row, order[:-1]]))
        for rank, (at, line) in enumerate(zip(order, lines, strict=True), start=1):
            found.append(
                {
                    "row": row,
                    "rank": rank,
                    "feature": surprise.names[at],
                    "contribution": float(surprise.parts[row, at]),
                    "baseline": float(surprise.baseline[surprise.names[at]]),
                    "share": float(shares[row, at]) if at < len(surprise.focal) else 0.0,
                    **vars(line),
                }
            )
    return pd.DataFrame(found), summaries


def _amount_scale(rows: pd.DataFrame, reference: Reference) -> np.ndarray:
    """(n,) the typical amount of each row's currency; 1 where no amount is mapped."""
    return reference.typical(rows.currency) if "currency" in rows else np.ones(len(rows))


def _line(
    at: int,
    row: int,
    rows: pd.DataFrame,
    frame: pd.DataFrame,
    surprise: Surprise,
    scale: np.ndarray,
) -> _Line:
    if at >= len(surprise.focal):
        return _Line("", "", LATENT_TEXT, "")
    feature = surprise.focal[at]
    if feature.kind == CATEGORY:
        return _category(feature, str(frame[feature.name].iloc[row]), surprise, row)
    value = float(frame[feature.name].iloc[row])
    low, high = (float(edge) for edge in surprise.expected[row, at])
    if math.isnan(value):
        return _Line("unknown", "", f"{feature.description} is not known", feature.unit)
    if feature.name in _AMOUNTS:
        typical = float(scale[row]) * _AMOUNTS[feature.name](frame, row)
        amount, currency = float(rows.amount.iloc[row]), str(rows.currency.iloc[row])
        return _amount(feature, amount, low * typical, high * typical, currency)
    return _number(feature, value, low, high)


def _own_amount(frame: pd.DataFrame, row: int) -> float:
    """What `amount_ratio` is a multiple of, in typical amounts."""
    return float(frame["own_amount_median"].iloc[row]) / 100 + FLOOR


_AMOUNTS: dict[str, Callable[[pd.DataFrame, int], float]] = {
    "amount_ratio": _own_amount,
    "amount_relative": lambda _frame, _row: 1.0,
}


def _amount(feature: Feature, amount: float, low: float, high: float, currency: str) -> _Line:
    """The amount as the row has it; low and high are of its size, whatever its sign.

    A Gaussian's lower quantile may be negative, an amount's size is not.
    """
    low, high = max(low, 0.0), max(high, 0.0)
    own = feature.name == "amount_ratio"
    whom = "this customer spends" if own else "customers like this one spend"
    if amount < 0:  # money back in one source, money out in another
        low, high = -high, -low
        whom = "for this customer" if own else "for customers like this one"
    span = f"{about(low)} to {about(high)}"
    usual = f"{whom} {span}" if amount >= 0 else f"{span} is usual {whom}"
    text = f"{money(amount)} {currency}".strip() + f", where {usual}"
    return _Line(money(amount), span, text, currency, amount, low, high)


def _number(feature: Feature, value: float, low: float, high: float) -> _Line:
    span = plain(low) if plain(low) == plain(high) else f"{plain(low)} to {plain(high)}"
    text = f"{feature.description}: {plain(value)}, usually {span}"
    return _Line(plain(value), span, text, feature.unit, value, low, high)


def _category(feature: Feature, level: str, surprise: Surprise, row: int) -> _Line:
    table = surprise.levels[feature.name].iloc[row].sort_values(ascending=False, kind="stable")
    common = table[table >= COMMON] if (table >= COMMON).any() else table.iloc[:1]
    expected = ", ".join(f"{name} ({share:.0%})" for name, share in common.items())
    shown = level or "missing"
    return _Line(shown, expected, _category_text(feature, shown, expected), "")


_NOVELTY = {
    YES: "a {} this customer has not used before",
    NO: "a {} this customer has used before",
}


def _category_text(feature: Feature, level: str, expected: str) -> str:
    name = feature.name
    if feature.description.startswith("whether "):  # a novelty: yes, no, or nobody to compare with
        what = name.removeprefix("new_").rstrip("_").replace("_", " ")
        return _NOVELTY.get(level, "a {} of a customer who is not known").format(what)
    if name == "time_of_day":
        begin, end = level.split("-")
        return f"between {begin}:00 and {end}:00, expected {expected}"
    return f"{name.replace('_', ' ')} {level}, expected {expected}"


def _summary(names: Sequence[str], lines: Sequence[_Line], shares: np.ndarray) -> str:
    """The most telling reasons as one sentence: at least one, and the amount only once."""
    told: list[str] = []
    amount_told = False
    for name, line, share in zip(names, lines, shares, strict=False):
        if told and (share < TELLING or (amount_told and name in _AMOUNTS)):
            continue
        told.append(line.text)
        amount_told |= name in _AMOUNTS
    sentence = "; ".join(told[:SUMMARY_REASONS])
    return f"{sentence[:1].upper()}{sentence[1:]}."


def about(value: float) -> str:
    """The edge of an expected range: whole from ten on, for it is an estimate."""
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:,.2f}"


def money(value: float) -> str:
    """An amount as people read it: cents only below a thousand."""
    return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def plain(value: float) -> str:
    """A number as people read it: three significant figures, whole numbers whole."""
    if math.isfinite(value) and value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:,.3g}"
