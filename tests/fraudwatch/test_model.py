"""The density against exact ones, and the laws that every fitted model must keep."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from fraudwatch import TransactionVAE
from fraudwatch.likelihoods import LOG_VARIANCE_RANGE, soft_clamp
from fraudwatch.model import LATENT_LOG_VARIANCE_RANGE, train

MIXED = ["gaussian", "student", "count", "categorical:3", "gaussian", "categorical:2"]


def mixed_rows(n: int = 600, seed: int = 0) -> np.ndarray:
    """Rows for MIXED: four focal and two context columns, with holes in all but the last."""
    rng = np.random.default_rng(seed)
    context, half = rng.normal(size=n), rng.integers(0, 2, n)
    amount = 50 + 20 * context + rng.normal(size=n)
    tailed = 3.0 * half + rng.standard_t(4, size=n)
    count = rng.poisson(np.exp(1 + 0.5 * half))
    level = np.where(rng.random(n) < 0.8, half, 2)
    rows = np.column_stack([amount, tailed, count, level, context, half]).astype(float)
    rows[:, :5][rng.random((n, 5)) < 0.05] = np.nan
    return rows


def a_small_model(**parameters: object) -> TransactionVAE:
    defaults: dict[str, object] = {"hidden": (16,), "steps": 60, "panel": False, "random_state": 0}
    return TransactionVAE(**(defaults | parameters))


@pytest.fixture(scope="module")
def mixed_model() -> TransactionVAE:
    return a_small_model(kinds=MIXED, n_context=2, steps=200).fit(mixed_rows())


# A linear decoder with weights set by hand has an exact density, N(b, W W' + Psi) (factor analysis;
# Bishop 2006, section 12.2.4), and an exact posterior, against which the bound is checked.


def inverse_soft_clamp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    floored = high - np.log(np.expm1(high - value))
    return low + np.log(np.expm1(floored - low))


class LinearCase:
    """W (focal, latent), noise variances and b in standardised units, and a model that has them."""

    def __init__(self, loadings: Sequence[Sequence[float]], draws: int) -> None:
        self.w = np.array(loadings)
        focal, latent = self.w.shape
        raw = np.linspace(-1.0, 0.0, focal)
        self.noise = soft_clamp(torch.tensor(raw), *LOG_VARIANCE_RANGE).exp().numpy()
        self.b = np.linspace(-0.5, 0.5, focal)
        rows = np.random.default_rng(0).normal(5.0, 3.0, size=(200, focal))
        self.model = a_small_model(hidden=(), latent=latent, steps=1, draws=draws).fit(rows)
        network = self.model.network_
        network.focal_view.shift.zero_()
        network.focal_view.spread.fill_(1.0)
        network.decoder.skip[:focal] = torch.tensor(self.w)
        network.decoder.bias[:] = torch.tensor(np.concatenate([self.b, raw]))
        self.set_encoder(np.arange(focal))

    def set_encoder(self, seen: np.ndarray) -> None:
        """The best q of diagonal covariance when the columns `seen` are present."""
        latent, focal = self.model.latent_, len(self.b)
        precise = self.w[seen].T / self.noise[seen]
        self.precision = np.eye(latent) + precise @ self.w[seen]
        to_mean = np.zeros((latent, focal))
        to_mean[:, seen] = np.linalg.solve(self.precision, precise)
        log_variance = -np.log(np.diag(self.precision))
        encoder = self.model.network_.encoder
        encoder.skip.zero_()
        encoder.skip[:latent, :focal] = torch.tensor(to_mean)
        encoder.bias[:latent] = torch.tensor(-to_mean[:, seen] @ self.b[seen])
        raw = inverse_soft_clamp(log_variance, *LATENT_LOG_VARIANCE_RANGE)
        encoder.bias[latent:] = torch.tensor(raw)

    def exact(
        self, seen: np.ndarray | None = None
    ) -> stats._multivariate.multivariate_normal_frozen:
        """The marginal density of the columns `seen`, in the units of X."""
        seen = np.arange(len(self.b)) if seen is None else seen
        scaling = self.model.scaling_
        covariance = self.w @ self.w.T + np.diag(self.noise)
        covariance = covariance * np.outer(scaling.scale, scaling.scale)
        mean = scaling.center + scaling.scale * self.b
        return stats.multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)])

    def rows(self, n: int) -> np.ndarray:
        return self.exact().rvs(n, random_state=np.random.default_rng(1)).reshape(n, -1)


ONE_FACTOR = [[0.9], [-0.6], [0.5]]
TWO_FACTORS = [[0.9, 0.2], [-0.6, 0.5], [0.5, 0.5], [0.1, -0.7]]


@pytest.mark.parametrize("draws", [1, 8])
def test_with_the_exact_posterior_every_draw_gives_the_exact_density(draws: int) -> None:
    case = LinearCase(ONE_FACTOR, draws)
    rows = case.rows(500)

    gap = case.exact().logpdf(rows) - case.model.score_samples(rows)

    assert np.abs(gap).max() <= 1e-4


def test_with_a_mean_field_posterior_64_draws_come_within_a_hundredth_of_a_nat() -> None:
    case = LinearCase(TWO_FACTORS, draws=64)
    rows = case.rows(2000)

    gap = case.exact().logpdf(rows) - case.model.score_samples(rows)

    off_diagonal = case.precision[0, 1] / np.sqrt(np.prod(np.diag(case.precision)))
    assert abs(off_diagonal) > 0.05  # else the mean-field posterior would be exact
    assert abs(gap.mean()) <= 0.01


def test_the_loss_of_a_mean_field_posterior_misses_by_its_divergence_in_closed_form() -> None:
    case = LinearCase(TWO_FACTORS, draws=1)
    rows = case.rows(40_000)
    batch = torch.tensor(case.model.scaling_.apply(rows))

    loss = case.model.network_.loss(batch, torch.Generator().manual_seed(0)).total.mean().item()

    in_units = np.log(case.model.scaling_.scale).sum()
    gap = case.exact().logpdf(rows).mean() + loss + in_units
    correlation = case.precision / np.sqrt(np.outer(*[np.diag(case.precision)] * 2))
    assert gap == pytest.approx(-0.5 * np.log(np.linalg.det(correlation)), abs=0.01)


def test_missing_cells_leave_the_exact_marginal_of_the_others() -> None:
    case = LinearCase(ONE_FACTOR, draws=8)
    rows = case.rows(300)
    rows[:, 1] = np.nan
    seen = np.array([0, 2])
    case.set_encoder(seen)

    gap = case.exact(seen).logpdf(rows[:, seen]) - case.model.score_samples(rows)

    assert np.abs(gap).max() <= 1e-4


def test_a_trained_linear_model_scores_by_its_own_exact_density() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2000, 2)) @ rng.normal(size=(2, 5)) + rng.normal(size=(2000, 5))
    model = a_small_model(hidden=(), latent=2, steps=800, learning_rate=0.03, draws=64).fit(rows)

    decoder, scale = model.network_.decoder, model.scaling_.scale
    noise = soft_clamp(decoder.bias[5:], *LOG_VARIANCE_RANGE).exp().numpy()
    w = decoder.skip[:5].numpy()
    covariance = (w @ w.T + np.diag(noise)) * np.outer(scale, scale)
    mean = model.scaling_.center + scale * decoder.bias[:5].numpy()
    exact = stats.multivariate_normal(mean, covariance).logpdf(rows)
    fitted = stats.multivariate_normal(rows.mean(0), np.cov(rows.T)).logpdf(rows)

    assert (exact - model.score_samples(rows)).mean() == pytest.approx(0.0, abs=0.01)
    assert exact.mean() == pytest.approx(fitted.mean(), abs=0.05)


def test_every_term_of_the_objective_can_move(mixed_model: TransactionVAE) -> None:
    fresh = mixed_model._new_network(torch.Generator().manual_seed(5)).double()
    batch = torch.tensor(mixed_model.scaling_.apply(mixed_rows(64)))
    weights = {"encoder": fresh.encoder.skip, "decoder": fresh.decoder.skip}

    loss = fresh.loss(batch, torch.Generator().manual_seed(0))

    terms = [loss.reconstruction[:, j].sum() for j in range(4)]
    for term in terms:
        gradients = torch.autograd.grad(term, [*weights.values()], retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
    (gradient,) = torch.autograd.grad(loss.divergence.sum(), [weights["encoder"]])
    assert gradient.abs().sum() > 0
    assert (loss.divergence > 0).all()


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_columns_that_move_together_keep_the_posterior_off_the_prior(beta: float) -> None:
    factor = np.random.default_rng(0).normal(size=(1000, 1))
    rows = factor + 0.3 * np.random.default_rng(1).normal(size=(1000, 4))
    model = a_small_model(beta=beta, steps=300).fit(rows)
    batch = torch.tensor(model.scaling_.apply(rows))

    loss = model.network_.loss(batch, torch.Generator().manual_seed(0))

    assert loss.divergence.mean() > 0.5
    torch.testing.assert_close(loss.total, loss.reconstruction.sum(1) + beta * loss.divergence)


def test_a_row_has_the_same_score_alone_and_in_any_batch(mixed_model: TransactionVAE) -> None:
    rows = mixed_rows(3000, seed=3)

    together = mixed_model.score_samples(rows)

    alone = np.concatenate([mixed_model.score_samples(row[None]) for row in rows[:100]])
    backwards = mixed_model.score_samples(rows[::-1])[::-1]
    np.testing.assert_allclose(alone, together[:100], rtol=0, atol=1e-6)
    np.testing.assert_allclose(backwards, together, rtol=0, atol=1e-6)
    np.testing.assert_allclose(mixed_model.parts(rows)[0], together, rtol=0, atol=1e-9)


def test_the_parts_sum_to_the_score_and_a_missing_cell_is_no_surprise(
    mixed_model: TransactionVAE,
) -> None:
    rows = mixed_rows(500, seed=4)

    parts = mixed_model.parts(rows)

    total = parts.surprise.sum(1) + parts.latent
    np.testing.assert_allclose(total, -parts.log_likelihood, rtol=0, atol=1e-5)
    assert (parts.surprise[np.isnan(rows[:, :4])] == 0).all()


def test_the_cell_that_is_out_of_place_has_the_greatest_surprise(
    mixed_model: TransactionVAE,
) -> None:
    rows = mixed_rows(400, seed=5)
    rows = rows[~np.isnan(rows).any(1)]
    usual = np.median(mixed_model.parts(rows).surprise, axis=0)
    changed = rows.copy()
    changed[:, 0] += 60.0 * np.where(rows[:, 4] > 0, -1, 1)

    surprise = mixed_model.parts(changed).surprise - usual

    assert (surprise.argmax(1) == 0).mean() > 0.9
    assert (mixed_model.score_samples(changed) < mixed_model.score_samples(rows)).all()


def test_the_density_of_one_column_integrates_to_one_for_each_context() -> None:
    rng = np.random.default_rng(0)
    context = rng.normal(size=1500)
    amount = np.where(rng.random(1500) < 0.5, 10 * context, 30 + rng.gamma(2.0, 5.0, 1500))
    rows = np.column_stack([amount, context])
    model = a_small_model(n_context=1, steps=400, draws=128).fit(rows)
    grid = np.linspace(-400, 500, 9001)

    for value in (-2.0, 0.0, 1.5):
        density = np.exp(model.score_samples(np.column_stack([grid, np.full(9001, value)])))
        assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=0.02)


def test_the_density_of_two_columns_integrates_to_one_and_to_the_marginal() -> None:
    rng = np.random.default_rng(0)
    first = rng.gamma(3.0, size=1500)
    rows = np.column_stack([first, np.sin(first) + 0.3 * rng.normal(size=1500)])
    rows[rng.random(1500) < 0.3, 1] = np.nan
    model = a_small_model(steps=400, draws=128).fit(rows)
    x, y = np.linspace(-8, 20, 281), np.linspace(-6, 6, 161)
    pairs = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)

    density = np.exp(model.score_samples(pairs)).reshape(281, 161)
    marginal = np.exp(model.score_samples(np.column_stack([x, np.full(281, np.nan)])))

    along = np.trapezoid(density, y, axis=1)
    assert np.trapezoid(along, x) == pytest.approx(1.0, abs=0.03)
    assert np.trapezoid(np.abs(along - marginal), x) < 0.05


def test_samples_refit_to_the_same_density() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=4000)
    curve = np.column_stack([first, first**2 + 0.4 * rng.normal(size=4000)])
    shape = {"steps": 500, "hidden": (32,), "draws": 32}
    model = a_small_model(**shape).fit(curve[:2000])

    again = a_small_model(**shape).fit(model.sample(4000, random_state=1))

    assert again.score(curve[2000:]) == pytest.approx(model.score(curve[2000:]), abs=0.1)
    normal = stats.multivariate_normal(curve.mean(0), np.cov(curve.T)).logpdf(curve[2000:]).mean()
    assert again.score(curve[2000:]) > normal + 0.2


def test_level_frequencies_are_recovered_for_each_context() -> None:
    rng = np.random.default_rng(0)
    half = rng.integers(0, 2, 3000)
    shares = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    level = (rng.random(3000)[:, None] > shares[half].cumsum(1)).sum(1)
    rows = np.column_stack([level, half]).astype(float)
    model = a_small_model(kinds=["categorical:3", "categorical:2"], n_context=1, steps=400).fit(
        rows
    )

    table = model.level_probabilities([[0.0], [1.0]])

    counted = [[(level[half == h] == k).mean() for k in range(3)] for h in (0, 1)]
    assert list(table) == [0]
    np.testing.assert_allclose(table[0], counted, atol=0.03)
    np.testing.assert_allclose(table[0].sum(1), 1.0)


def test_expected_ranges_hold_the_share_of_rows_they_name() -> None:
    rng = np.random.default_rng(0)
    context = rng.normal(size=3000)
    amount = 100 + 20 * context**2 + rng.normal(size=3000) * (10 + 20 * (context > 0))
    count = rng.poisson(np.exp(1 + 0.5 * context))
    rows = np.column_stack([amount, count, np.zeros(3000), context])
    kinds = ["gaussian", "count", "categorical:2", "gaussian"]
    model = a_small_model(kinds=kinds, n_context=1, steps=600, latent=1).fit(rows)

    some = slice(800)
    expected = model.expected(context[some, None], quantiles=(0.1, 0.5, 0.9))

    assert expected.shape == (800, 3, 3)
    inside = (rows[some, :2] >= expected[:, :2, 0]) & (rows[some, :2] <= expected[:, :2, 2])
    assert inside[:, 0].mean() == pytest.approx(0.8, abs=0.06)
    assert 0.75 < inside[:, 1].mean() < 0.95  # whole numbers: at least the share, less the fit
    assert (np.diff(expected[:, :2], axis=2) >= 0).all()
    assert np.isnan(expected[:, 2]).all()
    assert (expected[:, 1] == np.floor(expected[:, 1])).all()
    np.testing.assert_array_equal(expected, model.expected(context[some, None], (0.1, 0.5, 0.9)))


def test_expected_ranges_without_context_are_the_quantiles_of_the_exact_marginal() -> None:
    case = LinearCase(TWO_FACTORS, draws=8)

    expected = case.model.expected(np.empty((1, 0)), quantiles=(0.05, 0.5, 0.95))[0]

    exact = case.exact()
    deviation = np.sqrt(np.diag(exact.cov))
    known = exact.mean[:, None] + deviation[:, None] * stats.norm.ppf([0.05, 0.5, 0.95])
    np.testing.assert_allclose((expected - known) / deviation[:, None], 0.0, atol=0.05)


def test_arrays_are_numbers_and_bring_back_the_same_scores(mixed_model: TransactionVAE) -> None:
    rows = mixed_rows(300, seed=6)

    arrays = mixed_model.to_arrays()
    again = TransactionVAE.from_arrays(arrays)

    assert all(array.dtype.kind in "fiub" for array in arrays.values())
    np.testing.assert_array_equal(again.score_samples(rows), mixed_model.score_samples(rows))
    np.testing.assert_array_equal(again.predict(rows), mixed_model.predict(rows))
    np.testing.assert_array_equal(again.expected(rows[:5, 4:]), mixed_model.expected(rows[:5, 4:]))
    second = again.to_arrays()
    assert second.keys() == arrays.keys()
    assert all(np.array_equal(second[name], arrays[name]) for name in arrays)


def test_arrays_of_another_format_are_refused(mixed_model: TransactionVAE) -> None:
    arrays = mixed_model.to_arrays()
    header = arrays["header"].tobytes().replace(b'"format": 1', b'"format": 7')

    with pytest.raises(ValueError, match="format 7, expected 1"):
        TransactionVAE.from_arrays(arrays | {"header": np.frombuffer(header, np.uint8)})


def test_names_of_features_survive_in_arrays() -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["amount", "gap"])
    model = a_small_model(steps=5).fit(frame)

    again = TransactionVAE.from_arrays(model.to_arrays())

    np.testing.assert_array_equal(again.score_samples(frame), model.score_samples(frame))
    with pytest.raises(ValueError, match="feature names should match"):
        again.score_samples(frame[["gap", "amount"]])


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_one_alone() -> None:
    rows, shape = mixed_rows(200), {"kinds": MIXED, "n_context": 2, "steps": 20}
    state = torch.get_rng_state(), np.random.get_state()[1].copy()

    first, second = (a_small_model(**shape, random_state=7).fit(rows) for _ in range(2))
    other = a_small_model(**shape, random_state=8).fit(rows)

    np.testing.assert_array_equal(first.score_samples(rows), second.score_samples(rows))
    assert not np.allclose(first.score_samples(rows), other.score_samples(rows))
    drawn = [first.sample(3, rows[:2, 4:], random_state=s) for s in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert torch.equal(state[0], torch.get_rng_state())
    np.testing.assert_array_equal(state[1], np.random.get_state()[1])


def test_the_density_is_in_the_units_of_the_columns() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 3))
    in_units = (
        rows * 1024.0
    )  # a power of two leaves the standardised numbers as they are, bit for bit

    scores = a_small_model(n_context=1).fit(rows).score_samples(rows)
    scores_in_units = a_small_model(n_context=1).fit(in_units).score_samples(in_units)

    np.testing.assert_allclose(scores - scores_in_units, 2 * np.log(1024.0), atol=1e-9)


def test_a_hole_that_training_never_saw_has_no_arbitrary_effect() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 3))
    model = a_small_model(n_context=2).fit(rows)
    at_mean = np.column_stack([rows[:, 0], np.tile(rows[:, 1:].mean(0), (500, 1))])
    hollow = np.column_stack([rows[:, 0], np.full((500, 2), np.nan)])

    np.testing.assert_allclose(model.score_samples(hollow), model.score_samples(at_mean), atol=1e-6)


def test_absurd_cells_and_constant_columns_stay_finite() -> None:
    rows = np.column_stack([np.random.default_rng(0).normal(size=100), np.full(100, 3.0)])
    model = a_small_model(steps=20).fit(rows)

    scores = model.score_samples([[1e12, 3.0], [1e300, 3.0], [0.0, -1e12], [np.nan, np.nan]])

    assert np.isfinite(scores).all()
    assert scores[3] == pytest.approx(0.0, abs=0.5)  # nothing seen: the density of nothing is 1


def test_samples_are_rows_that_the_model_accepts(mixed_model: TransactionVAE) -> None:
    context = mixed_rows(3)[:, 4:]

    drawn = mixed_model.sample(400, context, random_state=0)

    assert drawn.shape == (1200, 6)
    np.testing.assert_array_equal(drawn[::400, 4:], context)
    assert np.isfinite(mixed_model.score_samples(drawn)).all()


def test_the_offset_leaves_the_asked_share_outside() -> None:
    rows = np.random.default_rng(0).normal(size=(400, 2))

    model = a_small_model(contamination=0.1).fit(rows)

    assert (model.predict(rows) == -1).sum() == 40
    np.testing.assert_allclose(
        model.decision_function(rows), model.score_samples(rows) - model.offset_
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kinds": ["gaussian"]}, "kinds names 1 columns, but X has 2"),
        ({"kinds": ["gaussian", "ordinal"]}, "unknown kind of column 'ordinal'"),
        ({"kinds": ["count", "categorical:2"]}, r"column 0 \(count\).*-1; column 1.*code of 5"),
        ({"n_context": 2}, "n_context=2 leaves no focal column of the 2 columns"),
        ({"draws": 0}, "draws must be positive, got 0"),
        ({"beta": -0.5}, "beta must be positive, got -0.5"),
        ({"trim": 1.5}, r"trim must be a share in \[0, 1\), got 1.5"),
    ],
)
def test_parameters_that_do_not_fit_the_rows_are_refused(
    parameters: dict[str, object], message: str
) -> None:
    rows = np.array([[-1.0, 5.0], [0.5, 1.0], [2.0, 0.0]])

    with pytest.raises(ValueError, match=message):
        a_small_model(**parameters).fit(rows)


def test_a_context_of_the_wrong_width_is_refused(mixed_model: TransactionVAE) -> None:
    with pytest.raises(ValueError, match=r"context has 3 columns.*n_context=2"):
        mixed_model.expected(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"context has 0 columns.*n_context=2"):
        mixed_model.sample(2)
    with pytest.raises(ValueError, match="n_samples must be at least 1, got 0"):
        mixed_model.sample(0, np.zeros((1, 2)))


def wide_rows(n: int = 400, seed: int = 0) -> np.ndarray:
    """Eight columns that are one factor and noise, and a few rows beside it."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 1)) + 0.4 * rng.normal(size=(n, 8))
    rows[:10] = rng.uniform(-6, 6, size=(10, 8))
    return 5.0 + 3.0 * rows


@pytest.fixture(scope="module")
def wide_model() -> TransactionVAE:
    return a_small_model(steps=150, panel=True).fit(wide_rows())


def test_the_panel_only_lowers_the_density_of_the_network(wide_model: TransactionVAE) -> None:
    rows = wide_rows(seed=1)
    alone = a_small_model(steps=150).fit(wide_rows())

    joint, network = wide_model.score_samples(rows), alone.score_samples(rows)

    assert (joint <= network).all()
    assert 0.05 < (joint < network).mean() < 1.0
    assert joint[:10].max() < np.median(joint[10:])


def test_with_a_panel_the_parts_still_sum_to_the_score(wide_model: TransactionVAE) -> None:
    rows = wide_rows(seed=1)
    rows[::7, 2] = np.nan

    parts = wide_model.parts(rows)

    total = parts.surprise.sum(1) + parts.latent
    np.testing.assert_allclose(total, -parts.log_likelihood, rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        parts.log_likelihood, wide_model.score_samples(rows), rtol=0, atol=1e-9
    )
    assert (parts.surprise[np.isnan(rows)] == 0).all()


def test_a_row_with_a_missing_cell_is_left_to_the_network(wide_model: TransactionVAE) -> None:
    alone = a_small_model(steps=150).fit(wide_rows())
    rows = wide_rows(seed=1)
    rows[:, 3] = np.nan

    np.testing.assert_array_equal(wide_model.score_samples(rows), alone.score_samples(rows))


def test_a_panel_survives_in_arrays(wide_model: TransactionVAE) -> None:
    rows = wide_rows(seed=2)

    again = TransactionVAE.from_arrays(wide_model.to_arrays())

    np.testing.assert_array_equal(again.score_samples(rows), wide_model.score_samples(rows))
    np.testing.assert_array_equal(again.parts(rows).surprise, wide_model.parts(rows).surprise)


@pytest.mark.parametrize(
    "shape",
    [{"n_context": 1}, {"kinds": ["count", *["gaussian"] * 7]}, {"panel": False}],
    ids=["context", "mixed kinds", "switched off"],
)
def test_other_tables_have_no_panel(shape: dict[str, object]) -> None:
    rows = np.abs(np.round(wide_rows()))

    small = {"hidden": (8,), "steps": 2, "random_state": 0}
    assert TransactionVAE(**small, **shape).fit(rows).panel_ is None
    assert TransactionVAE(**small).fit(rows).panel_ is not None
    assert TransactionVAE(**small).fit(rows[:, :2]).panel_ is None


def test_training_holds_out_rows_and_reports_their_likelihood() -> None:
    rows = mixed_rows(1000)
    settings = {"hidden": (16,), "steps": 100}

    model, diagnostics = train(rows, MIXED, 2, settings, np.random.default_rng(0))
    _, again = train(rows, MIXED, 2, settings, np.random.default_rng(0))

    assert (diagnostics["rows"], diagnostics["held_out_rows"], diagnostics["steps"]) == (
        950,
        50,
        100,
    )
    assert diagnostics["held_out_log_likelihood"] == pytest.approx(model.score(rows), abs=1.0)
    assert diagnostics["loss_curve"][-1] < diagnostics["loss_curve"][0]
    assert diagnostics == again


def test_too_few_rows_to_hold_any_out_leave_no_figure() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 1))

    _, diagnostics = train(rows, ["gaussian"], 0, {"steps": 5}, np.random.default_rng(0))

    assert diagnostics["held_out_rows"] == 0
    assert diagnostics["held_out_log_likelihood"] is None


def test_a_clone_has_equal_parameters_and_no_fit(mixed_model: TransactionVAE) -> None:
    copy = clone(mixed_model)

    assert copy.get_params() == mixed_model.get_params()
    assert not hasattr(copy, "network_")


def test_the_package_loads_without_torch() -> None:
    code = "import sys, fraudwatch; assert 'torch' not in sys.modules; fraudwatch.TransactionVAE"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


SMALL = TransactionVAE(hidden=(8,), steps=20, draws=4)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param((estimator, check), id=check.func.__name__)
        for estimator, check in estimator_checks_generator(SMALL)
        if check.func.__name__ != "check_array_api_input"  # needs a library switched on globally
    ],
)
def test_the_estimator_keeps_the_conventions_of_scikit_learn(check: tuple) -> None:
    estimator, law = check

    law(estimator)
