"""Frame ⇄ matrix: what a feature is, and the numbers a density sees in its place.

Everything an encoder knows comes from the training rows; a later row never moves it. It is at rest
as plain JSON and read back to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

MISSING = "(missing)"  # the level of an empty text
RARE = "(other)"  # the level of what training saw too seldom, or never
CATEGORY = "category"
KINDS = ("continuous", "count", "share", CATEGORY)
SHARE_EDGE = 1e-3  # shares 0 and 1 have no log-odds; beyond this edge they are not told apart


@dataclass(frozen=True)
class Feature:
    """One declared column of a domain's feature frame."""

    name: str  # as analysts see it, snake_case
    kind: str  # continuous, count, share or category
    role: str  # focal, context, evidence (fraudwatch); shape, descriptor (segmenter)
    unit: str  # currency, days, payments, share, or "" where there is none
    description: str  # one plain phrase, e.g. "amount over the customer's own median"
    transform: str = "none"  # none, log1p or logit: the scale on which the density works

    def __post_init__(self) -> None:
        _refuse_unknown(self.name, self.kind, self.transform)


@dataclass(frozen=True)
class Column:
    """How one feature becomes one column of the matrix: clip((transform(x) − center) / scale).

    A category has no center and scale; its value is the position in `levels`, whose last entry is
    the bucket for rare and unseen levels.
    """

    name: str
    kind: str
    transform: str
    center: float
    scale: float
    clip: float
    levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _refuse_unknown(self.name, self.kind, self.transform)

    def encode(self, values: pd.Series) -> np.ndarray:
        """(n,) float64 of the values in real units; NaN stays NaN, an empty text is a level."""
        if self.kind == CATEGORY:
            codes = pd.Index(self.levels, dtype="str").get_indexer(_levels_of(values))
            return np.where(codes < 0, len(self.levels) - 1, codes).astype(np.float64)
        scaled = (_transformed(values, self.transform) - self.center) / self.scale
        return np.clip(scaled, -self.clip, self.clip)

    def decode(self, codes: np.ndarray) -> pd.Series:
        """Real units, or level names, of (n,) encoded values; clipped values come back clipped."""
        if self.kind == CATEGORY:
            return pd.Series(self._names(codes), name=self.name, dtype="str")
        values = _INVERSES[self.transform](codes * self.scale + self.center)
        return pd.Series(values, name=self.name, dtype=np.float64)

    def _names(self, codes: np.ndarray) -> np.ndarray:
        """Level names; a code that is no number reads as an empty text."""
        known = np.isfinite(codes)
        names = np.array(self.levels, dtype=object)[np.where(known, codes, 0).astype(np.intp)]
        return np.where(known, names, "")


@dataclass(frozen=True)
class Encoder:
    """Features in real units ⇄ a float64 matrix, one column each, in the order of `columns`."""

    columns: tuple[Column, ...]

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        features: Sequence[Feature],
        clip: float = 30.0,
        max_levels: int = 50,
        min_level_share: float = 0.0005,
    ) -> Encoder:
        """Centers, scales and levels of the training rows.

        clip: in standard deviations; far values stay far without ruling a network's inputs.
        max_levels: levels kept per category, the rare bucket not counted.
        min_level_share: levels with a smaller share of the training rows go to the rare bucket.
        """
        _require(frame, [feature.name for feature in features])
        return cls(
            tuple(
                _category(feature, frame[feature.name], clip, max_levels, min_level_share)
                if feature.kind == CATEGORY
                else _number(feature, frame[feature.name], clip)
                for feature in features
            )
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """(n, d) float64; categories hold level codes, the last one being the rare bucket.

        NaN stays NaN: what a missing number means is the caller's decision.
        """
        _require(frame, self.names)
        matrix = np.empty((len(frame), len(self.columns)))
        for position, column in enumerate(self.columns):
            matrix[:, position] = column.encode(frame[column.name])
        return matrix

    def inverse(self, matrix: np.ndarray) -> pd.DataFrame:
        """The frame in real units whose `transform` is this (n, d) matrix."""
        if matrix.ndim != 2 or matrix.shape[1] != len(self.columns):
            raise ValueError(
                f"the matrix has shape {matrix.shape}, expected (n, {len(self.columns)})"
            )
        return pd.DataFrame(
            {c.name: c.decode(matrix[:, i]) for i, c in enumerate(self.columns)},
            index=pd.RangeIndex(len(matrix)),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` gives an equal encoder, to the bit."""
        return {"columns": [{**asdict(c), "levels": list(c.levels)} for c in self.columns]}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Encoder:
        columns = document["columns"]
        return cls(tuple(Column(**{**c, "levels": tuple(c["levels"])}) for c in columns))


def _number(feature: Feature, values: pd.Series, clip: float) -> Column:
    """Mean and deviation on the transformed scale, of the finite values."""
    scaled = _transformed(values, feature.transform)
    scaled = scaled[np.isfinite(scaled)]
    center = float(scaled.mean()) if len(scaled) else 0.0
    deviation = float(scaled.std()) if len(scaled) else 0.0
    # A constant column keeps a deviation of rounding errors; dividing by it would invent signal.
    varies = len(scaled) > 0 and deviation > 1e-12 * float(np.abs(scaled).max())
    scale = deviation if varies else 1.0
    return Column(feature.name, feature.kind, feature.transform, center, scale, clip)


def _category(
    feature: Feature, values: pd.Series, clip: float, max_levels: int, min_share: float
) -> Column:
    """Levels by falling frequency (names break ties), the rare bucket last."""
    counts = _levels_of(values).value_counts()
    common = counts[(counts >= min_share * len(values)) & (counts.index != RARE)]
    ranked = sorted(common.items(), key=lambda level: (-level[1], level[0]))
    levels = (*(str(name) for name, _ in ranked[:max_levels]), RARE)
    return Column(feature.name, feature.kind, "none", 0.0, 1.0, clip, levels)


def _levels_of(values: pd.Series) -> pd.Series:
    """Level names; null and empty are the level "(missing)"."""
    text = values.astype("str").fillna("")
    return text.where(text != "", MISSING)


def _transformed(values: pd.Series, transform: str) -> np.ndarray:
    return _TRANSFORMS[transform](values.to_numpy(dtype=np.float64, na_value=np.nan))


def _signed_log1p(x: np.ndarray) -> np.ndarray:
    """log(1 + x), mirrored at zero so that net amounts may be negative."""
    return np.sign(x) * np.log1p(np.abs(x))


def _signed_expm1(y: np.ndarray) -> np.ndarray:
    return np.sign(y) * np.expm1(np.abs(y))


def _logit(share: np.ndarray) -> np.ndarray:
    inner = np.clip(share, SHARE_EDGE, 1 - SHARE_EDGE)
    return np.log(inner) - np.log1p(-inner)


def _expit(y: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(y / 2)) / 2  # the tanh form cannot overflow


def _unchanged(x: np.ndarray) -> np.ndarray:
    return x


_TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": _unchanged,
    "log1p": _signed_log1p,
    "logit": _logit,
}
_INVERSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": _unchanged,
    "log1p": _signed_expm1,
    "logit": _expit,
}


def _refuse_unknown(name: str, kind: str, transform: str) -> None:
    if kind not in KINDS or transform not in _TRANSFORMS:
        raise ValueError(
            f"feature {name} has kind {kind!r} and transform {transform!r}, "
            f"expected one of {', '.join(KINDS)} and one of {', '.join(_TRANSFORMS)}"
        )


def _require(frame: pd.DataFrame, names: Sequence[str]) -> None:
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise ValueError(f"the frame lacks the feature columns {', '.join(absent)}")
