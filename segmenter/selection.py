"""The choice of a mixture: starts, the scan of sizes, families and tails, and the refusals.

Sources: Fraley and Raftery 2002 (starts by agglomeration, choice by BIC); Biernacki, Celeux and
Govaert 2000 (ICL). Starts come from a sample, the short runs of all starts of one model share
their passes, and what the scan chooses is polished on all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import KMeans

from segmenter.blocks import NO_BLOCKS, Blocks
from segmenter.em import (
    Batches,
    Fit,
    Parameters,
    Prior,
    Rows,
    SingularFitError,
    Statistics,
    density,
    expectation,
    joined,
    known_cells,
    log_prior,
    maximisation,
    moment_matrix,
    parted,
    run_em,
)
from segmenter.families import estimate, is_crossed, parameter_count, structured

TAILS = ("gaussian", "t")
CRITERIA = {"bic": 0.0, "mean": 0.5, "icl": 1.0}  # what naming each row's part costs, of ICL's
SCAN_ROWS = 5_000  # the choice of K does not get better with more rows, only slower
WARD_ROWS = 1_500  # a linkage holds all pairwise distances: 9 MB at this size
SINGLE_RUN = 100  # passes of the one Gaussian that stands for all rows
FIRST_LOOK, LEFT = 4, 2  # passes after which the starts are compared first; how many go on
SHORT_RUN = 12  # passes after which the starts are compared
PATIENCE = 3  # sizes in a row without a better criterion after which a family is left
FINALISTS = 10  # models of the scan that are run to their ends
POLISHED = 3  # scanned models that are fitted again on all rows
PRIOR_STRENGTH = 0.01  # times d + 2 pseudo-rows
MIN_SCALE = 1e-4  # smallest sd of a component, relative to the prior's in the same direction
ROWS_PER_COLUMN = 2  # fewest rows of a component, for each column
LEAST_SPREAD = 1e-9  # of a direction in a sphered metric, against the widest one
PRIOR_EFFECT = 1.9  # times which a variance may grow where the prior is doubled: nine parts prior
FAR_IQR = 3.0  # interquartile ranges beyond the quartiles (Tukey's "far out")
FAR_SHARE = 0.05  # of the rows; strays are few
FIRST_DEGREES = 10.0  # of freedom, at the start of a run
FIRST_NOISE = 0.02  # share of the noise part at the start of a run


@dataclass(frozen=True)
class Settings:
    """What every candidate of one choice has in common.

    covariance: of the rows, (d, d), which shapes the prior. noise_box: corners (2, d) of the noise
    part, or None. pooled: the law of all rows in the discrete columns, one component.
    """

    criterion: str
    min_share: float
    max_iter: int
    tolerance: float
    covariance: np.ndarray
    noise_box: np.ndarray | None = None
    pooled: Blocks = NO_BLOCKS

    @property
    def strays(self) -> Blocks:
        """The law of the noise part in the discrete columns."""
        return NO_BLOCKS if self.noise_box is None else self.pooled

    def prior(self, k: int) -> Prior:
        return prior_for(self.covariance, k)


@dataclass(frozen=True)
class Candidate:
    """One cell of the scan: a model, its starts after short runs (best first), and its fit.

    criterion: of the fit, or of the best start where there is none. fit: None where the model was
    not run to its end, or was refused.
    """

    family: str
    tails: str
    n_components: int
    criterion: float
    begun: tuple[Parameters, ...]
    fit: Fit | None = None
    refused: str = ""

    @property
    def name(self) -> str:
        return f"{self.family} {self.tails} {self.n_components}"

    def ended(self) -> Fit:
        """The fit; raises where there is none."""
        if self.fit is None:
            raise SingularFitError(f"{self.name} was not fitted: {self.refused}")
        return self.fit


def prior_for(covariance: np.ndarray, k: int) -> Prior:
    """The prior of k components: the data's covariance, shrunk to the room one component has.

    Shaped by the full covariance, because a diagonal one hides groups that differ along
    directions of little variance (Fraley and Raftery 2007, section 3).
    """
    d = len(covariance)
    return Prior(covariance / k ** (2 / d), PRIOR_STRENGTH * (d + 2))


def single_gaussian(x: np.ndarray, weights: np.ndarray) -> Parameters:
    """One Gaussian of rows x (n, d) with missing cells, by maximum likelihood.

    Raises SingularFitError where columns are constant, empty or linearly dependent.
    """
    known = ~np.isnan(x)
    mass = np.where(known, weights[:, None], 0.0)
    total = np.maximum(mass.sum(axis=0), 1e-300)
    means = np.where(known, x, 0.0).T @ weights / total
    apart = np.where(known, x - means, 0.0)
    scale = np.sqrt((mass * apart**2).sum(axis=0) / total)
    constant = np.flatnonzero(scale <= 1e-12 * np.abs(np.where(known, x, 0.0)).max(axis=0))
    if len(constant):
        raise SingularFitError(f"the columns {constant.tolist()} are constant; leave them out")
    if known.all():
        covariance = (apart.T * weights) @ apart / weights.sum()
        single = Parameters("VVV", np.ones(1), means[None], covariance[None])
    else:
        start = Parameters("VVV", np.ones(1), means[None], np.diag(scale**2)[None])
        rows = Rows(x, means, True, weights)
        single = run_em(rows, start, Prior(np.eye(len(means)), 0.0), SINGLE_RUN, 1e-6).parameters
    scale = np.sqrt(np.diag(single.covariances[0]))
    if np.linalg.eigvalsh(single.covariances[0] / np.outer(scale, scale))[0] < 1e-10:
        raise SingularFitError(
            f"the {len(x)} rows span fewer than {len(scale)} dimensions: columns are linear "
            "combinations of others; leave one out"
        )
    return single


def filled(x: np.ndarray, single: Parameters) -> np.ndarray:
    """The rows with missing cells at their means given the known ones, under one Gaussian.

    x (n, d + B): columns after the d of the Gaussian are codes, and stay.
    """
    whole, centre = x.copy(), single.means[0]
    for observed, places in known_cells(x[:, : len(centre)]):
        ready = density(single, centre, observed, True)
        if ready.lift is not None:
            known = x[places][:, list(observed)] - centre[list(observed)]
            missing = np.delete(np.arange(len(centre)), list(observed))
            lift = ready.lift[0, missing]
            whole[np.ix_(places, missing)] = centre[missing] + lift[:, 0] + known @ lift[:, 1:].T
    return whole


class Starts:
    """Partitions to start from: Ward trees in three metrics, cut anywhere, and k-means.

    The metrics are the columns over their sd, fully sphered, and half-way between the two:
    elongated groups are found in the sphered one, round ones in the first. Discrete columns join
    as the coordinates of their blocks, over their sd. Half of the starts are then made without
    them, because one that tells no groups apart, such as an atom, would cut them all in two.
    """

    def __init__(
        self,
        x: np.ndarray,
        weights: np.ndarray,
        single: Parameters,
        pooled: Blocks,
        n_init: int,
        random: np.random.RandomState,
    ) -> None:
        kept = subsample(len(x), WARD_ROWS, random)
        # a row of weight two and the same row twice are one row here: they start alike
        self.x, place = np.unique(x[kept], axis=0, return_inverse=True)
        self.weights = np.bincount(place.ravel(), weights[kept])
        scale, d = np.sqrt(np.diag(single.covariances[0])), len(single.means[0])
        standard = (self.x[:, :d] - single.means[0]) / scale
        metrics = _metrics(standard, single.covariances[0] / np.outer(scale, scale))
        self.views = [standard]
        if pooled.parts:
            every = np.column_stack([standard, *self._discrete(pooled)])
            joint = _metrics(every, np.cov(every.T, aweights=self.weights, ddof=0))
            metrics = [*metrics[1:], joint[0], joint[2]]
            self.views = [standard, every]
        self.n_init, self.seed = n_init, int(random.randint(2**31 - 1))
        self.trees = [linkage(z, method="ward") for z in metrics if len(z) > 1]

    def _discrete(self, pooled: Blocks) -> list[np.ndarray]:
        """The blocks' coordinates of the rows, (n, m) each, with missing cells at the mean."""
        columns = []
        codes = self.x[:, -len(pooled.parts) :].T.astype(np.intp)
        for block, own in zip(pooled.parts, codes, strict=True):
            points, mass = block.coordinates()[own], np.where(own < 0, 0.0, self.weights)
            mass /= max(mass.sum(), LEAST_SPREAD)
            apart = np.where(own[:, None] < 0, 0.0, points - mass @ points)
            columns.append(apart / max(np.sqrt((mass @ apart**2).sum()), LEAST_SPREAD))
        return columns

    def partitions(self, k: int) -> np.ndarray:
        """Label vectors (starts, rows of self.x) with exactly k groups each, none twice."""
        if k == 1 or k > len(self.x):
            return np.zeros((int(k == 1), len(self.x)), dtype=int)
        cuts = [fcluster(tree, k, criterion="maxclust") - 1 for tree in self.trees]
        for turn in range(self.n_init):
            means = KMeans(k, n_init=1, random_state=(self.seed + turn) % 2**31)
            view = self.views[turn % len(self.views)]
            cuts.append(means.fit(view, sample_weight=self.weights).labels_)
        kept = [labels for labels in cuts if len(np.unique(labels)) == k]
        return np.array(kept, dtype=int).reshape(len(kept), len(self.x))


def _metrics(standard: np.ndarray, correlation: np.ndarray) -> list[np.ndarray]:
    """Standardised rows as they are, fully sphered, and half-way between the two."""
    values, vectors = np.linalg.eigh(correlation)
    values = np.maximum(values, LEAST_SPREAD * values[-1])
    return [standard, *(standard @ vectors * values**-p for p in (0.5, 0.25))]


def subsample(n: int, size: int, random: np.random.RandomState) -> np.ndarray:
    """Positions of at most `size` rows, in their order."""
    return np.arange(n) if n <= size else np.sort(random.permutation(n)[:size])


def hard_starts(rows: Rows, partitions: np.ndarray, family: str, settings: Settings) -> Parameters:
    """The parameters of partitions (starts, n) of complete rows, with an axis of starts."""
    k, d = int(partitions.max()) + 1, len(rows.centre)
    sums, histogram = np.zeros(()), np.zeros(())
    for chunk in rows:
        member = (partitions[:, None, chunk.places] == np.arange(k)[:, None]) * chunk.weights
        sums = sums + member @ chunk.features.T
        if chunk.cells is not None:
            flat = member.reshape(-1, member.shape[-1])
            histogram = histogram + flat @ chunk.cells.T
    moments = moment_matrix(sums, d, rows.crossed)
    counts, first, second = moments[..., 0, 0], moments[..., 0, 1:], moments[..., 1:, 1:]
    noise = 0.0 if settings.noise_box is None else FIRST_NOISE / (1 - FIRST_NOISE)
    statistics = Statistics(
        counts,
        counts,
        first,
        second,
        np.zeros_like(counts),
        noise * counts.sum(axis=-1),
        np.zeros(()),
        histogram,
    )
    prior = settings.prior(k)
    scatter = statistics.scatter() + prior.strength * prior.shape
    total = counts.sum(axis=-1) + statistics.noise
    return Parameters(
        family,
        counts / total[:, None],
        statistics.means() + rows.centre,
        estimate(family, scatter, counts + prior.strength),
        noise_weight=statistics.noise / total,
        noise_box=settings.noise_box,
        blocks=settings.pooled.begun(histogram),
        noise_blocks=settings.strays,
    )


def short_runs(
    rows: Rows, models: Sequence[Parameters], tails: str, settings: Settings
) -> list[Candidate]:
    """Models of one size after SHORT_RUN joint passes from an axis of starts each.

    After FIRST_LOOK of them the LEFT best starts of each model go on. A start that ends in a
    component which is refused is dropped.
    """
    prior = settings.prior(models[0].weights.shape[-1])
    for turn in range(SHORT_RUN):
        log_likelihood, statistics = expectation(rows, joined(models))
        parts = parted(statistics, models)
        if turn == FIRST_LOOK:
            kept = [
                np.argsort(-(own + log_prior(model, prior)), kind="stable")[:LEFT]
                for model, own in zip(models, _split(log_likelihood, models), strict=True)
            ]
            parts = [part_of(part, best) for part, best in zip(parts, kept, strict=True)]
            models = [
                joined([_alone(one_of(model, int(place))) for place in best])
                for model, best in zip(models, kept, strict=True)
            ]
        models = [
            maximisation(model, part, prior, rows.centre, blocks)
            for model, part, blocks in zip(models, parts, _blocks(models, parts), strict=True)
        ]
    log_likelihood, statistics = expectation(rows, joined(models))
    found = zip(models, _split(log_likelihood, models), parted(statistics, models), strict=True)
    return [
        _shortlisted(model, own, part, tails, rows.total, settings) for model, own, part in found
    ]


def _blocks(models: Sequence[Parameters], parts: Sequence[Statistics]) -> list[Blocks]:
    """The M step of the blocks of all models in one, for each of them."""
    if not models[0].blocks.parts:
        return [NO_BLOCKS] * len(models)
    masses = [part.histogram.reshape(-1, part.histogram.shape[-1]) for part in parts]
    updated = Blocks.joined([model.blocks for model in models]).updated(np.concatenate(masses))
    ends = np.cumsum([len(mass) for mass in masses])
    return [
        updated.of(slice(int(end) - len(mass), int(end)))
        for mass, end in zip(masses, ends, strict=True)
    ]


def _split(values: np.ndarray, models: Sequence[Parameters]) -> list[np.ndarray]:
    """One value per start of a joint pass, for each of the models that were joined."""
    return np.split(values, np.cumsum([len(model.weights) for model in models])[:-1])


def _shortlisted(
    starts: Parameters,
    log_likelihood: np.ndarray,
    statistics: Statistics,
    tails: str,
    total: float,
    settings: Settings,
) -> Candidate:
    """The starts of one model, best first, without those that are refused."""
    prior = settings.prior(starts.weights.shape[-1])
    objective = log_likelihood + log_prior(starts, prior)
    kept: list[Parameters] = []
    criterion, reason = np.inf, ""
    for place in np.argsort(-objective, kind="stable"):
        one, sums = one_of(starts, int(place)), part_of(statistics, int(place))
        reason = refusal(one, sums, prior, settings.min_share)
        if reason:
            continue
        if not kept:
            criterion = criterion_of(one, float(log_likelihood[place]), sums, total, settings)
        kept.append(one)
    k = starts.weights.shape[-1]
    refused = "" if kept else reason
    return Candidate(starts.family, tails, k, criterion, tuple(kept), refused=refused)


def part_of(statistics: Statistics, place: int | np.ndarray) -> Statistics:
    """The statistics of one start, or of some, of an axis of them."""
    values = [np.asarray(getattr(statistics, field.name)) for field in fields(Statistics)]
    return Statistics(*(value[place] if value.ndim else value for value in values))


def one_of(starts: Parameters, place: int) -> Parameters:
    """One start of an axis of them."""
    k = starts.weights.shape[-1]
    return replace(
        starts,
        weights=starts.weights[place],
        means=starts.means[place],
        covariances=starts.covariances[place],
        degrees=None if starts.degrees is None else starts.degrees[place],
        noise_weight=np.asarray(starts.noise_weight)[place],
        blocks=starts.blocks.of(slice(place * k, place * k + k)),
    )


def refusal(parameters: Parameters, statistics: Statistics, prior: Prior, min_share: float) -> str:
    """Why a fit is not a density of customers, or "".

    A component is refused where its share is under `min_share`; where it is one of several and
    holds fewer than ROWS_PER_COLUMN rows a column; where its variance in some direction is the
    prior's and not the data's (it would all but double with the prior); or where its sd
    is below MIN_SCALE of the prior's in the same direction.
    """
    family, counts = parameters.family, statistics.counts
    shares, least = counts / counts.sum(), ROWS_PER_COLUMN * parameters.means.shape[-1]
    if shares.min() < min_share:
        return f"a component holds a share of {shares.min():.4f}, under {min_share:.4f}"
    if len(counts) > 1 and counts.min() < least:
        return f"a component holds {counts.min():.1f} rows, under {least}"
    added = prior.strength * prior.shape
    once = statistics.scatter() + added
    before, rows = parameters.covariances, counts + prior.strength
    one = estimate(family, once, rows, before)
    growth = _largest_ratio(estimate(family, once + added, rows, before), one)
    shrunk = _largest_ratio(structured(family, prior.shape), one)
    wrong = np.flatnonzero((growth > PRIOR_EFFECT) | (shrunk > MIN_SCALE**-2))
    if len(wrong):
        return f"a component of {counts[wrong[0]]:.1f} rows has an sd at the floor"
    return ""


def _largest_ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """The largest ratio of two covariances (K, d, d) in any direction, (K,)."""
    roots = np.linalg.inv(np.linalg.cholesky(denominators))
    return np.linalg.eigvalsh(roots @ numerators @ np.swapaxes(roots, -1, -2))[:, -1]


def finished(rows: Rows | Batches, begun: Candidate, settings: Settings) -> Candidate:
    """The candidate run to its end from the best of its starts that is not refused."""
    reason = begun.refused
    prior = settings.prior(begun.n_components)
    for start in begun.begun:
        try:
            fit = run_em(rows, start, prior, settings.max_iter, settings.tolerance)
        except SingularFitError as error:
            reason = str(error)
            continue
        reason = refusal(fit.parameters, fit.statistics, prior, settings.min_share)
        if not reason:
            criterion = criterion_of(
                fit.parameters, fit.log_likelihood, fit.statistics, rows.total, settings
            )
            return replace(begun, begun=(fit.parameters,), criterion=criterion, fit=fit)
    return replace(begun, criterion=np.inf, fit=None, refused=reason)


def free_parameters(parameters: Parameters) -> int:
    """Free parameters of a mixture: of its family, its blocks, degrees of freedom and noise."""
    k, d = parameters.means.shape
    extra = (parameters.degrees is not None) + (parameters.noise_box is not None)
    return parameter_count(parameters.family, k, d) + extra + parameters.blocks.n_parameters


def criterion_of(
    parameters: Parameters,
    log_likelihood: float,
    statistics: Statistics,
    total: float,
    settings: Settings,
) -> float:
    """BIC, ICL or their mean for a fit to rows of weight `total`; lower is better."""
    bic = free_parameters(parameters) * np.log(total) - 2 * log_likelihood
    return float(bic + 2 * CRITERIA[settings.criterion] * float(statistics.indecision))


@dataclass(frozen=True)
class Sample:
    """The rows that are scanned: x (n, d) with missing cells, weights (n,), and the starts.

    sizes: distinct cells per block; their codes follow the d columns.
    """

    x: np.ndarray
    weights: np.ndarray
    starts: Starts
    centre: np.ndarray
    sizes: tuple[int, ...] = ()

    def rows(self, crossed: bool) -> Rows:
        weights = None if (self.weights == 1).all() else self.weights
        return Rows(self.x, self.centre, crossed, weights, sizes=self.sizes)

    def started(self, crossed: bool) -> Rows:
        """The complete rows of which the starts are partitions."""
        return Rows(self.starts.x, self.centre, crossed, self.starts.weights, sizes=self.sizes)


def scan(
    sample: Sample,
    sizes: Sequence[int],
    families: Sequence[str],
    tails: Sequence[str],
    settings: Settings,
) -> list[Candidate]:
    """The models looked at: all by short runs, the FINALISTS best of them run to their ends.

    Sizes grow until PATIENCE in a row bring nothing better; families that are far behind are left
    on the way.
    """
    crossed = any(is_crossed(family) for family in families)
    rows, started = sample.rows(crossed), sample.started(crossed)
    candidates: list[Candidate] = []
    before: Sequence[Candidate] = ()
    best, waited = np.inf, 0
    for k in sizes:
        partitions = sample.starts.partitions(k)
        if len(partitions) == 0:
            continue
        found = _of_size(rows, started, partitions, families, tails, settings)
        candidates += found
        least = min((candidate.criterion for candidate in found), default=np.inf)
        best, waited = (least, 0) if least < best else (best, waited + 1)
        families, before = _left(families, before, found, best), found
        if waited == PATIENCE or not families:
            break
    return _finalists({crossed: rows}, sample, candidates, settings)


def _left(
    families: Sequence[str],
    before: Sequence[Candidate],
    found: Sequence[Candidate],
    best: float,
) -> list[str]:
    """The families that go on: those that twice the largest change which any model has had from
    the size before would bring to the best."""
    earlier = {(c.family, c.tails): c.criterion for c in before if not c.refused}
    changes = [
        abs(earlier[c.family, c.tails] - c.criterion)
        for c in found
        if not c.refused and (c.family, c.tails) in earlier
    ]
    if not changes:
        return list(families)
    near = {c.family for c in found if c.criterion <= best + 2 * max(changes)}
    return [family for family in families if family in near]


def _of_size(
    rows: Rows,
    started: Rows,
    partitions: np.ndarray,
    families: Sequence[str],
    tails: Sequence[str],
    settings: Settings,
) -> list[Candidate]:
    """All families and tails of one size.

    t components begin from the partitions too, and where the Gaussians of their family are best.
    A few far rows lead Gaussians astray, so that their end alone is no start.
    """
    hard = [hard_starts(started, partitions, family, settings) for family in families]
    gaussian = short_runs(rows, hard, "gaussian", settings)
    if "t" not in tails:
        return gaussian
    begun = [
        joined([start, _alone(c.begun[0])]) if c.begun else start
        for c, start in zip(gaussian, hard, strict=True)
    ]
    found = short_runs(rows, [_heavy_tailed(start) for start in begun], "t", settings)
    return [*gaussian, *found] if "gaussian" in tails else found


def _alone(parameters: Parameters) -> Parameters:
    """The parameters as an axis of one start."""
    return replace(
        parameters,
        weights=parameters.weights[None],
        means=parameters.means[None],
        covariances=parameters.covariances[None],
        noise_weight=np.asarray(parameters.noise_weight)[None],
    )


def _heavy_tailed(starts: Parameters) -> Parameters:
    """The starts with t components instead of Gaussians."""
    return replace(starts, degrees=np.full(starts.weights.shape, FIRST_DEGREES))


def _finalists(
    rows: dict[bool, Rows], sample: Sample, candidates: list[Candidate], settings: Settings
) -> list[Candidate]:
    """The candidates, of which at most the FINALISTS best are run to their ends.

    After POLISHED of them one is left out where twice the largest gain that a run has brought so
    far would not make it the best.
    """
    done, ended, best, gain = [], 0, np.inf, 0.0
    for candidate in sorted(candidates, key=lambda c: c.criterion):
        late = ended >= POLISHED and candidate.criterion - 2 * gain > best
        if candidate.refused or late or ended == FINALISTS:
            done.append(candidate)
            continue
        crossed = is_crossed(candidate.family)
        if crossed not in rows:
            rows[crossed] = sample.rows(crossed)
        done.append(finished(rows[crossed], candidate, settings))
        if done[-1].fit is not None:
            ended, best = ended + 1, min(best, done[-1].criterion)
            gain = max(gain, candidate.criterion - done[-1].criterion)
    return done


def polish(
    rows: Callable[[bool], Rows | Batches], scanned: Sequence[Candidate], settings: Settings
) -> list[Candidate]:
    """The POLISHED best of the scanned candidates, fitted again on all rows.

    rows: gives the rows with or without crossed features.
    """
    kept = sorted((c for c in scanned if c.fit is not None), key=lambda c: c.criterion)
    return [finished(rows(is_crossed(c.family)), c, settings) for c in kept[:POLISHED]]


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """The best candidate that was run to its end; raises, with the reasons, where none was."""
    left = [candidate for candidate in candidates if candidate.fit is not None]
    if left:
        return min(left, key=lambda c: c.criterion)
    reasons = sorted({f"{c.name}: {c.refused}" for c in candidates if c.refused})
    raise SingularFitError(
        "every mixture was refused, none describes the rows (" + "; ".join(reasons[:5]) + "). "
        "Fewer components, or columns without spikes, may be fitted"
    )


def fences(x: np.ndarray, most: float = FAR_SHARE) -> np.ndarray:
    """Lowest and highest values (2, d) of ordinary rows: FAR_IQR interquartile ranges beyond.

    A column in which more than the share `most` of the rows lie so far has a tail, or a small
    group of customers, and not strays: it makes no row far.
    """
    low, high = np.nanquantile(x, [0.25, 0.75], axis=0)
    reach = FAR_IQR * (high - low)
    fence = np.array([low - reach, high + reach])
    share = ((x < fence[0]) | (x > fence[1])).mean(axis=0)
    return np.where(share <= most, fence, np.array([[-np.inf], [np.inf]]))


def within(x: np.ndarray, fence: np.ndarray) -> np.ndarray:
    """Rows (n,) of x (n, d + B) of which no known cell lies outside the fence (2, d)."""
    x = x[:, : fence.shape[1]]
    return ~((x < fence[0]) | (x > fence[1])).any(axis=1)
