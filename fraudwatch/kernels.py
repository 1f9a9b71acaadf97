"""Densities of whole rows beside the network's: kernels around training rows, a robust Gaussian.

With many columns a network smooths over rows that lie where no other did, and learns a cluster of
frauds among its training rows as readily as anything else. Three plain densities do neither:

* near: narrow Gaussian kernels around training rows. What was never seen is not usual.
* wide: kernels nearly half as wide as two rows are apart. However tight a cluster of frauds, it
  is fewer rows than such a neighbourhood holds elsewhere, up to some percent of all.
* core: from 20 columns on, where all distances grow alike, a Gaussian with full covariance of the
  rows of highest wide density: one step of a trimmed estimator (Rousseeuw 1985), which a few
  percent of far rows cannot steer.

Rows are standardised and complete; surprises are -log p in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

NEAR_BANDWIDTH = 0.2  # standard deviations
WIDE_BANDWIDTH = 0.6  # of sqrt(columns): two standard normal rows are sqrt(2 * columns) apart
# How far a member's surprise counts, in spreads of its own, where the network's counts once.
NEAR_WEIGHT, WIDE_WEIGHT, CORE_WEIGHT = 2.0, 1.5, 1.0
CORE_COLUMNS = 20
CORE_SHARE = (
    0.8  # of the rows; a smaller share cuts into what is genuine, a larger leaves frauds in
)
CORE_ROWS_PER_COLUMN = 5  # fewer do not determine a covariance
CORE_RIDGE = 1e-4
PROTOTYPES, LEAST_PROTOTYPES = 2000, 50
ROWS = 20_000  # of the training rows; more of them move no estimate here
CHUNK_ROWS = 500
REACH = 300.0  # deviations; a row further out is no further from any prototype
LEAST_SPREAD = 0.1  # nats
CORE = 2  # its place among the members, after near and wide
HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True)
class Core:
    """A Gaussian with full covariance."""

    mean: np.ndarray  # (d,)
    precision: np.ndarray  # (d, d)

    @classmethod
    def fit(cls, rows: np.ndarray) -> Self:
        covariance = np.cov(rows.T) + CORE_RIDGE * np.eye(rows.shape[1])
        return cls(rows.mean(0), np.linalg.inv(covariance))

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """-log p in shares of the columns, (n, d): x_j (P x)_j / 2 and an equal part of the norm.

        A share is negative where the other columns let expect a cell even further out.
        """
        x = rows - self.mean
        norm = HALF_LOG_2PI - 0.5 * np.linalg.slogdet(self.precision)[1] / rows.shape[1]
        return 0.5 * x * (x @ self.precision) + norm


@dataclass(frozen=True)
class Kernels:
    """A mixture of normal densities of one width around prototypes."""

    prototypes: np.ndarray  # (K, d), distinct training rows
    log_share: np.ndarray  # (K,), log of the share of training rows that each stands for
    bandwidth: float

    def weigh(self, rows: np.ndarray, *, left_out: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """-log p, (n,), and the terms of its sum relative to the largest, (n, K), in float32,
        which is half the cost of scoring.

        left_out: rows are the prototypes, and each is left out of its own sum.
        """
        # One product with a column of ones: what differs between prototypes in -|x - u|^2 / 2h^2.
        inverse = self.bandwidth**-2
        bias = self.log_share - 0.5 * inverse * np.square(self.prototypes).sum(1)
        table = np.vstack([inverse * self.prototypes.T, bias])
        logs = np.column_stack([rows, np.ones(len(rows))]) @ table
        if left_out:
            np.fill_diagonal(logs, -np.inf)
        top = logs.max(1)
        relative = np.subtract(logs, top[:, None]).astype(np.float32)
        np.exp(relative, out=relative)
        log_sum = top + np.log(relative.sum(1, dtype=np.float64))
        norm = rows.shape[1] * (np.log(self.bandwidth) + HALF_LOG_2PI)
        return norm + 0.5 * inverse * np.square(rows).sum(1) - log_sum, relative

    def columns(self, rows: np.ndarray, relative: np.ndarray) -> np.ndarray:
        """-log of the kernel of each column, averaged over the prototypes by the posterior of
        whose neighbour the row is; relative: as `weigh` gives it. (n, d)."""
        posterior = relative / relative.sum(1, keepdims=True)
        prototypes = self.prototypes.astype(np.float32)
        apart = rows**2 - 2 * rows * (posterior @ prototypes) + posterior @ prototypes**2
        return apart / (2 * self.bandwidth**2) + np.log(self.bandwidth) + HALF_LOG_2PI


@dataclass(frozen=True)
class Panel:
    """The members near, wide and core, each brought to the scale of the network's surprise.

    calibrated = offset + slope * own, so that at the prototypes a member has the median of the
    network's surprise, and its spread times the member's weight.
    """

    near: Kernels
    wide: Kernels
    core: Core | None
    offset: np.ndarray  # (members,)
    slope: np.ndarray  # (members,)

    @classmethod
    def fit(
        cls,
        rows: np.ndarray,
        network: Callable[[np.ndarray], np.ndarray],
        generator: np.random.Generator,
    ) -> Self | None:
        """rows: (n, d). network: the network's surprise at given rows, (K, d) -> (K,).

        None where there are too few distinct rows to say what lies between them.
        """
        if len(rows) > ROWS:
            rows = rows[np.sort(generator.choice(len(rows), ROWS, replace=False))]
        prototypes, counts = np.unique(rows, axis=0, return_counts=True)
        if len(prototypes) < LEAST_PROTOTYPES:
            return None
        if len(prototypes) > PROTOTYPES:
            some = np.sort(generator.choice(len(prototypes), PROTOTYPES, replace=False))
            prototypes, counts = prototypes[some], counts[some]
        near, wide = _widths(prototypes, np.log(counts / counts.sum()))
        core = _core(rows, wide)
        own = _surprises(near, wide, core, prototypes, left_out=True)[0]
        return cls(near, wide, core, *_calibration(own, network(prototypes)))

    def surprise(self, rows: np.ndarray) -> np.ndarray:
        """The largest calibrated surprise of each row, (n,)."""
        rows = np.clip(rows, -REACH, REACH)
        own, _ = _surprises(self.near, self.wide, self.core, rows)
        return (self.offset + self.slope * own).max(1)

    def parts(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`surprise`, (n,), and what each column has in it, (n, d): that of the member with the
        largest; what is left is the divergence of its posterior and the offset."""
        rows = np.clip(rows, -REACH, REACH)
        own, relative = _surprises(self.near, self.wide, self.core, rows)
        calibrated = self.offset + self.slope * own
        loudest = calibrated.argmax(1)
        columns = np.empty(rows.shape)
        for member, kernels in enumerate((self.near, self.wide)):
            at = loudest == member
            columns[at] = kernels.columns(rows[at], relative[member][at])
        if self.core is not None:
            at = loudest == CORE
            columns[at] = self.core.columns(rows[at])
        return calibrated.max(1), self.slope[loudest, None] * columns

    def to_arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "prototypes": self.near.prototypes.astype(np.float32),
            "log_share": self.near.log_share,
            "offset": self.offset,
            "slope": self.slope,
        }
        if self.core is None:
            return arrays
        return arrays | {"mean": self.core.mean, "precision": self.core.precision}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        core = Core(arrays["mean"], arrays["precision"]) if "mean" in arrays else None
        prototypes = np.array(arrays["prototypes"], dtype=np.float64)
        near, wide = _widths(prototypes, arrays["log_share"])
        return cls(near, wide, core, arrays["offset"], arrays["slope"])


def _widths(prototypes: np.ndarray, log_share: np.ndarray) -> tuple[Kernels, Kernels]:
    wide = WIDE_BANDWIDTH * float(np.sqrt(prototypes.shape[1]))
    return Kernels(prototypes, log_share, NEAR_BANDWIDTH), Kernels(prototypes, log_share, wide)


def _core(rows: np.ndarray, wide: Kernels) -> Core | None:
    """The Gaussian of the rows that the wide kernels find most usual."""
    n, d = rows.shape
    kept = int(CORE_SHARE * n)
    if d < CORE_COLUMNS or kept < CORE_ROWS_PER_COLUMN * d:
        return None
    chunks = np.array_split(rows, max(1, n // CHUNK_ROWS))
    surprise = np.concatenate([wide.weigh(chunk)[0] for chunk in chunks])
    return Core.fit(rows[np.sort(np.argsort(surprise, kind="stable")[:kept])])


def _surprises(
    near: Kernels, wide: Kernels, core: Core | None, rows: np.ndarray, *, left_out: bool = False
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The members' surprises before calibration, (n, members), and the kernels' relative terms."""
    own, relative = zip(*(k.weigh(rows, left_out=left_out) for k in (near, wide)), strict=True)
    cores = [] if core is None else [core.columns(rows).sum(1)]
    return np.column_stack([*own, *cores]), list(relative)


def _calibration(own: np.ndarray, network: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offset and slope of each member, from its surprises (K, members) and the network's (K,)."""
    weights = np.array([NEAR_WEIGHT, WIDE_WEIGHT, CORE_WEIGHT])[: own.shape[1]]
    slope = weights * _spread(network) / _spread(own)
    return np.median(network) - slope * np.median(own, axis=0), slope


def _spread(surprise: np.ndarray) -> np.ndarray:
    """Distance between the quartiles, along the first axis."""
    low, high = np.percentile(surprise, [25, 75], axis=0)
    return np.maximum(high - low, LEAST_SPREAD)
