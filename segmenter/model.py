"""The density of customers: a mixture of Gaussians with a prior and a singularity guard.

Sources: Dempster, Laird and Rubin 1977 (EM); Fraley and Raftery 2007 (the conjugate prior);
Biernacki, Celeux and Govaert 2000 (ICL). The E and the M step are one matrix product each on
quadratic features of the rows, with components as rows and customers as columns, because sums
and exponentials then run along contiguous memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg import cho_solve, cholesky, eigh
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.cluster import KMeans
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

FAMILIES = ("full", "tied", "diag", "spherical")
CRITERIA = ("bic", "icl")
SCAN_ROWS = 5_000  # the choice of K does not get better with more rows, only slower
WARD_ROWS = 1_500  # a linkage holds all pairwise distances: 9 MB at this size
BLOCK_ROWS = 4_096  # columns of one matrix product: fits a second-level cache
CACHED_CELLS = 20_000_000  # quadratic features up to 160 MB are kept between passes
SHORT_RUN = 12  # passes after which the starts are compared
PATIENCE = 3  # sizes in a row without a better criterion after which a family is left
POLISHED = 3  # scanned models that are fitted again on all rows
PRIOR_STRENGTH = 0.01  # times d + 2 pseudo-rows
MIN_SCALE = 1e-4  # smallest sd of a component, relative to the prior's in the same direction


class SingularFitError(ValueError):
    """A component has collapsed: its density says nothing about customers."""


@dataclass(frozen=True)
class Parameters:
    """A mixture: weights (K,), means (K, d), covariances (K, d, d) whatever the family."""

    family: str
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


@dataclass(frozen=True)
class Prior:
    """Inverse-Wishart-like prior: `strength` pseudo-rows with covariance `shape` (d, d)."""

    shape: np.ndarray
    strength: float


@dataclass(frozen=True)
class Statistics:
    """Sums over rows, weighted by responsibilities: counts (K,), first (K, d), second (K, d, d)."""

    counts: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def scatter(self) -> np.ndarray:
        """Within-component scatter about the component's own mean, (K, d, d)."""
        means = self.first / self.counts[:, None]
        return self.second - np.einsum("k,ki,kj->kij", self.counts, means, means)


@dataclass(frozen=True)
class Fit:
    """The end of one EM run; `trace` holds the objective after each pass, in nats over all rows."""

    parameters: Parameters
    statistics: Statistics
    log_likelihood: float
    trace: tuple[float, ...]
    converged: bool


@dataclass(frozen=True)
class Candidate:
    """One cell of the scan: its fit, or none and the reason where every start was refused."""

    family: str
    n_components: int
    criterion: float
    fits: tuple[Fit, ...]
    refused: str


class Quadratics:
    """Quadratic features of centred rows, in blocks (p, rows): 1, x, and x_i x_j.

    With `crossed` all pairs i <= j are held (p = 1 + d + d(d+1)/2), else only the squares.
    """

    def __init__(self, x: np.ndarray, centre: np.ndarray, crossed: bool) -> None:
        self.x, self.centre = x, centre
        self.n_rows, self.d = x.shape
        self.i, self.j = pairs(self.d, crossed)
        cells = self.n_rows * (1 + self.d + len(self.i))
        self.cache = list(self._blocks()) if cells <= CACHED_CELLS else None

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.cache) if self.cache is not None else self._blocks()

    def _blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, self.n_rows, BLOCK_ROWS):
            z = np.ascontiguousarray((self.x[start : start + BLOCK_ROWS] - self.centre).T)
            yield np.concatenate([np.ones((1, z.shape[1])), z, z[self.i] * z[self.j]])


def pairs(d: int, crossed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each quadratic feature: the upper triangle, or the diagonal alone."""
    if crossed:
        return np.triu_indices(d)
    return np.arange(d), np.arange(d)


def is_crossed(family: str) -> bool:
    """Whether the family's log density needs the products of different columns."""
    return family in ("full", "tied")


def natural_parameters(parameters: Parameters, centre: np.ndarray) -> np.ndarray:
    """Coefficients (K, p) whose product with the quadratic features is log(w_k N(x | k)).

    Raises SingularFitError where a covariance is not positive definite.
    """
    d = len(centre)
    i, j = pairs(d, is_crossed(parameters.family))
    rows = []
    for weight, mean, covariance in zip(
        parameters.weights, parameters.means - centre, parameters.covariances, strict=True
    ):
        lower = _cholesky(covariance)
        precision = cho_solve((lower, True), np.eye(d))
        linear = precision @ mean
        log_scale = np.log(weight) - 0.5 * d * np.log(2 * np.pi) - np.log(np.diag(lower)).sum()
        quadratic = np.where(i == j, -0.5, -1.0) * precision[i, j]
        rows.append(np.concatenate([[log_scale - 0.5 * mean @ linear], linear, quadratic]))
    return np.array(rows)


def _cholesky(covariance: np.ndarray) -> np.ndarray:
    try:
        return cholesky(covariance, lower=True)
    except np.linalg.LinAlgError as error:
        raise SingularFitError("a covariance is not positive definite") from error


def log_sum_exp(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log of the sum over components, (n,), and the posteriors, (K, n), of terms (K, n).

    Taking out the largest term keeps far rows finite (Bishop 2006, eq. 9.23 and 9.14).
    """
    top = terms.max(axis=0)
    scaled = np.exp(terms - top)
    total = scaled.sum(axis=0)
    return top + np.log(total), scaled / total


def expectation(rows: Quadratics, coefficients: np.ndarray) -> tuple[float, Statistics]:
    """One pass over the rows: log-likelihood in nats and the sufficient statistics."""
    log_likelihood, sums = 0.0, np.zeros_like(coefficients)
    for block in rows:
        log_density, posterior = log_sum_exp(coefficients @ block)
        log_likelihood += float(log_density.sum())
        sums += posterior @ block.T
    return log_likelihood, unpack(sums, rows)


def unpack(sums: np.ndarray, rows: Quadratics) -> Statistics:
    """Sums of quadratic features (K, p) as counts, first and second moments about `centre`."""
    k, d = len(sums), rows.d
    second = np.zeros((k, d, d))
    second[:, rows.i, rows.j] = sums[:, 1 + d :]
    second[:, rows.j, rows.i] = sums[:, 1 + d :]
    return Statistics(sums[:, 0], sums[:, 1 : 1 + d], second)


def _each(scatter: np.ndarray, counts: np.ndarray, prior: Prior) -> np.ndarray:
    return (scatter + prior.strength * prior.shape) / (counts + prior.strength)[:, None, None]


def _tied(scatter: np.ndarray, counts: np.ndarray, prior: Prior) -> np.ndarray:
    pooled = scatter.sum(axis=0) + prior.strength * prior.shape
    return np.repeat(pooled[None] / (counts.sum() + prior.strength), len(counts), axis=0)


def diagonal(matrices: np.ndarray) -> np.ndarray:
    """The matrices (..., d, d) with everything off the diagonal set to zero."""
    return matrices * np.eye(matrices.shape[-1])


def sphere(matrices: np.ndarray) -> np.ndarray:
    """The matrices (..., d, d) replaced by the identity times their mean diagonal element."""
    d = matrices.shape[-1]
    return (np.trace(matrices, axis1=-2, axis2=-1) / d)[..., None, None] * np.eye(d)


# The structure of a family, as a projection of a full matrix: the maximum of the penalised
# likelihood under each is the projection of the unrestricted one.
STRUCTURE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "full": np.asarray,
    "tied": np.asarray,
    "diag": diagonal,
    "spherical": sphere,
}
ESTIMATE: dict[str, Callable[..., np.ndarray]] = {
    "full": _each,
    "tied": _tied,
    "diag": _each,
    "spherical": _each,
}


def maximisation(
    family: str, statistics: Statistics, prior: Prior, centre: np.ndarray
) -> Parameters:
    """The parameters that maximise the expected penalised log-likelihood."""
    counts = statistics.counts
    if counts.min() < 1e-6:
        raise SingularFitError("a component has lost all its rows")
    covariances = STRUCTURE[family](ESTIMATE[family](statistics.scatter(), counts, prior))
    means = statistics.first / counts[:, None] + centre
    return Parameters(family, counts / counts.sum(), means, covariances)


def log_prior(parameters: Parameters, prior: Prior) -> float:
    """Log density of the prior up to a constant: -strength/2 (log|S| + tr(shape S^-1)) summed."""
    covariances = parameters.covariances
    distinct = covariances[:1] if parameters.family == "tied" else covariances
    total = 0.0
    for covariance in distinct:
        lower = _cholesky(covariance)
        fit = np.trace(cho_solve((lower, True), prior.shape))
        total += 2 * np.log(np.diag(lower)).sum() + fit
    return -0.5 * prior.strength * float(total)


def run_em(
    rows: Quadratics, start: Parameters, prior: Prior, max_iter: int, tolerance: float
) -> Fit:
    """EM from `start` until the objective per row gains less than `tolerance`.

    The objective is the log-likelihood plus the log prior; it never decreases. At least one
    pass is made; the likelihood and the statistics returned belong to the returned parameters.
    """
    parameters, trace, converged = start, [], False
    log_likelihood, statistics = _pass(rows, parameters)
    trace.append(log_likelihood + log_prior(parameters, prior))
    for _ in range(max_iter):
        parameters = maximisation(parameters.family, statistics, prior, rows.centre)
        log_likelihood, statistics = _pass(rows, parameters)
        trace.append(log_likelihood + log_prior(parameters, prior))
        if trace[-1] - trace[-2] < tolerance * rows.n_rows:
            converged = True
            break
    return Fit(parameters, statistics, log_likelihood, tuple(trace), converged)


def _pass(rows: Quadratics, parameters: Parameters) -> tuple[float, Statistics]:
    return expectation(rows, natural_parameters(parameters, rows.centre))


def refusal(fit: Fit, prior: Prior, min_share: float) -> str:
    """Why a fit is not a density of customers, or "".

    A component is refused where its share is under `min_share`; where in some direction the
    prior outweighs the scatter of its rows (its sd is then the prior's, not the data's); or
    where its sd is below MIN_SCALE of the prior's in the same direction.
    """
    family, counts = fit.parameters.family, fit.statistics.counts
    shares = counts / counts.sum()
    if shares.min() < min_share:
        return f"a component holds a share of {shares.min():.4f}, under {min_share:.4f}"
    scatter = fit.statistics.scatter()
    if family == "tied":
        scatter, counts = scatter.sum(axis=0, keepdims=True), counts.sum(keepdims=True)
    scatter, shape = STRUCTURE[family](scatter), STRUCTURE[family](prior.shape)
    for matrix, count in zip(scatter, counts, strict=True):
        least = float(eigh(matrix, shape, eigvals_only=True)[0])
        if least < prior.strength or least < MIN_SCALE**2 * count:
            return f"a component of {count:.1f} rows has an sd at the floor"
    return ""


def parameter_count(family: str, k: int, d: int) -> int:
    """Free parameters of a mixture of k components in d columns."""
    covariance = {
        "full": k * d * (d + 1) // 2,
        "tied": d * (d + 1) // 2,
        "diag": k * d,
        "spherical": k,
    }
    return covariance[family] + k * d + k - 1


def hard_start(
    x: np.ndarray, labels: np.ndarray, family: str, prior: Prior, centre: np.ndarray
) -> Parameters:
    """The parameters of a partition: labels 0..K-1 of the rows x (n, d)."""
    member = np.equal.outer(np.arange(labels.max() + 1), labels).astype(float)
    z = x - centre
    second = np.einsum("kn,ni,nj->kij", member, z, z, optimize=True)
    return maximisation(family, Statistics(member.sum(axis=1), member @ z, second), prior, centre)


class Starts:
    """Partitions to start from: Ward trees in three metrics, cut anywhere, and k-means.

    The metrics are the columns over their sd, fully sphered, and half-way between the two:
    elongated groups are found in the sphered one, round ones in the first.
    """

    def __init__(self, x: np.ndarray, n_init: int, random: np.random.RandomState) -> None:
        kept = _subsample(len(x), WARD_ROWS, random)
        self.x = x[kept]
        self.standard = (self.x - self.x.mean(axis=0)) / x.std(axis=0)
        self.n_init, self.seed = n_init, int(random.randint(2**31 - 1))
        self.trees = [linkage(z, method="ward") for z in self._metrics()]

    def _metrics(self) -> list[np.ndarray]:
        values, vectors = np.linalg.eigh(np.cov(self.standard.T).reshape(2 * [self.x.shape[1]]))
        scale = np.maximum(values, values.max() * 1e-9)
        return [self.standard, *(self.standard @ vectors * scale**-p for p in (0.5, 0.25))]

    def partitions(self, k: int) -> list[np.ndarray]:
        """Label vectors (rows of self.x) with exactly k groups."""
        if k == 1:
            return [np.zeros(len(self.x), dtype=int)]
        cuts = [fcluster(tree, k, criterion="maxclust") - 1 for tree in self.trees]
        for turn in range(self.n_init):
            means = KMeans(k, n_init=1, random_state=(self.seed + turn) % 2**31)
            cuts.append(means.fit(self.standard).labels_)
        return [labels for labels in cuts if len(np.unique(labels)) == k]


def _subsample(n: int, size: int, random: np.random.RandomState) -> np.ndarray:
    """Positions of at most `size` rows, in their order."""
    return np.arange(n) if n <= size else np.sort(random.permutation(n)[:size])


class SegmentMixture(DensityMixin, BaseEstimator):
    """Gaussian mixture with a conjugate prior, a singularity guard and a choice of its size.

    n_components: a number, or "auto": the best of min_components..max_components.
    covariance_type: "full", "tied", "diag", "spherical", or "auto": the best of the four.
    criterion: "bic" or "icl", by which "auto" chooses (lower is better).
    max_components, min_components: the range of "auto".
    min_share: smallest share of the rows that a component may hold.
    n_init: starts by k-means, beside three by Ward's method.
    max_iter, tol: EM ends when the objective per row gains less than `tol` nats.
    random_state: seeds the samples of rows, k-means and `sample`.

    A fit in which a component has collapsed is refused, never floored: `scan_` says which and
    why, and `fit` raises a ValueError where nothing is left. Attributes after `fit`: weights_
    (K,), means_ (K, d), covariances_ (K, d, d), covariance_type_, n_components_, converged_,
    n_iter_, log_likelihood_ (nats over all rows), trace_ (objective after each pass), scan_
    (one dict per model looked at).
    """

    def __init__(
        self,
        n_components: int | str = "auto",
        covariance_type: str = "auto",
        criterion: str = "bic",
        max_components: int = 12,
        min_components: int = 1,
        min_share: float = 0.0,
        n_init: int = 2,
        max_iter: int = 500,
        tol: float = 1e-5,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.criterion = criterion
        self.max_components = max_components
        self.min_components = min_components
        self.min_share = min_share
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to X (n, d); y is ignored."""
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        sizes, families = self._grid(len(x))
        covariance = _data_covariance(x)
        random = check_random_state(self.random_state)
        sample = x[_subsample(len(x), SCAN_ROWS, random)]
        scanned = self._scan(
            sample, Starts(sample, self.n_init, random), sizes, families, covariance
        )
        best = self._polish(x, sample, scanned, covariance)
        self._keep(best, scanned)
        return self

    def _grid(self, n: int) -> tuple[Sequence[int], Sequence[str]]:
        """The sizes and families to look at; raises ValueError for a wrong parameter."""
        if self.covariance_type != "auto" and self.covariance_type not in FAMILIES:
            raise ValueError(
                f"covariance_type is {self.covariance_type!r}; known: auto, {FAMILIES}"
            )
        if self.criterion not in CRITERIA:
            raise ValueError(f"criterion is {self.criterion!r}; known: {CRITERIA}")
        families = FAMILIES if self.covariance_type == "auto" else (self.covariance_type,)
        if self.n_components == "auto":
            sizes = range(self.min_components, min(self.max_components, n) + 1)
        else:
            sizes = range(int(self.n_components), int(self.n_components) + 1)
        if not sizes or not 1 <= sizes[0] <= n:
            raise ValueError(
                f"{self.n_components!r} components ({self.min_components} to "
                f"{self.max_components}) were asked of n_samples = {n}; expected 1 to {n}"
            )
        return sizes, families

    def _scan(
        self,
        x: np.ndarray,
        starts: Starts,
        sizes: Sequence[int],
        families: Sequence[str],
        covariance: np.ndarray,
    ) -> list[Candidate]:
        """Every family over growing sizes, until PATIENCE sizes in a row bring nothing better."""
        partitions = {k: starts.partitions(k) for k in sizes}
        candidates = []
        for family in families:
            rows = Quadratics(x, x.mean(axis=0), is_crossed(family))
            best, waited = np.inf, 0
            for k in sizes:
                prior = prior_for(covariance, k)
                begun = [
                    hard_start(starts.x, labels, family, prior, rows.centre)
                    for labels in partitions[k]
                ]
                candidates.append(self._candidate(rows, begun, family, k, prior))
                waited = 0 if candidates[-1].criterion < best else waited + 1
                best = min(best, candidates[-1].criterion)
                if waited == PATIENCE:
                    break
        return candidates

    def _candidate(
        self, rows: Quadratics, begun: list[Parameters], family: str, k: int, prior: Prior
    ) -> Candidate:
        """The best fit of one size and family that is not refused."""
        short: list[Fit] = []
        reason = "no start has as many groups"
        for start in begun:
            try:
                short.append(run_em(rows, start, prior, SHORT_RUN, self.tol))
            except SingularFitError as error:
                reason = str(error)
        for begun_fit in sorted(short, key=lambda fit: -fit.trace[-1]):
            try:
                fit = self._continue(rows, begun_fit, prior)
            except SingularFitError as error:
                reason = str(error)
                continue
            reason = refusal(fit, prior, self.min_share)
            if not reason:
                return Candidate(family, k, self._criterion(rows, fit), (fit,), "")
        return Candidate(family, k, np.inf, (), reason)

    def _continue(self, rows: Quadratics, fit: Fit, prior: Prior) -> Fit:
        """The same run, to its end."""
        left = self.max_iter - len(fit.trace) + 1
        if fit.converged or left <= 0:
            return fit
        longer = run_em(rows, fit.parameters, prior, left, self.tol)
        return replace(longer, trace=fit.trace + longer.trace[1:])

    def _criterion(self, rows: Quadratics, fit: Fit) -> float:
        k, d = fit.parameters.means.shape
        count = parameter_count(fit.parameters.family, k, d)
        bic = count * np.log(rows.n_rows) - 2 * fit.log_likelihood
        if self.criterion == "bic":
            return float(bic)
        return float(bic + 2 * _uncertainty(rows, natural_parameters(fit.parameters, rows.centre)))

    def _polish(
        self,
        x: np.ndarray,
        sample: np.ndarray,
        scanned: list[Candidate],
        covariance: np.ndarray,
    ) -> Candidate:
        """The best candidate, fitted on all rows; raises where every one is refused."""
        kept = sorted((c for c in scanned if not c.refused), key=lambda c: c.criterion)
        if kept and len(sample) == len(x):
            return kept[0]
        polished = [self._polished(x, candidate, covariance) for candidate in kept[:POLISHED]]
        best = sorted((c for c in polished if not c.refused), key=lambda c: c.criterion)
        if best:
            return best[0]
        reasons = sorted(
            {f"{c.family} {c.n_components}: {c.refused}" for c in scanned + polished if c.refused}
        )
        raise SingularFitError(
            "every mixture was refused, none describes the rows (" + "; ".join(reasons[:5]) + "). "
            "Fewer components, or columns without spikes, may be fitted"
        )

    def _polished(self, x: np.ndarray, candidate: Candidate, covariance: np.ndarray) -> Candidate:
        """The candidate continued on all rows."""
        family, k = candidate.family, candidate.n_components
        rows = Quadratics(x, x.mean(axis=0), is_crossed(family))
        begun = [fit.parameters for fit in candidate.fits]
        return self._candidate(rows, begun, family, k, prior_for(covariance, k))

    def _keep(self, best: Candidate, scanned: list[Candidate]) -> None:
        """The fitted attributes."""
        (fit,) = best.fits
        self._set(fit.parameters)
        self.converged_ = fit.converged
        self.n_iter_ = len(fit.trace) - 1
        self.log_likelihood_ = fit.log_likelihood
        self.trace_ = np.array(fit.trace)
        self.scan_ = [
            {
                "covariance_type": c.family,
                "n_components": c.n_components,
                "criterion": None if c.refused else c.criterion,
                "refused": c.refused,
            }
            for c in scanned
        ]

    def _set(self, parameters: Parameters) -> None:
        self.weights_ = parameters.weights
        self.means_ = parameters.means
        self.covariances_ = parameters.covariances
        self.covariance_type_ = parameters.family
        self.n_components_ = len(parameters.weights)

    def _parameters(self) -> Parameters:
        return Parameters(self.covariance_type_, self.weights_, self.means_, self.covariances_)

    def log_terms(self, X: Any) -> np.ndarray:
        """Log of weight times density of each component at each row, (n, K), in nats."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        centre = self.weights_ @ self.means_
        coefficients = natural_parameters(self._parameters(), centre)
        rows = Quadratics(x, centre, is_crossed(self.covariance_type_))
        return np.concatenate([coefficients @ block for block in rows], axis=1).T

    def score_samples(self, X: Any) -> np.ndarray:
        """Log density of each row (n,), in nats; higher is more usual."""
        return log_sum_exp(self.log_terms(X).T)[0]

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log density of the rows, in nats; y is ignored."""
        return float(self.score_samples(X).mean())

    def predict_proba(self, X: Any) -> np.ndarray:
        """Posterior of each component, (n, K); rows sum to one."""
        return log_sum_exp(self.log_terms(X).T)[1].T

    def predict(self, X: Any) -> np.ndarray:
        """The most probable component of each row, (n,)."""
        return self.log_terms(X).argmax(axis=1)

    def bic(self, X: Any) -> float:
        """Bayesian information criterion on X; lower is better."""
        scores = self.score_samples(X)
        count = parameter_count(self.covariance_type_, *self.means_.shape)
        return float(count * np.log(len(scores)) - 2 * scores.sum())

    def icl(self, X: Any) -> float:
        """BIC plus the cost of naming each row's component; lower is better."""
        return self.bic(X) - 2 * float(np.log(self.predict_proba(X).max(axis=1)).sum())

    def collapsed(self, X: Any) -> str:
        """Why the mixture is no density of the rows X, by the guard of `fit`, or ""."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        rows = Quadratics(x, x.mean(axis=0), is_crossed(self.covariance_type_))
        log_likelihood, statistics = _pass(rows, self._parameters())
        fit = Fit(self._parameters(), statistics, log_likelihood, (), self.converged_)
        prior = prior_for(_data_covariance(x), self.n_components_)
        return refusal(fit, prior, self.min_share)

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows (n_samples, d) and their components (n_samples,), grouped by component."""
        check_is_fitted(self)
        random = check_random_state(self.random_state)
        counts = random.multinomial(n_samples, self.weights_ / self.weights_.sum())
        labels = np.repeat(np.arange(self.n_components_), counts)
        lower = np.linalg.cholesky(self.covariances_)
        noise = random.standard_normal((n_samples, self.means_.shape[1]))
        return self.means_[labels] + np.einsum("nij,nj->ni", lower[labels], noise), labels

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything needed to score and to sample."""
        check_is_fitted(self)
        return {
            "weights": self.weights_,
            "means": self.means_,
            "covariances": self.covariances_,
            "family": np.array([FAMILIES.index(self.covariance_type_)]),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], random_state: Any = None) -> Self:
        """The mixture that `to_arrays` gave; the record of the scan is not kept."""
        family = FAMILIES[int(arrays["family"][0])]
        k, d = arrays["means"].shape
        mixture = cls(n_components=k, covariance_type=family, random_state=random_state)
        mixture._set(Parameters(family, arrays["weights"], arrays["means"], arrays["covariances"]))
        mixture.n_features_in_ = d
        return mixture


def prior_for(covariance: np.ndarray, k: int) -> Prior:
    """The prior of k components: the data's covariance, shrunk to the room one component has.

    Shaped by the full covariance, because a diagonal one hides groups that differ along
    directions of little variance (Fraley and Raftery 2007, section 3).
    """
    d = len(covariance)
    return Prior(covariance / k ** (2 / d), PRIOR_STRENGTH * (d + 2))


def _data_covariance(x: np.ndarray) -> np.ndarray:
    """Covariance (d, d) of the rows; raises where columns are constant or linearly dependent."""
    scale = x.std(axis=0)
    if (scale <= 1e-12 * np.abs(x).max(axis=0)).any():
        constant = np.flatnonzero(scale <= 1e-12 * np.abs(x).max(axis=0)).tolist()
        raise SingularFitError(f"the columns {constant} are constant; leave them out")
    correlation = np.corrcoef(x.T).reshape(len(scale), len(scale))
    if np.linalg.eigvalsh(correlation)[0] < 1e-10:
        raise SingularFitError(
            f"the {len(x)} rows span fewer than {len(scale)} dimensions: columns are linear "
            "combinations of others; leave one out"
        )
    return correlation * np.outer(scale, scale)


def _uncertainty(rows: Quadratics, coefficients: np.ndarray) -> float:
    """Sum over rows of minus the log of the largest posterior, in nats."""
    total = 0.0
    for block in rows:
        total -= float(np.log(log_sum_exp(coefficients @ block)[1].max(axis=0)).sum())
    return total
