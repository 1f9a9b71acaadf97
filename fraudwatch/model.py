"""The density of a transaction given its context: a conditional variational autoencoder.

p(x | c) = integral of N(z; 0, I) prod_j p(x_j | z, c) dz, with focal columns x, context columns c
and a latent z (Kingma & Welling 2014; Sohn, Lee & Yan 2015). The three steps are named as in
scvi-tools: inference gives q(z | x, c), generative gives p(x | z, c), loss joins them. Of tables
of many continuous columns, `kernels` says where the network's density is to be believed less.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from fraudwatch.kernels import Panel
from fraudwatch.likelihoods import (
    Block,
    Categorical,
    NumericLikelihood,
    blocks_of,
    likelihood_of,
    mixture_quantile,
    soft_clamp,
)
from fraudwatch.training import Schedule, default_steps, fit_module, one_thread

FOCAL_CLIP = 30.0  # of standardised values as the networks see them
CONTEXT_CLIP = 6.0  # context only conditions: beyond, more of it should change nothing
FAR = 1e9  # standard deviations; a cell further out counts as this far out, which stays finite
LATENT_LOG_VARIANCE_RANGE = (-10.0, 4.0)
FEW_FOCAL_COLUMNS = 5  # up to here the bound itself; with more columns beta = 0.3 ranks better
PANEL_COLUMNS = 3  # of one or two the network's density leaves nothing to be said
CHUNK_CELLS = 4096  # rows times draws evaluated at once: the activations then stay in the cache
PRIOR_DRAWS = 64
OFFSET_ROWS = 50_000
HELD_OUT_SHARE = 0.05
HELD_OUT_ROWS = 10_000
FORMAT = 1
NETWORK, PANEL = "network.", "panel."


class Parts(NamedTuple):
    """Where the negative log density of each row comes from, in nats.

    The surprises are those of the density that speaks: the network's or, where it finds the row
    more surprising, a member's of the panel.
    """

    log_likelihood: np.ndarray  # (n,), as score_samples
    surprise: np.ndarray  # (n, focal), posterior mean of -log p(x_j | z, c); 0 where missing
    latent: np.ndarray  # (n,), the rest: surprise.sum(1) + latent == -log_likelihood


class Loss(NamedTuple):
    """The objective and its parts, per row."""

    total: Tensor  # (n,)
    reconstruction: Tensor  # (n, focal), -log p(x_j | z, c)
    divergence: Tensor  # (n,), KL(q(z | x, c) || N(0, I))


class SkipNetwork(nn.Module):
    """Perceptron with SiLU over two inputs, plus a linear skip to some of the outputs.

    Without hidden layers the skip and a bias per output are all there is.
    Shape: (..., widths[0]) and (..., widths[1]), which broadcast -> (..., outputs).
    """

    skipped: Tensor

    def __init__(
        self,
        widths: tuple[int, int],
        hidden: Sequence[int],
        skipped: Sequence[bool],  # which outputs the skip reaches
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.register_buffer("skipped", torch.tensor(skipped).unsqueeze(1), persistent=False)
        sizes = [sum(widths), *hidden]
        self.skip = _weight(len(skipped), sizes[0], generator)
        self.bias = nn.Parameter(torch.zeros(len(skipped)))
        pairs = zip([*hidden, len(skipped)] if hidden else [], sizes, strict=False)
        self.weights = nn.ParameterList(_weight(out, size, generator) for out, size in pairs)
        self.biases = nn.ParameterList(torch.zeros(size) for size in hidden)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        # Two products that broadcast, not one of the joined inputs: what the first layer makes of
        # the context is then computed once for all draws of a row.
        out = _two_inputs(first, second, self.skip * self.skipped, self.bias)
        if not len(self.biases):
            return out
        h = _two_inputs(first, second, self.weights[0], self.biases[0])
        for weight, bias in zip(list(self.weights)[1:-1], list(self.biases)[1:], strict=True):
            h = F.linear(F.silu(h), weight, bias)
        return out + F.linear(F.silu(h), self.weights[-1])

    def start_blind(self, inputs: slice) -> None:
        """Let these inputs have no effect until training gives them one."""
        for weight in [self.skip, *self.weights[:1]]:
            weight.data[:, inputs] = 0.0


class ColumnView(nn.Module):
    """What the networks see of some columns: standardised values or indicators of the level,
    0 where missing, and an indicator per column of what is missing.

    Shape: (n, len(kinds)) -> (n, width).
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, kinds: Sequence[str], clip: float) -> None:
        super().__init__()
        self.blocks, self.clip = blocks_of(kinds), clip
        values = sum(len(b.columns) * b.likelihood.n_inputs for b in self.blocks)
        self.width, self.missing = values + len(kinds), slice(values, values + len(kinds))
        self.register_buffer("shift", torch.zeros(values))
        self.register_buffer("spread", torch.ones(values))

    def fit(self, x: Tensor) -> None:
        """Mean and deviation of the values of numeric columns; levels stay 0 and 1."""
        start = 0
        for block in self.blocks:
            for column in block.columns:
                if isinstance(block.likelihood, NumericLikelihood):
                    cells = block.likelihood.inputs(x[~x[:, column].isnan()][:, [column]]).double()
                    if len(cells) and cells.std(correction=0) > 0:
                        self.shift[start] = cells.mean()
                        self.spread[start] = cells.std(correction=0)
                start += block.likelihood.n_inputs

    def forward(self, x: Tensor) -> Tensor:
        inputs = [b.likelihood.inputs(x[:, b.columns]).flatten(1) for b in self.blocks]
        values = (torch.cat([x[:, :0], *inputs], 1) - self.shift) / self.spread
        values = values.clamp(-self.clip, self.clip).nan_to_num(0.0)
        return torch.cat([values, x.isnan().to(x.dtype)], 1)


class DensityNetwork(nn.Module):
    """Encoder, decoder and objective. A batch is (n, focal + context), continuous columns
    standardised, counts and level codes as they are, NaN where missing."""

    order: Tensor

    def __init__(
        self,
        focal: Sequence[str],
        context: Sequence[str],
        hidden: Sequence[int],
        latent: int,
        beta: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_focal, self.beta = len(focal), beta
        self.blocks = blocks_of(focal)
        self.focal_view = ColumnView(focal, FOCAL_CLIP)
        self.context_view = ColumnView(context, CONTEXT_CLIP)
        order = [column for block in self.blocks for column in block.columns]
        self.register_buffer("order", torch.tensor(order).argsort(), persistent=False)
        widths = self.focal_view.width, self.context_view.width
        located = [True] * latent + [False] * latent
        self.encoder = SkipNetwork(widths, hidden, located, generator)
        located = [
            p < block.likelihood.n_locations
            for block in self.blocks
            for p in range(block.likelihood.n_parameters)
            for _ in block.columns
        ]
        self.decoder = SkipNetwork((latent, widths[1]), hidden, located, generator)
        self._start_blind_to_missing(latent)

    def prepare(self, matrix: Tensor) -> None:
        """Fit the views and start the decoder at the marginals of the focal columns."""
        self.focal_view.fit(matrix[:, : self.n_focal])
        self.context_view.fit(matrix[:, self.n_focal :])
        for block in self.blocks:
            columns = [matrix[:, j] for j in block.columns]
            present = [c[~c.isnan()].double().numpy() for c in columns]
            starts = [block.likelihood.start(c if len(c) else np.zeros(1)) for c in present]
            self.decoder.bias.data[block.outputs] = torch.tensor(starts).T.flatten()

    def inference(self, x_view: Tensor, c_view: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | x, c): mean and log variance, (n, latent) each."""
        mean, log_variance = self.encoder(x_view, c_view).chunk(2, -1)
        return mean, soft_clamp(log_variance, *LATENT_LOG_VARIANCE_RANGE)

    def generative(self, z: Tensor, c_view: Tensor) -> Tensor:
        """p(x | z, c): unconstrained parameters of all blocks, (..., outputs)."""
        return self.decoder(z, c_view)

    def log_prob(self, outputs: Tensor, x: Tensor) -> Tensor:
        """log p(x_j | z, c) for each focal column, (..., focal)."""
        parts = [
            block.likelihood.log_prob(block.parameters(outputs), x[..., block.columns])
            for block in self.blocks
        ]
        return torch.cat(parts, -1)[..., self.order] if len(parts) > 1 else parts[0]

    def loss(self, batch: Tensor, generator: torch.Generator) -> Loss:
        """Negative evidence lower bound with the divergence times beta (Higgins et al. 2017)."""
        x, c = batch[:, : self.n_focal], batch[:, self.n_focal :]
        c_view = self.context_view(c)
        mean, log_variance = self.inference(self.focal_view(x), c_view)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        z = mean + torch.exp(0.5 * log_variance) * noise
        reconstruction = -self.log_prob(self.generative(z, c_view), x)
        # KL between Gaussians in closed form: Kingma & Welling 2014, appendix B.
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
        return Loss(reconstruction.sum(1) + self.beta * divergence, reconstruction, divergence)

    def weigh(self, batch: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Importance sampling with z_k = mean + sd * draws_k; draws: (K, latent).

        Returns log p(x_j | z_k, c), (n, K, focal), and log p(z_k) - log q(z_k | x, c), (n, K).
        """
        x, c = batch[:, : self.n_focal], batch[:, self.n_focal :]
        c_view = self.context_view(c)
        mean, log_variance = self.inference(self.focal_view(x), c_view)
        z = mean.unsqueeze(1) + torch.exp(0.5 * log_variance).unsqueeze(1) * draws  # (n, K, latent)
        outputs = self.generative(z, c_view.unsqueeze(1))  # (n, K, outputs)
        log_ratio = 0.5 * (draws.square() + log_variance.unsqueeze(1) - z.square()).sum(2)
        return self.log_prob(outputs, x.unsqueeze(1)), log_ratio

    def _start_blind_to_missing(self, latent: int) -> None:
        """A column that is complete in training leaves its indicator without effect for good."""
        focal, context = self.focal_view, self.context_view
        self.encoder.start_blind(focal.missing)
        first, last = context.missing.start, context.missing.stop
        self.encoder.start_blind(slice(focal.width + first, focal.width + last))
        self.decoder.start_blind(slice(latent + first, latent + last))


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation of the continuous columns; 0 and 1 for the others. (columns,) each."""

    center: np.ndarray
    scale: np.ndarray
    continuous: np.ndarray

    @classmethod
    def fit(cls, matrix: np.ndarray, continuous: np.ndarray) -> Self:
        """matrix: (n, columns), NaN where missing. A constant column keeps the scale 1."""
        center, scale = np.zeros(len(continuous)), np.ones(len(continuous))
        for j in np.flatnonzero(continuous):
            cells = matrix[~np.isnan(matrix[:, j]), j]
            if len(cells):
                center[j], deviation = cells.mean(), cells.std()
                scale[j] = deviation if deviation > 1e-12 * abs(center[j]) else 1.0
        return cls(center, scale, continuous)

    def apply(self, matrix: np.ndarray, limit: float = FAR) -> np.ndarray:
        """Standardise, and bring continuous cells within the limit; (n, columns), a new array."""
        bound = np.where(self.continuous, limit, np.inf)
        return np.clip((matrix - self.center) / self.scale, -bound, bound)


class TransactionVAE(OutlierMixin, BaseEstimator):
    """Density of focal columns given context columns; low density is an outlier.

    The last `n_context` columns of X are context: they condition, their own density is not
    modelled. NaN is a missing cell: a focal one is integrated out, the networks see an indicator.

    A table of at least 3 columns, all continuous and none of them context, also gets a panel of
    kernels (`fraudwatch.kernels`). The log density of a row without missing cells is then the
    least of the network's and the panel's: never above the network's, so its integral is at most
    1. `sample` and `expected` are the network's.

    Parameters
    ----------
    kinds : one per column of X, "gaussian", "student", "count" or "categorical:L" (codes 0 to
        L - 1); None means that all are gaussian. Of a context column only the encoding follows.
    n_context : how many of the last columns are context.
    hidden : widths of the hidden layers; () leaves a linear model, factor analysis.
    latent : dimensions of z; None means half the focal columns, at least 1 and at most 8.
    beta : weight of the divergence; None means 1 up to 5 focal columns, else 0.3.
    steps : None means 1500 from 1000 rows on, below about 25 passes but at least 250.
    draws : importance samples per score, one fixed set for all rows.
    trim : share of each training batch, the worst rows, that is left out.
    panel : whether tables of continuous columns without context get kernels beside the network.
    contamination : share of the training rows that `offset_` puts on the outlier side.
    """

    def __init__(
        self,
        kinds: Sequence[str] | None = None,
        n_context: int = 0,
        hidden: Sequence[int] = (64, 64),
        latent: int | None = None,
        beta: float | None = None,
        steps: int | None = None,
        batch_size: int = 512,
        learning_rate: float = 3e-3,
        draws: int = 8,
        trim: float = 0.0,
        panel: bool = True,
        contamination: float = 0.01,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> None:
        self.kinds = kinds
        self.n_context = n_context
        self.hidden = hidden
        self.latent = latent
        self.beta = beta
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.draws = draws
        self.trim = trim
        self.panel = panel
        self.contamination = contamination
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the density of the rows of X, (n, n_features); y is ignored."""
        matrix = validate_data(
            self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2
        )
        self._resolve()
        _check_cells(matrix, self.kinds_)
        self.seed_ = _seed(self.random_state)
        generator = torch.Generator().manual_seed(self.seed_)
        self.scaling_ = Scaling.fit(matrix, self._continuous())
        with one_thread():
            network = self._new_network(generator)
            # Training sees no cell beyond the clip: one absurd amount must not steer a batch.
            batch = torch.from_numpy(self.scaling_.apply(matrix, FOCAL_CLIP).astype(np.float32))
            network.prepare(batch)
            self.loss_curve_ = fit_module(network, batch, self._schedule(len(matrix)), generator)
        self.network_ = _at_rest(network)
        self.draws_ = _normal_draws(self.draws, self.latent_, generator)
        self.prior_draws_ = _normal_draws(PRIOR_DRAWS, self.latent_, generator)
        self.panel_ = self._new_panel(batch.double().numpy())
        some = torch.randperm(len(matrix), generator=generator)[:OFFSET_ROWS].numpy()
        scores = np.concatenate(self._by_chunk(matrix[some], self._log_density))
        self.offset_ = float(np.percentile(scores, 100.0 * self.contamination))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x | c) of each row in nats and in the units of X, (n,); higher is more usual.

        The importance-weighted bound (Burda, Grosse & Salakhutdinov 2016) with the model's own
        fixed draws, in float64: the score of a row does not depend on the rows beside it.
        """
        return np.concatenate(self._by_chunk(self._checked(X), self._log_density))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log density of the rows, in nats."""
        return float(self.score_samples(X).mean())

    def decision_function(self, X: Any) -> np.ndarray:
        """score_samples minus offset_, (n,); negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """+1 for inliers, -1 for outliers, (n,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def parts(self, X: Any) -> Parts:
        """The terms of each row's score; their posterior weights are those of the same draws."""
        chunks = self._by_chunk(self._checked(X), self._chunk_parts)
        return Parts(*(np.concatenate(arrays) for arrays in zip(*chunks, strict=True)))

    def sample(
        self,
        n_samples: int = 1,
        context: Any = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> np.ndarray:
        """Draw rows as fit takes them, (n_samples for each context row, n_features).

        context: (m, n_context), needed where the model has context; the samples of a context row
        stand together.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        given = self._checked_context(np.empty((1, 0)) if context is None else context)
        generator = torch.Generator().manual_seed(_seed(random_state))
        repeated = np.repeat(given, n_samples, axis=0)
        with one_thread(), torch.inference_mode():
            chunks = [
                self._chunk_sample(repeated[start : start + CHUNK_CELLS], generator)
                for start in range(0, len(repeated), CHUNK_CELLS)
            ]
        return np.hstack([np.concatenate(chunks), repeated])

    def expected(self, context: Any, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> np.ndarray:
        """Quantiles of each focal column given the context alone, (n, focal, quantiles).

        context: (n, n_context). In the units of X; NaN for categorical columns. z is integrated
        out with the model's fixed draws from its prior.
        """
        return self._by_context(context, lambda outputs: self._chunk_quantiles(outputs, quantiles))

    def level_probabilities(self, context: Any) -> dict[int, np.ndarray]:
        """P(level | context) by index of the categorical focal column, (n, L) each."""
        blocks = self._fitted_network().blocks
        tables: dict[int, np.ndarray] = {}
        for block in (b for b in blocks if isinstance(b.likelihood, Categorical)):
            table = self._by_context(context, partial(_level_table, block))
            tables |= {column: table[:, :, i] for i, column in enumerate(block.columns)}
        return dict(sorted(tables.items()))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything needed to score, as numeric arrays; "header" is JSON in UTF-8 bytes."""
        network = self._fitted_network()
        header = json.dumps(self._header(), default=lambda value: value.item()).encode()
        state = {name: value.numpy().copy() for name, value in network.state_dict().items()}
        return _prefixed(NETWORK, state) | {
            "header": np.frombuffer(header, dtype=np.uint8).copy(),
            "center": self.scaling_.center,
            "scale": self.scaling_.scale,
            "draws": self.draws_.numpy().copy(),
            "prior_draws": self.prior_draws_.numpy().copy(),
            **({} if self.panel_ is None else _prefixed(PANEL, self.panel_.to_arrays())),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The model that `to_arrays` wrote; its scores are the same."""
        header = json.loads(np.asarray(arrays["header"], dtype=np.uint8).tobytes())
        if header.get("format") != FORMAT:
            raise ValueError(f"model arrays have format {header.get('format')}, expected {FORMAT}")
        model = cls(**header["parameters"])
        for name, value in header["fitted"].items():
            setattr(model, name, value)
        if header["feature_names"] is not None:
            model.feature_names_in_ = np.array(header["feature_names"], dtype=object)
        model.scaling_ = Scaling(
            np.array(arrays["center"]), np.array(arrays["scale"]), model._continuous()
        )
        model.draws_ = torch.tensor(arrays["draws"])
        model.prior_draws_ = torch.tensor(arrays["prior_draws"])
        network = _at_rest(model._new_network(torch.Generator()))
        state = _without_prefix(NETWORK, arrays)
        network.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
        model.network_ = network
        panel = _without_prefix(PANEL, arrays)
        model.panel_ = Panel.from_arrays(panel) if panel else None
        return model

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _resolve(self) -> None:
        """Check the constructor's parameters against X and fill in those that follow from it."""
        columns = self.n_features_in_
        if not 0 <= self.n_context < columns:
            raise ValueError(
                f"n_context={self.n_context} leaves no focal column of the {columns} columns of X"
            )
        kinds = ["gaussian"] * columns if self.kinds is None else list(self.kinds)
        if len(kinds) != columns:
            raise ValueError(f"kinds names {len(kinds)} columns, but X has {columns}")
        positive: dict[str, float | None]
        positive = {"draws": self.draws, "batch_size": self.batch_size, "latent": self.latent}
        positive |= {"steps": self.steps, "learning_rate": self.learning_rate, "beta": self.beta}
        for name, value in positive.items():
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name, share in {"trim": self.trim, "contamination": self.contamination}.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be a share in [0, 1), got {share}")
        focal = columns - self.n_context
        few = focal <= FEW_FOCAL_COLUMNS
        self.kinds_ = kinds
        self.latent_ = max(1, min(8, focal // 2)) if self.latent is None else self.latent
        self.beta_ = (1.0 if few else 0.3) if self.beta is None else self.beta

    def _header(self) -> dict[str, Any]:
        parameters = self.get_params(deep=False)
        for name in ("kinds", "hidden"):
            parameters[name] = None if parameters[name] is None else list(parameters[name])
        parameters["random_state"] = self.seed_  # a generator's state would not be the same again
        names = ("n_features_in_", "kinds_", "latent_", "beta_", "seed_", "offset_")
        features = getattr(self, "feature_names_in_", None)
        return {
            "format": FORMAT,
            "parameters": parameters,
            "fitted": {name: getattr(self, name) for name in names},
            "feature_names": None if features is None else list(features),
        }

    def _new_network(self, generator: torch.Generator) -> DensityNetwork:
        focal = self._n_focal()
        return DensityNetwork(
            focal=self.kinds_[:focal],
            context=self.kinds_[focal:],
            hidden=tuple(self.hidden),
            latent=self.latent_,
            beta=self.beta_,
            generator=generator,
        )

    def _new_panel(self, rows: np.ndarray) -> Panel | None:
        """rows: standardised training rows, of which the complete ones count."""
        eligible = self.n_context == 0 and self._n_focal() >= PANEL_COLUMNS
        if not (self.panel and eligible and self._continuous().all()):
            return None

        def network(some: np.ndarray) -> np.ndarray:
            batches = np.array_split(some, max(1, len(some) * self.draws // CHUNK_CELLS))
            with one_thread(), torch.inference_mode():
                return -np.concatenate([self._bound(torch.from_numpy(b)) for b in batches])

        complete = rows[~np.isnan(rows).any(1)]
        return Panel.fit(complete, network, np.random.default_rng(self.seed_))

    def _schedule(self, rows: int) -> Schedule:
        steps = default_steps(rows, self.batch_size) if self.steps is None else self.steps
        return Schedule(steps, self.batch_size, self.learning_rate, self.trim)

    def _n_focal(self) -> int:
        return self.n_features_in_ - self.n_context

    def _continuous(self) -> np.ndarray:
        return np.array([likelihood_of(kind).continuous for kind in self.kinds_])

    def _fitted_network(self) -> DensityNetwork:
        check_is_fitted(self)
        return self.network_

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        matrix = validate_data(
            self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False
        )
        _check_cells(matrix, self.kinds_)
        return matrix

    def _checked_context(self, context: Any) -> np.ndarray:
        """context as (m, n_context) float64."""
        check_is_fitted(self)
        given = check_array(
            context,
            dtype=np.float64,
            ensure_all_finite="allow-nan",
            ensure_min_features=0,
            input_name="context",
        )
        if given.shape[1] != self.n_context:
            raise ValueError(
                f"context has {given.shape[1]} columns, but the model was fitted with "
                f"n_context={self.n_context}"
            )
        _check_cells(given, self.kinds_[self._n_focal() :])
        return given

    def _by_chunk(self, matrix: np.ndarray, function: Callable[[Tensor], Any]) -> list[Any]:
        """The function's results for consecutive rows, standardised and in float64."""
        rows = max(1, CHUNK_CELLS // len(self.draws_))
        with one_thread(), torch.inference_mode():
            return [
                function(torch.from_numpy(self.scaling_.apply(matrix[start : start + rows])))
                for start in range(0, len(matrix), rows)
            ]

    def _by_context(self, context: Any, function: Callable[[Tensor], np.ndarray]) -> np.ndarray:
        """The function's results from the outputs (n, K, outputs) at the draws of the prior."""
        given = self._checked_context(context)
        rows = CHUNK_CELLS // PRIOR_DRAWS
        with one_thread(), torch.inference_mode():
            chunks = [
                function(self._prior_outputs(given[start : start + rows], self.prior_draws_))
                for start in range(0, len(given), rows)
            ]
        return np.concatenate(chunks)

    def _prior_outputs(self, context: np.ndarray, z: Tensor) -> Tensor:
        """Decoder outputs at z, (K, latent) -> (n, K, outputs), or (n, 1, latent) -> (n, 1, ·)."""
        empty = np.full((len(context), self._n_focal()), np.nan)
        scaled = self.scaling_.apply(np.hstack([empty, context]))[:, self._n_focal() :]
        c_view = self.network_.context_view(torch.from_numpy(scaled)).unsqueeze(1)
        return self.network_.generative(z, c_view).expand(len(context), -1, -1)

    def _units(self, present: Tensor) -> Tensor:
        """log |dx/dx_standardised| of the present focal cells, (n, focal): from nats to nats."""
        return present * torch.from_numpy(np.log(self.scaling_.scale[: self._n_focal()]))

    def _bound(self, batch: Tensor) -> np.ndarray:
        """The network's log density of standardised rows, (n,)."""
        log_p, log_ratio = self.network_.weigh(batch, self.draws_)
        bound = torch.logsumexp(log_p.sum(2) + log_ratio, 1) - math.log(len(self.draws_))
        return bound.numpy()

    def _log_density(self, batch: Tensor) -> np.ndarray:
        bound = self._bound(batch)
        if self.panel_ is not None:
            whole, rows = _complete(batch)
            bound[whole] = np.minimum(bound[whole], -self.panel_.surprise(rows))
        units = self._units(~batch[:, : self._n_focal()].isnan())
        return bound - units.sum(1).numpy()

    def _chunk_parts(self, batch: Tensor) -> Parts:
        log_p, log_ratio = self.network_.weigh(batch, self.draws_)
        log_weight = log_p.sum(2) + log_ratio  # (n, K)
        units = self._units(~batch[:, : self._n_focal()].isnan())  # (n, focal)
        weight = torch.softmax(log_weight, 1).unsqueeze(2)
        surprise = -(weight * log_p).sum(1).numpy()
        bound = (torch.logsumexp(log_weight, 1) - math.log(len(self.draws_))).numpy()
        if self.panel_ is not None:
            whole, rows = _complete(batch)
            total, columns = self.panel_.parts(rows)
            louder = total > -bound[whole]
            bound[whole[louder]], surprise[whole[louder]] = -total[louder], columns[louder]
        log_likelihood = bound - units.sum(1).numpy()
        surprise += units.numpy()
        return Parts(log_likelihood, surprise, -log_likelihood - surprise.sum(1))

    def _chunk_sample(self, context: np.ndarray, generator: torch.Generator) -> np.ndarray:
        shape = (len(context), 1, self.latent_)
        z = torch.randn(shape, generator=generator, dtype=torch.float64)
        outputs = self._prior_outputs(context, z)[:, 0]
        drawn = np.empty((len(context), self._n_focal()))
        for block in self.network_.blocks:
            cells = block.likelihood.sample(block.parameters(outputs), generator)
            drawn[:, block.columns] = cells.numpy()
        return self._in_units(drawn)

    def _chunk_quantiles(self, outputs: Tensor, quantiles: Sequence[float]) -> np.ndarray:
        table = np.full((len(outputs), self._n_focal(), len(quantiles)), np.nan)
        for block in self.network_.blocks:
            if isinstance(block.likelihood, NumericLikelihood):
                parameters = block.parameters(outputs)
                for i, level in enumerate(quantiles):
                    values = mixture_quantile(block.likelihood, parameters, level)
                    table[:, block.columns, i] = values.numpy()
        return self._in_units(table.swapaxes(1, 2)).swapaxes(1, 2)

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        """(..., focal) standardised -> in the units of X."""
        focal = slice(self._n_focal())
        return values * self.scaling_.scale[focal] + self.scaling_.center[focal]


def train(
    matrix: np.ndarray,
    kinds: Sequence[str],
    n_context: int,
    settings: Mapping[str, Any],
    generator: np.random.Generator,
) -> tuple[TransactionVAE, dict[str, Any]]:
    """Fit on all but a held-out twentieth of the rows; returns the model and its diagnostics.

    matrix: (n, focal + context) encoded rows, kinds: one per column. settings: further parameters
    of TransactionVAE. The held-out log likelihood is a mean in nats, None below 40 rows.
    """
    rows = len(matrix)
    held_out = min(HELD_OUT_ROWS, int(HELD_OUT_SHARE * rows)) if rows >= 40 else 0
    order = generator.permutation(rows)
    model = TransactionVAE(kinds=kinds, n_context=n_context, random_state=generator, **settings)
    model.fit(matrix[np.sort(order[held_out:])])
    curve = model.loss_curve_
    diagnostics = {
        "rows": rows - held_out,
        "held_out_rows": held_out,
        "held_out_log_likelihood": model.score(matrix[order[:held_out]]) if held_out else None,
        "steps": len(curve),
        "loss_curve": [float(part.mean()) for part in np.array_split(curve, min(20, len(curve)))],
    }
    return model, diagnostics


def _complete(batch: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have no missing cell, and those rows."""
    rows = batch.numpy()
    whole = np.flatnonzero(~np.isnan(rows).any(1))
    return whole, rows[whole]


def _prefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}{name}": value for name, value in arrays.items()}


def _without_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _level_table(block: Block, outputs: Tensor) -> np.ndarray:
    """Level probabilities averaged over the draws: (n, K, outputs) -> (n, L, m)."""
    logits = block.parameters(outputs)
    return torch.softmax(logits, dim=-2).mean(1).numpy()


def _weight(outputs: int, inputs: int, generator: torch.Generator) -> nn.Parameter:
    """Uniform within 1 / sqrt(inputs), torch's own rule, but from the given generator."""
    bound = 1.0 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator))


def _two_inputs(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    width = first.shape[-1]
    return F.linear(first, weight[:, :width]) + F.linear(second, weight[:, width:], bias)


def _at_rest(network: DensityNetwork) -> DensityNetwork:
    """Trained in float32, scored in float64, changed no more."""
    return network.double().eval().requires_grad_(False)


def _normal_draws(draws: int, latent: int, generator: torch.Generator) -> Tensor:
    """(draws, latent) standard normal, float64: a scrambled Sobol sequence through the quantile
    function. Each point alone is N(0, I), so the bound stays one; together they cover the latent
    space more evenly than independent draws, which every row would share the luck of."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    engine = torch.quasirandom.SobolEngine(latent, scramble=True, seed=seed)
    uniform = engine.draw(draws, dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9))


def _seed(random_state: Any) -> int:
    """One seed from what scikit-learn calls a random state, or from a numpy Generator."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    return int(check_random_state(random_state).randint(2**31 - 1))


def _check_cells(matrix: np.ndarray, kinds: Sequence[str]) -> None:
    """Refuse counts and level codes that cannot be any, naming all such columns at once."""
    faults = []
    for j, kind in enumerate(kinds):
        likelihood = likelihood_of(kind)
        cells = matrix[:, j]
        fault = likelihood.fault(cells[~np.isnan(cells)])
        if fault is not None:
            faults.append(f"column {j} ({kind}) holds {fault}")
    if faults:
        raise ValueError("; ".join(faults))
