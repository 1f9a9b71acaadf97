"""How the features of a stratum become the columns of its density, each as what it is.

A continuous feature stands on its transformed scale, and so does a count, spread over its unit
interval: as a negative binomial it would be independent of what was spent on so many days, which
cost 0.31 nats a customer of an online shop. A share is so many successes of the days it rests on.
A feature that many customers have one value of is that value or not, and continuous beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from shared.encoding import Column, Encoder, Feature

CONTINUOUS, SEMICONTINUOUS, SHARE, TRIALS = "continuous", "semicontinuous", "share", "trials"
DAYS = "purchase_days"  # what shares rest on
MOST_DAYS = 20  # that a share rests on; customers differ by more than is counted beyond them


@dataclass(frozen=True)
class Columns:
    """Features in real units to the matrix of a density, (n, d), and back.

    encoder: a column per feature. kinds: what the density takes each for, of `layout.KINDS`.
    floors: values below which a feature is taken for its floor. Where there are shares, the days
    they rest on come last.
    """

    encoder: Encoder
    kinds: Mapping[str, str]
    floors: Mapping[str, float]

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        features: Sequence[Feature],
        kinds: Mapping[str, str],
        floors: Mapping[str, float],
    ) -> Self:
        """Centers and scales of the customers of a fit; shares stay as they are."""
        made = cls(Encoder(()), {f.name: kinds[f.name] for f in features}, floors)
        fitted = Encoder.fit(made.floored(frame), features)
        return replace(made, encoder=Encoder(tuple(made._scaled(c) for c in fitted.columns)))

    def _scaled(self, column: Column) -> Column:
        if self.kinds[column.name] != SHARE:
            return column
        return replace(column, transform="none", center=0.0, scale=1.0)

    @property
    def names(self) -> tuple[str, ...]:
        return self.encoder.names

    @property
    def gaussian(self) -> list[int]:
        """Positions of the columns that are continuous, wholly or beside one value."""
        return [i for i, name in enumerate(self.names) if self.kinds[name] != SHARE]

    @property
    def declaration(self) -> dict[str, Any]:
        """`kinds` and `trials` of the estimator; None where all is continuous."""
        kinds = [self.kinds[name] for name in self.names]
        shares = [place for place, kind in enumerate(kinds) if kind == SHARE]
        if shares:
            kinds.append(TRIALS)
        mixed = set(kinds) != {CONTINUOUS}
        trials = dict.fromkeys(shares, len(self.names))
        return {"kinds": kinds, "trials": trials} if mixed else {"kinds": None, "trials": None}

    def matrix(
        self, frame: pd.DataFrame, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        """(n, d) cells, NaN where missing; with a generator counts are spread, for a fit."""
        plain = self.floored(frame)
        if generator is not None:
            counts = [c.name for c in self.encoder.columns if c.kind == "count"]
            plain = dequantised(plain, counts, generator)
        matrix = self.encoder.transform(plain)
        shares = self.declaration["trials"]
        if not shares:
            return matrix
        days = np.minimum(frame[DAYS].to_numpy(np.float64), MOST_DAYS)
        for place in shares:
            matrix[:, place] = np.floor(matrix[:, place] * days + 0.5) / days
        return np.column_stack([matrix, days])

    def floored(self, frame: pd.DataFrame) -> pd.DataFrame:
        floors = {name: frame[name].clip(lower=floor) for name, floor in self.floors.items()}
        return frame.assign(**floors)

    def inverse(self, matrix: np.ndarray) -> pd.DataFrame:
        """The features in real units of rows that `matrix` could give; counts are whole."""
        plain = self.encoder.inverse(matrix[:, : len(self.names)])
        counts = [column.name for column in self.encoder.columns if column.kind == "count"]
        return plain.assign(**{name: plain[name].round().clip(lower=0.0) for name in counts})

    def to_json(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder.to_json(),
            "kinds": dict(self.kinds),
            "floors": dict(self.floors),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        return cls(Encoder.from_json(document["encoder"]), document["kinds"], document["floors"])


def dequantised(
    frame: pd.DataFrame, counts: Sequence[str], generator: np.random.Generator
) -> pd.DataFrame:
    """The frame with counts spread evenly over their unit interval, for the fit alone.

    A density of whole numbers would collapse on them; of the spread ones it is a bound on the
    probability of the count (Theis, van den Oord and Bethge 2016, section 3.1).
    """
    spread = {name: frame[name] + generator.uniform(-0.5, 0.5, len(frame)) for name in counts}
    return frame.assign(**spread)
