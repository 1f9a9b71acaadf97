"""The density of customers: a mixture with a conjugate prior, a guard and a choice of its size.

The numerics live beside it: `em` passes over the rows, `families` holds the covariance
structures, `selection` the starts, the scan and the refusals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from segmenter.blocks import NO_BLOCKS, Blocks
from segmenter.em import (
    Batch,
    Batches,
    Parameters,
    Rows,
    cell_terms,
    density,
    expectation,
    log_sum_exp,
    log_terms,
)
from segmenter.families import ALIASES, FAMILIES, is_crossed
from segmenter.layout import Layout
from segmenter.selection import (
    CRITERIA,
    SCAN_ROWS,
    TAILS,
    Candidate,
    Sample,
    Settings,
    Starts,
    best_of,
    fences,
    filled,
    finished,
    free_parameters,
    polish,
    prior_for,
    refusal,
    scan,
    single_gaussian,
    subsample,
    within,
)


class SegmentMixture(DensityMixin, BaseEstimator):
    """Mixture of Gaussians or Student t whose size, shape and tails are chosen.

    n_components: a number, or "auto": the best of min_components..max_components.
    covariance_type: one of the fourteen names of mclust (EII ... VVV, see `families`), or
        scikit-learn's word for one of them, or "auto": the best of all.
    tails: "gaussian", "t" (degrees of freedom estimated, shared by the components), or "auto":
        the better of the two.
    noise: whether a part that is uniform over the box of the rows takes in stray ones. Rows
        beyond three interquartile ranges are then left out of the fit, and scored like all others.
    kinds: None where every column is continuous, or a word for each of the d columns:
        "continuous"; "count" (negative binomial); "share" (beta-binomial, of as many trials as
        another column says); "trials", such a column, not modelled itself; "category" (numbers as
        levels); "semicontinuous", continuous but for its most frequent value, an atom. Columns
        that are not continuous are independent of all others given the component.
    trials: the column of the trials of each share column, {3: 5}; it may also be a "count".
    criterion: "bic", "icl" or their "mean", by which "auto" chooses (lower is better).
    max_components, min_components: the range of "auto".
    min_share: smallest share of the rows that a component may hold.
    n_init: starts by k-means, beside three by Ward's method.
    max_iter, tol: EM ends when the objective per row gains less than `tol` nats.
    start: a fitted mixture of the same columns, at whose parameters EM begins: its size, family
        and tails are kept and nothing is scanned. As its `to_arrays` it survives scikit-learn's
        `clone`, which gives back estimators unfitted.
    random_state: seeds the samples of rows, k-means and `sample`.

    A missing cell (NaN) is integrated out, in fits and in scores. A fit in which a component has
    collapsed is refused, never floored: `scan_` says which and why, and `fit` raises a
    ValueError where nothing is left. Attributes after `fit`: weights_ (K,), means_ (K, d),
    covariances_ (K, d, d; of t components the scale matrices; both of the continuous columns
    alone), blocks_ (the laws of the discrete columns), layout_, degrees_of_freedom_ (K,) or None,
    noise_weight_ and noise_log_density_ (nats; None without noise), noise_box_ (2, d) or None,
    covariance_type_, tails_, n_components_, converged_, n_iter_, log_likelihood_ (nats over all
    rows of the fit), trace_ (objective after each pass), scan_ (one dict per model looked at).
    """

    def __init__(
        self,
        n_components: int | str = "auto",
        covariance_type: str = "auto",
        tails: str = "auto",
        noise: bool = False,
        kinds: Sequence[str] | None = None,
        trials: Mapping[int, int] | None = None,
        criterion: str = "mean",
        max_components: int = 12,
        min_components: int = 1,
        min_share: float = 0.0,
        n_init: int = 2,
        max_iter: int = 500,
        tol: float = 1e-5,
        start: SegmentMixture | Mapping[str, np.ndarray] | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tails = tails
        self.noise = noise
        self.kinds = kinds
        self.trials = trials
        self.criterion = criterion
        self.max_components = max_components
        self.min_components = min_components
        self.min_share = min_share
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.start = start
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit to X (n, d), in which NaN is a missing cell; y is ignored.

        sample_weight: (n,) not negative; a row of weight two counts as two rows.
        """
        x = validate_data(
            self, X, dtype=np.float64, ensure_min_samples=2, ensure_all_finite="allow-nan"
        )
        weights = np.ones(len(x))
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, x, dtype=float, ensure_non_negative=True)
            x, weights = x[weights > 0], weights[weights > 0]
        return self._fit(_InMemory(x, weights))

    def fit_batches(
        self, batches: Iterable[Any], sample_weight: Iterable[Any] | None = None
    ) -> Self:
        """Fit to batches (m, d) that can be read again and again, in constant memory.

        The scan looks at a random sample of the rows, as in `fit`; every pass of the polish
        reads all batches once. sample_weight: as many arrays (m,).
        """
        return self._fit(_Reread(batches, sample_weight))

    def _fit(self, source: _InMemory | _Reread) -> Self:
        random = check_random_state(self.random_state)
        x, weights, n = source.sample(random)
        self.n_features_in_ = x.shape[1]
        sizes = self._sizes(n)
        families, tails = self._models()
        x, pooled = self._encode(source, x)
        d = len(self.layout_.continuous)
        fence = fences(x[:, :d]) if self.noise else None
        kept = np.ones(len(x), dtype=bool) if fence is None else within(x, fence)
        x, weights = x[kept], weights[kept]
        single = single_gaussian(x[:, :d], weights)
        settings = self._settings(x[:, :d], single, pooled)

        def rows(crossed: bool) -> Rows | Batches:
            return source.rows(single.means[0], crossed, fence)

        if self.start is not None:
            chosen = self._continued(self.start, rows, settings)
            return self._keep(chosen, [chosen])
        starts = Starts(filled(x, single), weights, single, pooled, self.n_init, random)
        sample = Sample(x, weights, starts, single.means[0], source.sizes)
        scanned = scan(sample, sizes, families, tails, settings)
        whole = n <= SCAN_ROWS and isinstance(source, _InMemory)
        best = best_of(scanned if whole else polish(rows, scanned, settings))
        return self._keep(best, scanned)

    def _encode(self, source: _InMemory | _Reread, x: np.ndarray) -> tuple[np.ndarray, Blocks]:
        """The sample x (n, d) as the source gives its rows from now on, and the pooled blocks."""
        self.layout_ = layout = Layout.declared(self.kinds, self.trials, x.shape[1]).observed(x)
        if self.kinds is None:
            return x, NO_BLOCKS
        pooled = layout.pooled(source.whole())
        source.encode = lambda rows: layout.encoded(rows, pooled)
        source.sizes = tuple(len(block.cells.distinct) for block in pooled.parts)
        return source.encode(x), pooled

    def _settings(self, x: np.ndarray, single: Parameters, pooled: Blocks) -> Settings:
        box = np.array([np.nanmin(x, axis=0), np.nanmax(x, axis=0)]) if self.noise else None
        return Settings(
            self.criterion,
            self.min_share,
            self.max_iter,
            self.tol,
            single.covariances[0],
            box,
            pooled,
        )

    def _models(self) -> tuple[Sequence[str], Sequence[str]]:
        """The families and tails to look at; raises ValueError for a wrong parameter."""
        family = ALIASES.get(self.covariance_type, self.covariance_type)
        if family != "auto" and family not in FAMILIES:
            known = ("auto", *FAMILIES, *ALIASES)
            raise ValueError(f"covariance_type is {self.covariance_type!r}; known: {known}")
        if self.tails not in ("auto", *TAILS):
            raise ValueError(f"tails is {self.tails!r}; known: {('auto', *TAILS)}")
        if self.criterion not in CRITERIA:
            raise ValueError(f"criterion is {self.criterion!r}; known: {tuple(CRITERIA)}")
        return (
            FAMILIES if family == "auto" else (family,),
            TAILS if self.tails == "auto" else (self.tails,),
        )

    def _sizes(self, n: int) -> Sequence[int]:
        """The sizes to look at; raises ValueError where n rows cannot have them."""
        if self.n_components == "auto":
            sizes = range(self.min_components, min(self.max_components, n) + 1)
        else:
            sizes = range(int(self.n_components), int(self.n_components) + 1)
        if not sizes or not 1 <= sizes[0] <= n:
            raise ValueError(
                f"{self.n_components!r} components ({self.min_components} to "
                f"{self.max_components}) were asked of n_samples = {n}; expected 1 to {n}"
            )
        return sizes

    def _continued(
        self, start: SegmentMixture | Mapping[str, np.ndarray], rows: Any, settings: Settings
    ) -> Candidate:
        """The candidate that EM reaches from a fitted mixture."""
        if isinstance(start, Mapping):
            start = SegmentMixture.from_arrays(start)
        check_is_fitted(start)
        parameters = replace(
            start._parameters(settings.noise_box),
            blocks=start.blocks_.on(settings.pooled),
            noise_blocks=settings.strays,
        )
        begun = Candidate(
            parameters.family, start.tails_, start.n_components_, np.inf, (parameters,)
        )
        return best_of([finished(rows(is_crossed(parameters.family)), begun, settings)])

    def _keep(self, best: Candidate, scanned: Sequence[Candidate]) -> Self:
        """The fitted attributes."""
        fit = best.ended()
        self._set(fit.parameters)
        self.converged_ = fit.converged
        self.n_iter_ = len(fit.trace) - 1
        self.log_likelihood_ = fit.log_likelihood
        self.trace_ = np.array(fit.trace)
        self.scan_ = [
            {
                "covariance_type": c.family,
                "tails": c.tails,
                "n_components": c.n_components,
                "criterion": None if c.refused else c.criterion,
                "refused": c.refused,
            }
            for c in scanned
        ]
        return self

    def _set(self, parameters: Parameters) -> None:
        self.weights_ = parameters.weights
        self.means_ = parameters.means
        self.covariances_ = parameters.covariances
        self.degrees_of_freedom_ = parameters.degrees
        self.covariance_type_ = parameters.family
        self.tails_ = "gaussian" if parameters.degrees is None else "t"
        self.n_components_ = len(parameters.weights)
        self.blocks_ = parameters.blocks
        self.noise_blocks_ = parameters.noise_blocks
        self.noise_box_ = parameters.noise_box
        self.noise_weight_ = float(parameters.noise_weight)
        self.noise_log_density_ = None
        if parameters.noise_box is not None:
            self.noise_log_density_ = -float(np.log(np.diff(parameters.noise_box, axis=0)).sum())

    def _parameters(self, noise_box: np.ndarray | None = None) -> Parameters:
        return Parameters(
            self.covariance_type_,
            self.weights_,
            self.means_,
            self.covariances_,
            self.degrees_of_freedom_,
            self.noise_weight_,
            self.noise_box_ if noise_box is None else noise_box,
            self.blocks_,
            self.noise_blocks_,
        )

    def _encoded(self, x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...], Parameters]:
        """Rows x (n, d) as codes, cells per block, and the parameters on those cells."""
        cells = self.layout_.cells_of(x)
        parameters = replace(
            self._parameters(),
            blocks=self.blocks_.on(cells),
            noise_blocks=self.noise_blocks_.on(cells),
        )
        sizes = tuple(len(block.cells.distinct) for block in cells.parts)
        return self.layout_.encoded(x, cells), sizes, parameters

    def log_terms(self, X: Any) -> np.ndarray:
        """Log of weight times density of each component at each row, (n, K), in nats.

        With noise, one last column for the noise part, whose density is that of its box
        everywhere.
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False, ensure_all_finite="allow-nan")
        x, sizes, parameters = self._encoded(x)
        table = cell_terms(parameters)
        centre = self.weights_ @ self.means_ / self.weights_.sum()
        terms = np.empty((len(x), self.n_components_ + (self.noise_box_ is not None)))
        ready = {}
        crossed = is_crossed(parameters.family)
        rows = Rows(x, centre, crossed, sizes=sizes)
        for chunk in rows:
            if chunk.observed not in ready:
                ready[chunk.observed] = density(parameters, centre, chunk.observed, crossed)
            terms[chunk.places] = log_terms(ready[chunk.observed], chunk, table, rows.work)[0].T
        return terms

    def score_samples(self, X: Any) -> np.ndarray:
        """Log density of each row (n,), in nats; of its known cells, where some are missing."""
        return log_sum_exp(self.log_terms(X).T)[0]

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log density of the rows, in nats; y is ignored."""
        return float(self.score_samples(X).mean())

    def predict_proba(self, X: Any) -> np.ndarray:
        """Posterior of each component, (n, K); rows sum to one less the posterior of noise."""
        return log_sum_exp(self.log_terms(X).T)[1].T[:, : self.n_components_]

    def predict(self, X: Any) -> np.ndarray:
        """The most probable component of each row, (n,); -1 where noise is more probable."""
        labels = self.log_terms(X).argmax(axis=1)
        return np.where(labels == self.n_components_, -1, labels)

    def bic(self, X: Any) -> float:
        """Bayesian information criterion on X; lower is better."""
        scores = self.score_samples(X)
        return float(free_parameters(self._parameters()) * np.log(len(scores)) - 2 * scores.sum())

    def icl(self, X: Any) -> float:
        """BIC plus the cost of naming each row's part; lower is better."""
        return self.bic(X) + 2 * float(log_sum_exp(self.log_terms(X).T)[2].sum())

    def collapsed(self, X: Any) -> str:
        """Why the mixture is no density of the rows X, by the guard of `fit`, or ""."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False, ensure_all_finite="allow-nan")
        x, sizes, parameters = self._encoded(x)
        single = single_gaussian(x[:, : self.means_.shape[1]], np.ones(len(x)))
        rows = Rows(x, single.means[0], is_crossed(parameters.family), sizes=sizes)
        prior = prior_for(single.covariances[0], self.n_components_)
        return refusal(parameters, expectation(rows, parameters)[1], prior, self.min_share)

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows (n_samples, d) and their components (n_samples,), grouped by component.

        Rows of the noise part come last, labelled -1.
        """
        check_is_fitted(self)
        random = check_random_state(self.random_state)
        shares = np.append(self.weights_, self.noise_weight_)
        counts = random.multinomial(n_samples, shares / shares.sum())
        labels = np.repeat(np.arange(self.n_components_), counts[:-1])
        lower = np.linalg.cholesky(self.covariances_)
        apart = random.standard_normal((len(labels), self.means_.shape[1]))
        if self.degrees_of_freedom_ is not None:
            degrees = self.degrees_of_freedom_[labels]
            apart /= np.sqrt(random.chisquare(degrees) / degrees)[:, None]
        drawn = self.means_[labels] + np.einsum("nij,nj->ni", lower[labels], apart)
        if self.noise_box_ is not None:
            stray = random.uniform(*self.noise_box_, (counts[-1], self.means_.shape[1]))
            drawn = np.concatenate([drawn, stray])
            labels = np.append(labels, np.full(counts[-1], -1))
        if self.blocks_.parts:
            generator = np.random.default_rng(random.randint(2**31 - 1))
            drawn = self._with_discrete(drawn, labels, generator)
        return drawn, labels

    def _with_discrete(
        self, continuous: np.ndarray, labels: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """Rows (n, d) of continuous cells (n, c) and of discrete ones drawn for the labels."""
        layout, x = self.layout_, np.full((len(labels), self.n_features_in_), np.nan)
        x[:, layout.continuous] = continuous
        for column, numbers in layout.drawn.items():
            x[:, column] = generator.choice(numbers, len(labels))
        laws = zip(self.blocks_.parts, self.noise_blocks_.parts or self.blocks_.parts, strict=True)
        # shares last: their trials, which may be a count, are drawn by then
        for block, noise in sorted(laws, key=lambda pair: pair[0].column in layout.trials):
            trials = x[:, layout.trials.get(block.column, block.column)]
            cells = block.sample(np.maximum(labels, 0), trials, generator)
            if self.noise_box_ is not None:
                stray = noise.sample(np.zeros_like(labels), trials, generator)
                cells = np.where(labels < 0, stray, cells)
            if block.column in layout.atoms:
                cells = np.where(cells == 1, layout.atoms[block.column], x[:, block.column])
            x[:, block.column] = cells
        return x

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything needed to score and to sample."""
        check_is_fitted(self)
        arrays = {
            "weights": self.weights_,
            "means": self.means_,
            "covariances": self.covariances_,
            "covariance_type": np.array([FAMILIES.index(self.covariance_type_)]),
        }
        if self.degrees_of_freedom_ is not None:
            arrays["degrees_of_freedom"] = self.degrees_of_freedom_
        if self.noise_box_ is not None:
            arrays["noise_weight"] = np.array([self.noise_weight_])
            arrays["noise_box"] = self.noise_box_
        if self.blocks_.parts:
            arrays |= self.layout_.to_arrays()
        for name, blocks in (("block", self.blocks_), ("noise_block", self.noise_blocks_)):
            for block in blocks.parts:
                own = block.to_arrays()
                arrays |= {f"{name}.{block.column}.{key}": own[key] for key in own}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], random_state: Any = None) -> Self:
        """The mixture that `to_arrays` gave; the record of the scan is not kept."""
        family = FAMILIES[int(arrays["covariance_type"][0])]
        k, d = arrays["means"].shape
        mixed = "kinds" in arrays
        layout = Layout.from_arrays(arrays) if mixed else Layout.declared(None, None, d)
        degrees, box = arrays.get("degrees_of_freedom"), arrays.get("noise_box")
        mixture = cls(
            n_components=k,
            covariance_type=family,
            tails="gaussian" if degrees is None else "t",
            noise=box is not None,
            kinds=layout.kinds if mixed else None,
            trials=layout.trials if mixed else None,
            random_state=random_state,
        )
        weight = 0.0 if box is None else float(arrays["noise_weight"][0])
        mixture._set(
            Parameters(
                family,
                arrays["weights"],
                arrays["means"],
                arrays["covariances"],
                degrees,
                weight,
                box,
                layout.blocks(arrays, "block"),
                NO_BLOCKS if box is None else layout.blocks(arrays, "noise_block"),
            )
        )
        mixture.layout_, mixture.n_features_in_ = layout, len(layout.kinds)
        return mixture


class _Source:
    """Rows of a fit; `encode` and `sizes` (see `em.Rows`) are set once the columns are known."""

    encode: Callable[[np.ndarray], np.ndarray] = staticmethod(np.asarray)
    sizes: tuple[int, ...] = ()


class _InMemory(_Source):
    """Rows x (n, d) with their weights (n,)."""

    def __init__(self, x: np.ndarray, weights: np.ndarray) -> None:
        self.x, self.weights = x, weights

    def whole(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows as they came, with their weights."""
        yield self.x, self.weights

    def sample(self, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray, int]:
        """Rows and weights to scan, and the number of all rows."""
        kept = subsample(len(self.x), SCAN_ROWS, random)
        return self.x[kept], self.weights[kept], len(self.x)

    def rows(self, centre: np.ndarray, crossed: bool, fence: np.ndarray | None) -> Rows:
        """All rows inside the fence."""
        x, weights = self.encode(self.x), self.weights
        if fence is not None:
            kept = within(x, fence)
            x, weights = x[kept], weights[kept]
        unit = (weights == 1).all()
        return Rows(x, centre, crossed, None if unit else weights, sizes=self.sizes)


class _Reread(_Source):
    """Batches (m, d) with their weights (m,), read anew each time."""

    def __init__(self, batches: Iterable[Any], weights: Iterable[Any] | None) -> None:
        self.batches, self.weights = batches, weights

    def whole(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows as they came, with their weights; before `encode` is set."""
        for x, weights in self.read():
            yield x, np.ones(len(x)) if weights is None else weights

    def read(self, fence: np.ndarray | None = None) -> Iterator[Batch]:
        """The batches, without rows of no weight and those outside the fence."""
        aside: Iterable[Any] = self.weights if self.weights is not None else iter(lambda: None, 0)
        for batch, own in zip(self.batches, aside, strict=False):
            x = check_array(batch, dtype=np.float64, ensure_all_finite="allow-nan")
            weights = None
            if own is not None:
                weights = _check_sample_weight(own, x, dtype=float, ensure_non_negative=True)
                x, weights = x[weights > 0], weights[weights > 0]
            x = self.encode(x)
            if fence is not None:
                kept = within(x, fence)
                x, weights = x[kept], None if weights is None else weights[kept]
            yield x, weights

    def sample(self, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray, int]:
        """A uniform sample without replacement in one read: the rows of the smallest keys."""
        kept: list[np.ndarray] = []
        n = 0
        for x, weights in self.read():
            own = np.ones(len(x)) if weights is None else weights
            new = np.column_stack([random.random_sample(len(x)), own, x])
            kept = [np.concatenate([*kept, new])]
            n += len(x)
            if len(kept[0]) > SCAN_ROWS:
                kept = [kept[0][np.argpartition(kept[0][:, 0], SCAN_ROWS)[:SCAN_ROWS]]]
        if n < 2:
            raise ValueError(f"the batches hold {n} rows of weight; expected 2 or more")
        return kept[0][:, 2:], kept[0][:, 1], n

    def rows(self, centre: np.ndarray, crossed: bool, fence: np.ndarray | None) -> Batches:
        """All rows inside the fence."""
        total = sum(
            float(len(x) if weights is None else weights.sum()) for x, weights in self.read(fence)
        )
        return Batches(lambda: self.read(fence), centre, crossed, total, self.sizes)
