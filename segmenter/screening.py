"""Which columns and rows may shape segments: the screen before the density is fitted.

A Gaussian that meets a spike (many customers with one and the same value) collapses on it and
seems better for it, so spikes, constants and repetitions are taken out first, each with a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from segmenter.selection import fences, within
from shared.encoding import Encoder, Feature

SPIKE_SHARE = 0.30  # above this share of one value a Gaussian describes the spike, not the rest
COUNT_SPIKE_SHARE = 0.50  # counts are spread over their unit interval before the fit
RATIO_SPIKE_SHARE = 0.15  # of one ratio between two columns: a plane on which a Gaussian collapses
PILE_SHARE = 0.15  # near the largest value: a ridge on which a component becomes a sliver
PILE_EDGE = 0.95  # of the largest value: tenure ends where the window begins, for most customers
MISSING_SHARE = 0.05  # above this, what fills the gaps would shape the segments
COLLINEAR_R2 = 0.999  # of a column on those before it
FAR_SHARE = 0.03  # of the rows; strays are few
PSEUDO_DAYS = 2.0  # purchase days by which a share is drawn to the share of all customers


def screen(
    frame: pd.DataFrame, features: Sequence[Feature], excluded: Collection[str]
) -> dict[str, str]:
    """Per feature the reason why it is left out, or "" where it may shape segments."""
    reasons: dict[str, str] = {}
    kept: list[Feature] = []
    for feature in features:
        reason = _declared_reason(feature, excluded) or _value_reason(feature, frame[feature.name])
        reason = reason or _repetition(frame, feature, kept)
        reasons[feature.name] = reason
        if not reason:
            kept.append(feature)
    return reasons


def _declared_reason(feature: Feature, excluded: Collection[str]) -> str:
    if feature.name in excluded:
        return "excluded by exclude_features"
    if feature.role == "descriptor":
        return "descriptor: described, never used to form segments"
    if feature.kind == "category":
        return "category: described, has no place in a Gaussian"
    return ""


def _value_reason(feature: Feature, values: pd.Series) -> str:
    missing = float(values.isna().mean())
    if missing > MISSING_SHARE:
        return f"missing for {missing:.0%} of the customers"
    counts = values.value_counts()
    if len(counts) == 1:
        return f"constant: {counts.index[0]:g} throughout"
    limit = COUNT_SPIKE_SHARE if feature.kind == "count" else SPIKE_SHARE
    if counts.iloc[0] > limit * len(values):
        share = counts.iloc[0] / len(values)
        return f"spike: {counts.index[0]:g} for {share:.0%} of the customers"
    largest = float(values.max())
    piled = float((values >= PILE_EDGE * largest).mean()) if largest > 0 else 0.0
    if piled > (PILE_SHARE if feature.kind == "continuous" else SPIKE_SHARE):
        return f"piled up: within 5% of the largest value, {largest:g}, for {piled:.0%}"
    return ""


def _repetition(frame: pd.DataFrame, feature: Feature, kept: Sequence[Feature]) -> str:
    """Why a column says nothing that the kept ones do not say already, or ""."""
    values = frame[feature.name]
    for other in kept:
        ratios = (values / frame[other.name].replace(0.0, np.nan)).round(9)
        counts = ratios[ratios != 0].value_counts()
        if len(counts) and counts.iloc[0] > RATIO_SPIKE_SHARE * len(values):
            share = counts.iloc[0] / len(values)
            return f"{counts.index[0]:g} times {other.name} for {share:.0%} of the customers"
    if not kept:
        return ""
    names = [*(f.name for f in kept), feature.name]
    for matrix in (encoded(Encoder.fit(frame, [*kept, feature]), frame), _filled(frame[names])):
        explained, coefficients = _regression(matrix)
        if explained > COLLINEAR_R2:
            told = [n for n, c in zip(names[:-1], coefficients, strict=True) if abs(c) > 0.05]
            return "collinear: follows from " + ", ".join(told)
    return ""


def _filled(frame: pd.DataFrame) -> np.ndarray:
    """Columns in real units, on which shares add up, over their deviations; gaps at the mean."""
    return ((frame - frame.mean()) / frame.std(ddof=0)).fillna(0.0).to_numpy()


def _regression(matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """Coefficient of determination and coefficients of the last column on the others."""
    matrix = matrix - matrix.mean(axis=0)
    coefficients = np.linalg.lstsq(matrix[:, :-1], matrix[:, -1], rcond=None)[0]
    rest = matrix[:, -1] - matrix[:, :-1] @ coefficients
    return 1 - float(rest @ rest) / float(matrix[:, -1] @ matrix[:, -1]), coefficients


def encoded(encoder: Encoder, frame: pd.DataFrame) -> np.ndarray:
    """(n, d) matrix; a missing cell (at most MISSING_SHARE of a column) counts as the mean."""
    return np.nan_to_num(encoder.transform(frame), nan=0.0)


def share_centers(frame: pd.DataFrame, features: Sequence[Feature]) -> dict[str, float]:
    """The mean of each share over the customers, towards which shares are smoothed."""
    return {f.name: float(frame[f.name].mean()) for f in features if f.kind == "share"}


def smoothed(frame: pd.DataFrame, centers: Mapping[str, float]) -> pd.DataFrame:
    """The frame with shares drawn to their centers, the more the fewer days they rest on.

    (share × days + center × PSEUDO_DAYS) / (days + PSEUDO_DAYS), the posterior mean of a beta
    prior: zero of two purchases is less extreme than zero of fifty, and spikes at 0 and 1 spread.
    """
    days = frame["purchase_days"]
    shares = {
        name: (frame[name] * days + center * PSEUDO_DAYS) / (days + PSEUDO_DAYS)
        for name, center in centers.items()
    }
    return frame.assign(**shares)


def dequantised(
    frame: pd.DataFrame, features: Sequence[Feature], generator: np.random.Generator
) -> pd.DataFrame:
    """The frame with counts spread evenly over their unit interval, for the fit alone.

    A density of whole numbers would collapse on them; of the spread ones it is a bound on the
    probability of the count (Theis, van den Oord and Bethge 2016, section 3.1).
    """
    counts = {
        f.name: frame[f.name] + generator.uniform(-0.5, 0.5, len(frame))
        for f in features
        if f.kind == "count"
    }
    return frame.assign(**counts)


def far_rows(matrix: np.ndarray) -> np.ndarray:
    """Rows (n,) of complete cells (n, d) that lie beyond the fences of some column."""
    return ~within(matrix, fences(matrix, FAR_SHARE))
