"""EM for mixtures of Gaussians or Student t: the pass over the rows and the step between passes.

Sources: Dempster, Laird and Rubin 1977 (EM); Fraley and Raftery 2007 (the conjugate prior, and
the uniform noise part); McLachlan and Peel 2000, chapter 7 (t components). The E-step and the sums
of the M-step are one matrix product each on quadratic features of the rows, with components as
rows and customers as columns, because sums and exponentials then run along contiguous memory.

Rows are grouped by which of their cells are known. A group is one product on the features of its
known columns; what the missing cells add is a linear map of the sums (Ghahramani and Jordan 1994),
so that they are integrated out exactly at no cost per row.

Discrete columns are `Blocks`: given the component independent of all others, so that they are
one more product, of a table of log probabilities and an indicator of each row's cells.

Arrays of parameters may have leading axes before that of the components: several starts of one
size then share each pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
from scipy.sparse import csc_array
from scipy.special import digamma, gammaln, polygamma

from segmenter.blocks import NO_BLOCKS, Blocks, indicators
from segmenter.families import estimate

BLOCK_CELLS = 80_000  # of quadratic features in one product: fits a second-level cache
FEWEST_ROWS, MOST_ROWS = 512, 2_048  # of one product: long enough to be fast, short enough to fit
CACHED_CELLS = 1_000_000  # quadratic features up to 8 MB are kept between passes
FEWEST_DEGREES, MOST_DEGREES = 2.0, 200.0  # of freedom: finite variance; hardly told from Gaussian

Columns = tuple[int, ...]
Batch = tuple[np.ndarray, np.ndarray | None]


class SingularFitError(ValueError):
    """A component has collapsed: its density says nothing about customers."""


@dataclass(frozen=True)
class Parameters:
    """A mixture: weights (K,), means (K, d), covariances (K, d, d) whatever the family.

    degrees: degrees of freedom (K,) of t components, whose `covariances` are the scale matrices;
    None for Gaussians. noise_weight: of a part that is uniform over noise_box (2, d), the lowest
    and highest corner; None without that part. blocks: of the discrete columns, the components of
    all starts one after another; noise_blocks: their law in the noise part.
    """

    family: str
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    degrees: np.ndarray | None = None
    noise_weight: np.ndarray | float = 0.0
    noise_box: np.ndarray | None = None
    blocks: Blocks = NO_BLOCKS
    noise_blocks: Blocks = NO_BLOCKS


@dataclass(frozen=True)
class Prior:
    """Inverse-Wishart-like prior: each component gets `strength` rows of covariance `shape`."""

    shape: np.ndarray
    strength: float


@dataclass(frozen=True)
class Statistics:
    """Sums over rows, weighted by responsibilities, about the centre of the rows.

    counts (K,); pulled (K,), first (K, d) and second (K, d, d) moments, weighted also by the pull
    of each row (1 for Gaussians, less for a row in the tail of a t); tails (K,), of which the
    degrees of freedom are made; noise, the rows of the noise part; indecision, the cost of naming
    each row's part, in nats; histogram (K, V), rows per distinct cell of the blocks.
    """

    counts: np.ndarray
    pulled: np.ndarray
    first: np.ndarray
    second: np.ndarray
    tails: np.ndarray
    noise: np.ndarray
    indecision: np.ndarray
    histogram: np.ndarray

    def means(self) -> np.ndarray:
        """Means about the centre, (K, d)."""
        return self.first / np.maximum(self.pulled, 1e-300)[..., None]

    def scatter(self) -> np.ndarray:
        """Within-component scatter about the component's own mean, (K, d, d)."""
        return self.second - self.first[..., :, None] * self.means()[..., None, :]


@dataclass(frozen=True)
class Fit:
    """The end of one EM run; `trace` holds the objective after each pass, in nats over all rows."""

    parameters: Parameters
    statistics: Statistics
    log_likelihood: float
    trace: tuple[float, ...]
    converged: bool


@dataclass(frozen=True)
class Chunk:
    """Quadratic features (p, m) of m rows in which the columns `observed` are known.

    places: where the rows stand in their matrix. weights (m,), or None where all are one. cells
    (V, m): `indicators` of the blocks, or None.
    """

    features: np.ndarray
    observed: Columns
    places: np.ndarray
    weights: np.ndarray | None
    cells: csc_array | None = None


class Workspace:
    """Memory that every chunk uses again: fresh pages would cost more than the arithmetic."""

    def __init__(self) -> None:
        self.flat: dict[str, np.ndarray] = {}

    def array(self, name: str, *shape: int) -> np.ndarray:
        """An array of this shape with anything in it, valid until the name is asked for again."""
        size = math.prod(shape)
        if name not in self.flat or self.flat[name].size < size:
            self.flat[name] = np.empty(size)
        return self.flat[name][:size].reshape(shape)


class Rows:
    """Rows as chunks of quadratic features about a centre: 1, x, and x_i x_j.

    x (n, d), NaN where a cell is missing; any columns after the d of the centre are codes of
    discrete cells (`Layout.encoded`), of as many distinct ones as `sizes` says. With `crossed` all
    pairs i <= j are held (p = 1 + d + d(d+1)/2), else only the squares. total: the sum of the
    rows' weights. work: of others, where the rows are passed over once.
    """

    def __init__(
        self,
        x: np.ndarray,
        centre: np.ndarray,
        crossed: bool,
        weights: np.ndarray | None = None,
        work: Workspace | None = None,
        sizes: Sequence[int] = (),
    ) -> None:
        self.centre, self.crossed, self.sizes = centre, crossed, sizes
        self.total = float(len(x) if weights is None else weights.sum())
        self.work = Workspace() if work is None else work
        d = len(centre)
        self.groups = [
            (
                observed,
                places,
                _taken((x[:, :d] - centre).T, list(observed), places),
                None if weights is None else weights[places],
                x[places, d:].T.astype(np.intp),
            )
            for observed, places in known_cells(x[:, :d])
        ]
        cells = len(x) * (1 + d + len(pairs(d, crossed)[0]))
        kept = work is None and cells <= CACHED_CELLS
        self.cache = list(self._chunks(False)) if kept else None

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.cache) if self.cache is not None else self._chunks(True)

    def _chunks(self, passing: bool) -> Iterator[Chunk]:
        """The chunks; a passing one is gone when the next is asked for."""
        for observed, places, z, weights, codes in self.groups:
            height = 1 + len(z) + len(pairs(len(z), self.crossed)[0])
            width = min(MOST_ROWS, max(FEWEST_ROWS, BLOCK_CELLS // height))
            for start in range(0, len(places), width):
                part = slice(start, start + width)
                here = places[part]
                shape = height, len(here)
                features = self.work.array("features", *shape) if passing else np.empty(shape)
                self._fill(features, z[:, part])
                cells = indicators(codes[:, part], self.sizes) if self.sizes else None
                own = None if weights is None else weights[part]
                yield Chunk(features, observed, here, own, cells)

    def _fill(self, features: np.ndarray, known: np.ndarray) -> None:
        """Quadratic features (p, m) of centred columns (o, m)."""
        d = len(known)
        features[0], z = 1.0, features[1 : 1 + d]
        z[:] = known
        if not self.crossed:
            np.multiply(z, z, out=features[1 + d :])
            return
        end = 1 + d
        for i in range(d):
            np.multiply(z[i], z[i:], out=features[end : end + d - i])
            end += d - i


def _taken(z: np.ndarray, columns: list[int], places: np.ndarray) -> np.ndarray:
    """Columns and rows of z (d, n), in contiguous memory."""
    whole = len(columns) == len(z) and len(places) == z.shape[1]
    return np.ascontiguousarray(z if whole else z[columns][:, places])


class Batches:
    """Rows that are read anew in every pass, batch by batch, in constant memory.

    read: gives an iterator of batches (m, d) with their weights (m,) or None.
    """

    def __init__(
        self,
        read: Callable[[], Iterator[Batch]],
        centre: np.ndarray,
        crossed: bool,
        total: float,
        sizes: Sequence[int] = (),
    ) -> None:
        self.read, self.centre, self.crossed, self.total = read, centre, crossed, total
        self.sizes, self.work = sizes, Workspace()

    def __iter__(self) -> Iterator[Chunk]:
        for x, weights in self.read():
            yield from Rows(x, self.centre, self.crossed, weights, self.work, self.sizes)


def known_cells(x: np.ndarray) -> list[tuple[Columns, np.ndarray]]:
    """The sets of columns known together in rows of x (n, d), each with the rows' positions."""
    known = ~np.isnan(x)
    if known.all():
        return [(tuple(range(x.shape[1])), np.arange(len(x)))]
    kinds, kind = np.unique(known, axis=0, return_inverse=True)
    order = np.argsort(kind.ravel(), kind="stable")
    places = np.split(order, np.cumsum(np.bincount(kind.ravel()))[:-1])
    return [
        (tuple(np.flatnonzero(columns).tolist()), here)
        for columns, here in zip(kinds, places, strict=True)
    ]


@cache
def pairs(d: int, crossed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each quadratic feature: the upper triangle, or the diagonal alone."""
    return np.triu_indices(d) if crossed else (np.arange(d), np.arange(d))


@dataclass(frozen=True)
class Density:
    """The components made ready for rows in which the columns `observed` are known.

    coefficients (K, p), whose product with the features is log(w_k N(x | k)) for Gaussians and
    the squared Mahalanobis distance for t; offsets (K,), log(w_k t(mean | k)). lift (K, d, 1 + o)
    and spread (K, d, d): mean, from the known cells, and covariance of all cells given them; None
    where all are known. noise: log of weight times density of the noise part, (), or None.
    """

    observed: Columns
    coefficients: np.ndarray
    offsets: np.ndarray
    degrees: np.ndarray | None
    lift: np.ndarray | None
    spread: np.ndarray | None
    noise: np.ndarray | None


def density(
    parameters: Parameters, centre: np.ndarray, observed: Columns, crossed: bool
) -> Density:
    """The components for features of the columns `observed`, crossed or not.

    Raises SingularFitError where a covariance is not positive definite."""
    columns, d = list(observed), len(centre)
    covariances = parameters.covariances[..., columns, :][..., columns]
    means = (parameters.means - centre)[..., columns]
    log_determinants, precisions = inverse(covariances)
    linear = np.einsum("...ij,...j->...i", precisions, means)
    distance = (means * linear).sum(axis=-1)
    i, j = pairs(len(columns), crossed)
    quadratic = np.where(i == j, -0.5, -1.0) * precisions[..., i, j]
    coefficients = np.concatenate([-0.5 * distance[..., None], linear, quadratic], axis=-1)
    with np.errstate(divide="ignore"):  # a part that has lost all its rows weighs nothing
        offsets = np.log(parameters.weights) - 0.5 * log_determinants
        noise = _noise_term(parameters, columns)
    if parameters.degrees is None:
        offsets = offsets - 0.5 * len(columns) * np.log(2 * np.pi)
        coefficients[..., 0] += offsets
    else:
        offsets = offsets + _log_t_constant(parameters.degrees, len(columns))
        coefficients *= -2.0
    lift, spread = None, None
    if len(columns) < d:
        lift, spread = _given(parameters, centre, columns, precisions, means)
    return Density(observed, coefficients, offsets, parameters.degrees, lift, spread, noise)


def inverse(covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log determinants (...) and inverses (..., d, d) of positive definite matrices."""
    try:
        lower = np.linalg.cholesky(covariances)
        roots = np.linalg.inv(lower)
    except np.linalg.LinAlgError as error:
        raise SingularFitError("a covariance is not positive definite") from error
    diagonal = np.einsum("...ii->...i", lower)
    return 2 * np.log(diagonal).sum(axis=-1), np.swapaxes(roots, -1, -2) @ roots


def _noise_term(parameters: Parameters, columns: list[int]) -> np.ndarray | None:
    if parameters.noise_box is None:
        return None
    low, high = parameters.noise_box[:, columns]
    return np.log(np.asarray(parameters.noise_weight)) - np.log(high - low).sum()


def _log_t_constant(degrees: np.ndarray, d: int) -> np.ndarray:
    """Log of the density of a t of unit scale at its mean, (...)."""
    return gammaln(0.5 * (degrees + d)) - gammaln(0.5 * degrees) - 0.5 * d * np.log(np.pi * degrees)


def _given(
    parameters: Parameters,
    centre: np.ndarray,
    columns: list[int],
    precisions: np.ndarray,
    means: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """lift and spread of `Density`: the regression of all cells on the known ones."""
    covariances = parameters.covariances
    slope = covariances[..., columns] @ precisions
    slope[..., columns, :] = np.eye(len(columns))
    at_zero = parameters.means - centre - np.einsum("...ij,...j->...i", slope, means)
    at_zero[..., columns] = 0.0
    spread = covariances - slope @ covariances[..., columns, :]
    spread[..., columns, :] = 0.0
    spread[..., columns] = 0.0
    return np.concatenate([at_zero[..., None], slope], axis=-1), spread


def cell_terms(parameters: Parameters) -> np.ndarray | None:
    """Log probabilities (K, V) of the blocks' cells, one more row for the noise part."""
    if not parameters.blocks.parts:
        return None
    shape = parameters.weights.shape
    table = parameters.blocks.log_table().reshape(*shape, -1)
    if parameters.noise_box is None:
        return table
    noise = parameters.noise_blocks.log_table()
    noise = np.broadcast_to(noise, (*shape[:-1], 1, table.shape[-1]))
    return np.concatenate([table, noise], axis=-2)


def log_terms(
    ready: Density, chunk: Chunk, table: np.ndarray | None, work: Workspace
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Log of weight times density, (K, m) and one more row for the noise part.

    table: by `cell_terms`. With t also the rows' pulls, (degrees + o) / (degrees + distance), and
    log(1 + distance / degrees), (K, m) each. All of them live in `work`.
    """
    features = chunk.features
    shape = *ready.coefficients.shape[:-1], features.shape[1]
    terms, pulls, logs = work.array("terms", *shape), None, None
    flat = ready.coefficients.reshape(-1, len(features))
    np.matmul(flat, features, out=terms.reshape(len(flat), -1))
    if ready.degrees is not None:
        degrees, size = ready.degrees[..., None], ready.degrees[..., None] + len(ready.observed)
        pulls, logs, terms = terms, work.array("logs", *shape), work.array("tails", *shape)
        np.maximum(pulls, 0.0, out=pulls)
        pulls /= degrees
        np.log1p(pulls, out=logs)
        pulls += 1.0
        np.divide(size / degrees, pulls, out=pulls)
        np.multiply(logs, -0.5 * size, out=terms)
        terms += ready.offsets[..., None]
    if ready.noise is not None:
        quiet, terms = terms, work.array("noisy", *shape[:-2], shape[-2] + 1, shape[-1])
        terms[..., :-1, :], terms[..., -1, :] = quiet, ready.noise[..., None]
    if table is not None:
        rows = math.prod(table.shape[:-1])  # no -1: there may be no cell at all
        terms += (table.reshape(rows, table.shape[-1]) @ chunk.cells).reshape(terms.shape)
    return terms, pulls, logs


def log_sum_exp(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of terms (K, n): log of their sum over components (n,), posteriors (K, n), indecision (n,).

    The indecision is minus the log of the largest posterior. Taking out the largest term keeps
    far rows finite (Bishop 2006, eq. 9.23 and 9.14). The posteriors overwrite the terms.
    """
    top = terms.max(axis=-2, keepdims=True)
    terms -= top
    np.exp(terms, out=terms)
    total = terms.sum(axis=-2, keepdims=True)
    terms *= 1.0 / total
    indecision = np.log(total[..., 0, :])
    return top[..., 0, :] + indecision, terms, indecision


@dataclass
class _Sums:
    """What one group of rows adds up to during a pass."""

    ready: Density
    table: np.ndarray | None
    features: np.ndarray | float = 0.0
    counts: np.ndarray | float = 0.0
    logs: np.ndarray | float = 0.0
    noise: np.ndarray | float = 0.0
    indecision: np.ndarray | float = 0.0
    histogram: np.ndarray | float = 0.0

    def add(self, chunk: Chunk, work: Workspace) -> np.ndarray:
        """Take in a chunk; returns its log-likelihood in nats, one per start."""
        terms, pulls, logs = log_terms(self.ready, chunk, self.table, work)
        log_density, posterior, indecision = log_sum_exp(terms)
        if chunk.weights is not None:
            log_density = log_density * chunk.weights
            indecision = indecision * chunk.weights
            posterior *= chunk.weights
        self.indecision = self.indecision + indecision.sum(axis=-1)
        if self.ready.noise is not None:
            self.noise = self.noise + posterior[..., -1, :].sum(axis=-1)
            posterior = posterior[..., :-1, :]
        if chunk.cells is not None:
            held = posterior.reshape(-1, posterior.shape[-1]) @ chunk.cells.T
            self.histogram = self.histogram + held.reshape(*posterior.shape[:-1], -1)
        if pulls is not None and logs is not None:
            self.counts = self.counts + posterior.sum(axis=-1)
            self.logs = self.logs + np.einsum("...km,...km->...k", posterior, logs)
            posterior *= pulls
        flat = posterior.reshape(-1, posterior.shape[-1]) @ chunk.features.T
        self.features = self.features + flat.reshape(*posterior.shape[:-1], -1)
        return log_density.sum(axis=-1)

    def statistics(self, crossed: bool) -> Statistics:
        """The sums as moments of all d columns about the centre."""
        size = len(self.ready.observed)
        sums = np.asarray(self.features)
        moments = moment_matrix(sums, size, crossed)
        pulled = sums[..., 0]
        degrees = self.ready.degrees
        counts = pulled if degrees is None else np.asarray(self.counts)
        tails = np.zeros_like(pulled) if degrees is None else self._tails(degrees, size)
        first, second = moments[..., 0, 1:], moments[..., 1:, 1:]
        if self.ready.lift is not None and self.ready.spread is not None:
            lift = self.ready.lift
            first = np.einsum("...ij,...j->...i", lift, moments[..., 0])
            second = lift @ moments @ np.swapaxes(lift, -1, -2)
            second = second + counts[..., None, None] * self.ready.spread
        noise, indecision = np.asarray(self.noise), np.asarray(self.indecision)
        histogram = np.asarray(self.histogram)
        return Statistics(counts, pulled, first, second, tails, noise, indecision, histogram)

    def _tails(self, degrees: np.ndarray, size: int) -> np.ndarray:
        """Sum of the expected log(u) - u of the rows' hidden scales u, (K,)."""
        half = 0.5 * (degrees + size)
        counts, pulled = np.asarray(self.counts), np.asarray(self.features)[..., 0]
        return counts * (digamma(half) - np.log(0.5 * degrees)) - self.logs - pulled


def moment_matrix(sums: np.ndarray, d: int, crossed: bool) -> np.ndarray:
    """Sums of quadratic features (..., p) as those of (1, x)(1, x)', (..., 1 + d, 1 + d)."""
    i, j = pairs(d, crossed)
    moments = np.zeros((*sums.shape[:-1], d + 1, d + 1))
    moments[..., 0, :] = moments[..., :, 0] = sums[..., : d + 1]
    moments[..., i + 1, j + 1] = moments[..., j + 1, i + 1] = sums[..., d + 1 :]
    return moments


def expectation(rows: Rows | Batches, parameters: Parameters) -> tuple[np.ndarray, Statistics]:
    """One pass over the rows: log-likelihood in nats (one per start) and the statistics."""
    sums: dict[Columns, _Sums] = {}
    table = cell_terms(parameters)
    log_likelihood = np.zeros(parameters.weights.shape[:-1])
    for chunk in rows:
        if chunk.observed not in sums:
            ready = density(parameters, rows.centre, chunk.observed, rows.crossed)
            sums[chunk.observed] = _Sums(ready, table)
        log_likelihood = log_likelihood + sums[chunk.observed].add(chunk, rows.work)
    return log_likelihood, _added([group.statistics(rows.crossed) for group in sums.values()])


def _added(parts: Sequence[Statistics]) -> Statistics:
    """The statistics of all rows: sums add up."""
    if len(parts) == 1:
        return parts[0]
    return Statistics(
        *(sum(getattr(part, field.name) for part in parts) for field in fields(Statistics))
    )


def maximisation(
    before: Parameters,
    statistics: Statistics,
    prior: Prior,
    centre: np.ndarray,
    blocks: Blocks | None = None,
) -> Parameters:
    """The parameters of the largest expected penalised log-likelihood, or better than `before`.

    blocks: those of this step, where they are there already.
    """
    counts = statistics.counts
    scatter = statistics.scatter() + prior.strength * prior.shape
    total = counts.sum(axis=-1) + statistics.noise
    return replace(
        before,
        weights=counts / total[..., None],
        means=statistics.means() + centre,
        covariances=estimate(before.family, scatter, counts + prior.strength, before.covariances),
        degrees=None if before.degrees is None else _degrees(statistics),
        noise_weight=statistics.noise / total,
        blocks=before.blocks.updated(statistics.histogram) if blocks is None else blocks,
    )


def _degrees(statistics: Statistics) -> np.ndarray:
    """Degrees of freedom (K,), shared by the components (McLachlan and Peel 2000, eq. 7.30).

    The root of log(v/2) - digamma(v/2) + 1 + mean tail = 0 by Newton's method in 1/v, in which the
    left side is nearly a straight line.
    """
    mean = statistics.tails.sum(axis=-1, keepdims=True) / statistics.counts.sum(
        axis=-1, keepdims=True
    )
    target = np.maximum(-1.0 - mean, 0.0)
    inverted = np.clip(target, 1 / MOST_DEGREES, 1 / FEWEST_DEGREES)
    for _ in range(5):
        half = 0.5 / inverted
        value = np.log(half) - digamma(half) - target
        slope = half * (half * polygamma(1, half) - 1) * 2
        inverted = np.clip(inverted - value / slope, 1 / MOST_DEGREES, 1 / FEWEST_DEGREES)
    return np.broadcast_to(1 / inverted, statistics.counts.shape)


def log_prior(parameters: Parameters, prior: Prior) -> np.ndarray:
    """Log density of the prior up to a constant: -strength/2 (log|S| + tr(shape S^-1)) summed.

    Blocks add the log probability of their pseudo-rows.
    """
    log_determinants, precisions = inverse(parameters.covariances)
    traces = (precisions * prior.shape).sum(axis=(-2, -1))
    total = -0.5 * prior.strength * (log_determinants + traces)
    if parameters.blocks.parts:
        total = total + parameters.blocks.log_prior().reshape(total.shape)
    return total.sum(axis=-1)


def joined(models: Sequence[Parameters]) -> Parameters:
    """Models of one size with an axis of starts each, as one array of starts for a joint pass."""
    first = models[0]
    return replace(
        first,
        weights=np.concatenate([model.weights for model in models]),
        means=np.concatenate([model.means for model in models]),
        covariances=np.concatenate([model.covariances for model in models]),
        degrees=None
        if first.degrees is None
        else np.concatenate([m.degrees for m in models if m.degrees is not None]),
        noise_weight=np.concatenate([np.asarray(model.noise_weight) for model in models]),
        blocks=Blocks.joined([model.blocks for model in models]),
    )


def parted(statistics: Statistics, models: Sequence[Parameters]) -> list[Statistics]:
    """The statistics of a joint pass, for each of the models that were joined."""
    ends = np.cumsum([len(model.weights) for model in models])
    values = [np.asarray(getattr(statistics, field.name)) for field in fields(Statistics)]
    return [
        Statistics(*(v[end - len(model.weights) : end] if v.ndim else v for v in values))
        for end, model in zip(ends, models, strict=True)
    ]


def run_em(
    rows: Rows | Batches, start: Parameters, prior: Prior, max_iter: int, tolerance: float
) -> Fit:
    """EM from `start` until the objective per row gains less than `tolerance`.

    The objective is the log-likelihood plus the log prior; it never decreases. At least one
    pass is made; the likelihood and the statistics returned belong to the returned parameters.
    """
    parameters, trace, converged = start, [], False
    log_likelihood, statistics = expectation(rows, parameters)
    trace.append(float(log_likelihood + log_prior(parameters, prior)))
    for _ in range(max_iter):
        parameters = maximisation(parameters, statistics, prior, rows.centre)
        log_likelihood, statistics = expectation(rows, parameters)
        trace.append(float(log_likelihood + log_prior(parameters, prior)))
        if trace[-1] - trace[-2] < tolerance * rows.total:
            converged = True
            break
    return Fit(parameters, statistics, float(log_likelihood), tuple(trace), converged)
