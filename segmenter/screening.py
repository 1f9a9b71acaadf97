"""Which columns and rows may shape segments: the screen before the density is fitted.

A Gaussian that meets a spike (many customers with one and the same value) collapses on it and
seems better for it. So a column with a spike is found to be semicontinuous, and spikes beyond
that, constants and repetitions are taken out, each with a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from segmenter.columns import CONTINUOUS, SEMICONTINUOUS, SHARE
from segmenter.selection import fences, within
from shared.encoding import Encoder, Feature

SPIKE_SHARE = 0.30  # above this share of one value a Gaussian describes the spike, not the rest
COUNT_SPIKE_SHARE = 0.50  # counts are spread over their unit interval before the fit
RATIO_SPIKE_SHARE = 0.15  # of one ratio between two columns: a plane on which a Gaussian collapses
PILE_SHARE = 0.15  # near the largest value: a ridge on which a component becomes a sliver
PILE_EDGE = 0.95  # of the largest value: tenure ends where the window begins, for most customers
REST_SHARE = 0.05  # of the customers off a spike, at least; fewer say little about a scale
MISSING_SHARE = 0.30  # a density that integrates missing cells out was tested up to here
RHYTHM = {"recency_days": 7.0}  # below a week it tells the weekday of the moment, not customers
COLLINEAR_R2 = 0.999  # of a column on those before it
MOST_FAR = 0.03  # of the customers that one column may leave out; more are its tail


@dataclass
class Screened:
    """What the screen found, by feature.

    reasons: why it is left out, or "". kinds: what the density takes it for. floors: see `Columns`.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)


def screen(frame: pd.DataFrame, features: Sequence[Feature], excluded: Collection[str]) -> Screened:
    """Which features may shape segments, and as what."""
    found = Screened()
    kept: list[Feature] = []
    for feature in features:
        name, reason = feature.name, _declared_reason(feature, excluded)
        if not reason:
            floor = RHYTHM.get(name, -np.inf)
            if (frame[name] < floor).mean() > SPIKE_SHARE:
                found.floors[name] = floor
            values = frame[name].clip(lower=found.floors.get(name))
            found.kinds[name] = _kind(feature, values)
            reason = _value_reason(feature, found.kinds[name], values)
            reason = reason or _repetition(frame, feature, kept)
        found.reasons[name] = reason
        if not reason:
            kept.append(feature)
    return found


def _kind(feature: Feature, values: pd.Series) -> str:
    """As declared, or semicontinuous where many customers have one value and others vary."""
    if feature.kind == "share":
        return SHARE
    known = values.dropna()
    if feature.kind == "count" or known.nunique() < 3:
        return CONTINUOUS
    counts = known.value_counts(normalize=True)
    rest = counts.iloc[1:].sum()
    spiked = counts.iloc[0] > SPIKE_SHARE and rest > REST_SHARE
    smooth = counts.iloc[1] <= SPIKE_SHARE * rest
    return SEMICONTINUOUS if spiked and smooth else CONTINUOUS


def _declared_reason(feature: Feature, excluded: Collection[str]) -> str:
    if feature.name in excluded:
        return "excluded by exclude_features"
    if feature.role == "descriptor":
        return "descriptor: described, never used to form segments"
    if feature.kind == "category":
        return "category: described, has no place in a Gaussian"
    return ""


def _value_reason(feature: Feature, kind: str, values: pd.Series) -> str:
    missing = float(values.isna().mean())
    if missing > MISSING_SHARE:
        return f"missing for {missing:.0%} of the customers"
    counts = values.value_counts()
    if len(counts) == 1:
        return f"constant: {counts.index[0]:g} throughout"
    if kind != CONTINUOUS:
        return ""
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
    scaled = np.nan_to_num(Encoder.fit(frame, [*kept, feature]).transform(frame))
    for matrix in (scaled, _filled(frame[names])):
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


def far_rows(matrix: np.ndarray) -> np.ndarray:
    """Rows (n,) of cells (n, d), NaN where missing, that lie beyond the fences of some column."""
    return ~within(matrix, fences(matrix, MOST_FAR))
