"""A density for each kind of column, all with one interface, so that a new kind touches no loss.

A likelihood evaluates a block of m columns of its kind at once:
parameters (..., n_parameters, m), one plane per parameter, unconstrained as a network gives them;
x (..., m), where NaN is a missing cell. Leading dimensions broadcast.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import special, stats
from torch import Tensor

# Variances of standardised columns stay within exp(-6) and exp(6): below, a column of few distinct
# values would buy an unbounded density; above, the column has left its scale.
LOG_VARIANCE_RANGE = (-6.0, 6.0)
# Beyond 7 the negative binomial is a Poisson for all counts that occur; below -4 it is a spike.
LOG_SIZE_RANGE = (-4.0, 7.0)
LOG_MEAN_RANGE = (-12.0, 20.0)


def soft_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Keep x within (low, high) with a gradient everywhere; nearly the identity inside."""
    floored = low + F.softplus(x - low)
    return high - F.softplus(high - floored)


class Likelihood(ABC):
    """p(x | parameters) for columns of one kind."""

    n_parameters: int
    n_locations: int  # the first so many parameters place the density, the others shape it
    n_inputs: int = 1  # numbers by which a network sees one cell
    continuous: bool = False  # standardised before it is modelled

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log density in nats, (..., m); a missing cell gives 0, which marginalises it."""
        missing = x.isnan()
        # The stand-in keeps NaN out of the backward pass, where 0 * NaN would be NaN.
        return self._log_prob(parameters, x.masked_fill(missing, 0.0)).masked_fill(missing, 0.0)

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """One draw per cell, (..., m), by inversion."""
        shape = parameters.shape[:-2] + parameters.shape[-1:]
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        return self.quantile(parameters, uniform.clamp_min(2.0**-53))

    @abstractmethod
    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log density of cells that are all present."""

    @abstractmethod
    def quantile(self, parameters: Tensor, level: Tensor) -> Tensor:
        """Smallest value whose cdf reaches `level` in (0, 1); level broadcasts to (..., m)."""

    @abstractmethod
    def start(self, column: np.ndarray) -> list[float]:
        """Parameters of the marginal of a column (n,) without missing cells: where training starts.

        Continuous columns are standardised, so theirs do not depend on the data.
        """

    def inputs(self, x: Tensor) -> Tensor:
        """What a network sees of the cells: (n, m) -> (n, m, n_inputs); missing stays NaN."""
        return x.unsqueeze(-1)

    def fault(self, column: np.ndarray) -> str | None:
        """What is wrong with the present cells of a column, or None."""
        return None


class NumericLikelihood(Likelihood):
    """A likelihood whose values have an order, so that ranges of them mean something."""

    @abstractmethod
    def cdf(self, parameters: Tensor, x: Tensor) -> Tensor:
        """P(X <= x), (..., m)."""


class Gaussian(NumericLikelihood):
    """Normal with input-dependent variance. Parameters: mean, log variance."""

    n_parameters, n_locations, continuous = 2, 1, True

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        mean, log_variance = self._split(parameters)
        scaled = (x - mean).square() * torch.exp(-log_variance)
        return -0.5 * (scaled + log_variance + math.log(2 * math.pi))

    def cdf(self, parameters: Tensor, x: Tensor) -> Tensor:
        mean, log_variance = self._split(parameters)
        return torch.special.ndtr((x - mean) * torch.exp(-0.5 * log_variance))

    def quantile(self, parameters: Tensor, level: Tensor) -> Tensor:
        mean, log_variance = self._split(parameters)
        return mean + torch.exp(0.5 * log_variance) * torch.special.ndtri(level)

    def start(self, column: np.ndarray) -> list[float]:
        return [0.0, 0.0]

    @staticmethod
    def _split(parameters: Tensor) -> tuple[Tensor, Tensor]:
        return parameters[..., 0, :], soft_clamp(parameters[..., 1, :], *LOG_VARIANCE_RANGE)


class StudentT(NumericLikelihood):
    """Student-t for heavy tails. Parameters: location, log squared scale, degrees of freedom.

    The degrees of freedom are 2 + softplus(raw), so the variance is finite.
    """

    n_parameters, n_locations, continuous = 3, 1, True

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        location, log_square, freedom = self._split(parameters)
        scaled = (x - location).square() * torch.exp(-log_square) / freedom
        norm = torch.lgamma(0.5 * (freedom + 1)) - torch.lgamma(0.5 * freedom)
        norm = norm - 0.5 * (torch.log(math.pi * freedom) + log_square)
        return norm - 0.5 * (freedom + 1) * torch.log1p(scaled)

    def cdf(self, parameters: Tensor, x: Tensor) -> Tensor:
        location, log_square, freedom = self._split(parameters)
        scaled = (x - location) * torch.exp(-0.5 * log_square)
        return torch.as_tensor(special.stdtr(freedom.numpy(), scaled.numpy()))

    def quantile(self, parameters: Tensor, level: Tensor) -> Tensor:
        location, log_square, freedom = self._split(parameters)
        scaled = torch.as_tensor(special.stdtrit(freedom.numpy(), level.numpy()))
        return location + torch.exp(0.5 * log_square) * scaled

    def start(self, column: np.ndarray) -> list[float]:
        return [0.0, 0.0, 6.0]

    @staticmethod
    def _split(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_square = soft_clamp(parameters[..., 1, :], *LOG_VARIANCE_RANGE)
        return parameters[..., 0, :], log_square, 2.0 + F.softplus(parameters[..., 2, :])


class NegativeBinomial(NumericLikelihood):
    """Counts 0, 1, 2, ... Parameters: log mean, log size (variance = mean + mean^2 / size)."""

    n_parameters, n_locations = 2, 1

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        log_mean, log_size = self._split(parameters)
        size, log_odds = torch.exp(log_size), log_mean - log_size
        ways = torch.lgamma(x + size) - torch.lgamma(size) - torch.lgamma(x + 1)
        return ways - size * F.softplus(log_odds) - x * F.softplus(-log_odds)

    def cdf(self, parameters: Tensor, x: Tensor) -> Tensor:
        size, success = self._scipy(parameters)
        return torch.as_tensor(stats.nbinom.cdf(x.numpy(), size, success))

    def quantile(self, parameters: Tensor, level: Tensor) -> Tensor:
        size, success = self._scipy(parameters)
        return torch.as_tensor(stats.nbinom.ppf(level.numpy(), size, success))

    def start(self, column: np.ndarray) -> list[float]:
        mean, variance = column.mean() + 1e-3, column.var()
        size = mean**2 / max(variance - mean, 1e-3 * mean)
        return [math.log(mean), float(np.clip(math.log(size), -2.0, 5.0))]

    def inputs(self, x: Tensor) -> Tensor:
        return torch.log1p(x).unsqueeze(-1)

    def fault(self, column: np.ndarray) -> str | None:
        wrong = (column < 0) | (column != np.floor(column))
        return f"a count of {column[wrong][0]:g}" if wrong.any() else None

    @staticmethod
    def _split(parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_mean = soft_clamp(parameters[..., 0, :], *LOG_MEAN_RANGE)
        return log_mean, soft_clamp(parameters[..., 1, :], *LOG_SIZE_RANGE)

    def _scipy(self, parameters: Tensor) -> tuple[np.ndarray, np.ndarray]:
        log_mean, log_size = self._split(parameters)
        return torch.exp(log_size).numpy(), torch.sigmoid(log_size - log_mean).numpy()


class Categorical(Likelihood):
    """One of `levels` codes 0, 1, ..., levels - 1. Parameters: a logit per level."""

    def __init__(self, levels: int) -> None:
        if levels < 1:
            raise ValueError(f"a categorical column needs at least 1 level, got {levels}")
        self.levels = self.n_parameters = self.n_locations = self.n_inputs = levels

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        log_p = torch.log_softmax(parameters, dim=-2)
        shape = torch.broadcast_shapes(x.shape, log_p.shape[:-2] + log_p.shape[-1:])
        codes = x.long().expand(shape).unsqueeze(-2)
        log_p = log_p.expand(*shape[:-1], self.levels, shape[-1])
        return log_p.gather(-2, codes).squeeze(-2)

    def quantile(self, parameters: Tensor, level: Tensor) -> Tensor:
        below = torch.softmax(parameters, dim=-2).cumsum(-2) < level.unsqueeze(-2)
        return below.sum(-2).clamp_max(self.levels - 1).to(parameters.dtype)

    def start(self, column: np.ndarray) -> list[float]:
        counts = np.bincount(column.astype(np.int64), minlength=self.levels) + 1.0
        return np.log(counts / counts.sum()).tolist()

    def inputs(self, x: Tensor) -> Tensor:
        levels = torch.arange(self.levels, device=x.device, dtype=x.dtype)
        return (x.unsqueeze(-1) == levels).to(x.dtype)

    def fault(self, column: np.ndarray) -> str | None:
        wrong = (column < 0) | (column >= self.levels) | (column != np.floor(column))
        if not wrong.any():
            return None
        return f"a level code of {column[wrong][0]:g}, expected 0 to {self.levels - 1}"


KINDS: dict[str, Callable[[], Likelihood]] = {
    "gaussian": Gaussian,
    "student": StudentT,
    "count": NegativeBinomial,
}


def likelihood_of(kind: str) -> Likelihood:
    """The likelihood for "gaussian", "student", "count" or "categorical:L" (L levels)."""
    name, _, levels = str(kind).partition(":")
    if name == "categorical" and levels.isdecimal():
        return Categorical(int(levels))
    if name not in KINDS or levels:
        known = ", ".join([*KINDS, "categorical:L"])
        raise ValueError(f"unknown kind of column {kind!r}; known kinds: {known}")
    return KINDS[name]()


@dataclass(frozen=True)
class Block:
    """Columns of one kind, evaluated together."""

    likelihood: Likelihood
    columns: list[int]
    outputs: slice  # of a network's output, n_parameters * m wide, parameter by parameter

    def parameters(self, outputs: Tensor) -> Tensor:
        """(..., all outputs) -> (..., n_parameters, m)."""
        shape = (self.likelihood.n_parameters, len(self.columns))
        return outputs[..., self.outputs].unflatten(-1, shape)


def blocks_of(kinds: Sequence[str]) -> list[Block]:
    """Columns grouped by kind, in the order in which the kinds first appear."""
    blocks: list[Block] = []
    start = 0
    for kind in dict.fromkeys(kinds):
        likelihood = likelihood_of(kind)
        columns = [j for j, other in enumerate(kinds) if other == kind]
        stop = start + likelihood.n_parameters * len(columns)
        blocks.append(Block(likelihood, columns, slice(start, stop)))
        start = stop
    return blocks


def mixture_quantile(likelihood: NumericLikelihood, parameters: Tensor, level: float) -> Tensor:
    """Quantile of the equal mixture over the K parameter sets: (n, K, P, m) -> (n, m).

    Bisection between the smallest and the largest of the components' own quantiles, which always
    enclose the mixture's; exact for counts, else to 1e-12 of that distance.
    """
    levels = torch.full((1,), level, dtype=parameters.dtype)
    ends = likelihood.quantile(parameters, levels)
    resolution = 0.0 if likelihood.continuous else 1.0
    low, high = ends.amin(1) - resolution, ends.amax(1)  # cdf(low) is below the level
    for _ in range(40):
        if (high - low).max() <= resolution:
            break
        middle = 0.5 * (low + high) if likelihood.continuous else torch.floor(0.5 * (low + high))
        reached = likelihood.cdf(parameters, middle.unsqueeze(1)).mean(1) >= level
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return high
