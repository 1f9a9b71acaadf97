"""Each likelihood against scipy's density of the same distribution, and the laws all must keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fraudwatch.likelihoods import (
    LOG_VARIANCE_RANGE,
    NumericLikelihood,
    blocks_of,
    likelihood_of,
    mixture_quantile,
    soft_clamp,
)

KINDS = ["gaussian", "student", "count", "categorical:4"]
NUMERIC = ["gaussian", "student", "count"]


def some_parameters(kind: str, n: int = 50, seed: int = 0) -> torch.Tensor:
    """(n, n_parameters, 1), moderate values."""
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(0.5, 0.8, size=(n, likelihood_of(kind).n_parameters, 1)))


def scipy_log_density(kind: str, parameters: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The same densities from scipy, with parameters (n, P) whose soft limits play no part."""
    if kind == "gaussian":
        return stats.norm.logpdf(x, parameters[:, 0], np.exp(parameters[:, 1] / 2))
    if kind == "student":
        freedom = 2 + np.log1p(np.exp(parameters[:, 2]))
        return stats.t.logpdf(x, freedom, parameters[:, 0], np.exp(parameters[:, 1] / 2))
    if kind == "count":
        mean, size = np.exp(parameters[:, 0]), np.exp(parameters[:, 1])
        return stats.nbinom.logpmf(x, size, size / (size + mean))
    share = np.exp(parameters) / np.exp(parameters).sum(1, keepdims=True)
    return np.log(share[np.arange(len(x)), x.astype(int)])


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_is_the_density_of_scipy(kind: str) -> None:
    parameters = some_parameters(kind)
    x = np.random.default_rng(1).integers(0, 4, size=50).astype(float)

    log_prob = likelihood_of(kind).log_prob(parameters, torch.tensor(x)[:, None])

    expected = scipy_log_density(kind, parameters[..., 0].numpy(), x)
    # The soft limits of the log variance move it by up to 0.03 at these parameters.
    np.testing.assert_allclose(log_prob[:, 0].numpy(), expected, atol=0.05, rtol=0.02)


def test_a_gaussian_of_known_variance_is_exact() -> None:
    parameters = torch.tensor([[1.5], [0.7]], dtype=torch.float64)
    log_variance = float(soft_clamp(torch.tensor(0.7, dtype=torch.float64), *LOG_VARIANCE_RANGE))

    log_prob = likelihood_of("gaussian").log_prob(parameters, torch.tensor([3.0]).double())

    exact = stats.norm.logpdf(3.0, 1.5, np.exp(log_variance / 2))
    assert log_prob.item() == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("kind", ["count", "categorical:4"])
def test_the_mass_of_discrete_values_sums_to_one(kind: str) -> None:
    values = torch.arange(4.0 if kind != "count" else 5000.0, dtype=torch.float64)
    parameters = some_parameters(kind, n=5).unsqueeze(1)  # (5, 1, P, 1)

    mass = likelihood_of(kind).log_prob(parameters, values[None, :, None]).exp().sum(1)

    np.testing.assert_allclose(mass.numpy(), 1.0, atol=1e-9)


@pytest.mark.parametrize("kind", ["gaussian", "student"])
def test_the_density_of_continuous_values_integrates_to_one(kind: str) -> None:
    grid = torch.linspace(-400, 400, 400_001, dtype=torch.float64)

    density = likelihood_of(kind).log_prob(some_parameters(kind, n=1), grid[:, None]).exp()

    assert np.trapezoid(density[:, 0].numpy(), grid.numpy()) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_cell_adds_nothing_and_stops_no_gradient(kind: str) -> None:
    parameters = some_parameters(kind, n=2).requires_grad_()
    x = torch.tensor([[float("nan")], [1.0]], dtype=torch.float64)

    log_prob = likelihood_of(kind).log_prob(parameters, x)
    log_prob.sum().backward()

    assert parameters.grad is not None
    assert log_prob[0].item() == 0.0
    assert (parameters.grad[0] == 0).all()
    assert parameters.grad[1].isfinite().all()
    assert (parameters.grad[1] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_samples_follow_the_density(kind: str) -> None:
    likelihood = likelihood_of(kind)
    parameters = some_parameters(kind, n=1).expand(40_000, -1, -1)

    drawn = likelihood.sample(parameters, torch.Generator().manual_seed(3))[:, 0]

    if isinstance(likelihood, NumericLikelihood):
        levels = likelihood.cdf(parameters[:3], torch.tensor([[0.0], [1.0], [3.0]]).double())[:, 0]
        shares = [(drawn <= value).double().mean().item() for value in (0.0, 1.0, 3.0)]
    else:
        levels = torch.softmax(parameters[0, :, 0], 0)
        shares = [(drawn == value).double().mean().item() for value in range(4)]
    np.testing.assert_allclose(shares, levels.numpy(), atol=0.01)


@pytest.mark.parametrize("kind", NUMERIC)
@pytest.mark.parametrize("level", [0.01, 0.3, 0.95])
def test_the_quantile_is_the_smallest_value_whose_cdf_reaches_the_level(
    kind: str, level: float
) -> None:
    likelihood, parameters = likelihood_of(kind), some_parameters(kind)
    assert isinstance(likelihood, NumericLikelihood)

    value = likelihood.quantile(parameters, torch.tensor([level], dtype=torch.float64))

    step = 1.0 if kind == "count" else 1e-6
    assert (likelihood.cdf(parameters, value) >= level - 1e-9).all()
    assert (likelihood.cdf(parameters, value - step) < level).all()


@pytest.mark.parametrize("kind", NUMERIC)
def test_the_quantile_of_a_mixture_splits_its_samples(kind: str) -> None:
    likelihood = likelihood_of(kind)
    assert isinstance(likelihood, NumericLikelihood)
    parameters = some_parameters(kind, n=16)
    parameters[:, 0] += torch.linspace(0, 2, 16)[:, None]

    value = mixture_quantile(likelihood, parameters.unsqueeze(0), 0.9)

    many = parameters.repeat(4000, 1, 1)
    drawn = likelihood.sample(many, torch.Generator().manual_seed(0))
    assert (drawn <= value).double().mean().item() >= 0.895
    assert (drawn < value).double().mean().item() <= 0.905


def test_training_starts_at_the_marginal_of_counts_and_levels() -> None:
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(3, 3 / (3 + 40), size=20_000).astype(float)
    codes = rng.choice(3, p=[0.7, 0.2, 0.1], size=20_000).astype(float)

    log_mean, log_size = likelihood_of("count").start(counts)
    logits = likelihood_of("categorical:3").start(codes)

    assert np.exp(log_mean) == pytest.approx(40, rel=0.05)
    assert np.exp(log_size) == pytest.approx(3, rel=0.1)
    np.testing.assert_allclose(np.exp(logits), [0.7, 0.2, 0.1], atol=0.02)


def test_constant_counts_have_a_finite_start() -> None:
    for value in (0.0, 7.0):
        assert np.isfinite(likelihood_of("count").start(np.full(10, value))).all()


@given(st.floats(-1e4, 1e4))
def test_the_soft_clamp_stays_in_its_range_and_is_the_identity_well_inside(x: float) -> None:
    clamped = float(soft_clamp(torch.tensor(x, dtype=torch.float64), -6.0, 6.0))

    assert -6.0 - 1e-2 <= clamped <= 6.0
    if abs(x) < 2:
        assert clamped == pytest.approx(x, abs=0.02)


def test_columns_of_one_kind_form_one_block() -> None:
    blocks = blocks_of(["gaussian", "categorical:3", "gaussian", "count"])

    assert [b.columns for b in blocks] == [[0, 2], [1], [3]]
    assert [b.outputs for b in blocks] == [slice(0, 4), slice(4, 7), slice(7, 9)]


@pytest.mark.parametrize("kind", ["normal", "categorical", "categorical:x", "gaussian:2"])
def test_an_unknown_kind_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown kind of column '{kind}'.*categorical:L"):
        likelihood_of(kind)


def test_a_categorical_column_needs_a_level() -> None:
    with pytest.raises(ValueError, match="at least 1 level, got 0"):
        likelihood_of("categorical:0")


@pytest.mark.parametrize(
    ("kind", "cells", "fault"),
    [
        ("count", [0.0, -2.0], "a count of -2"),
        ("count", [0.5], "a count of 0.5"),
        ("categorical:3", [3.0], "a level code of 3, expected 0 to 2"),
        ("categorical:3", [-1.0], "a level code of -1, expected 0 to 2"),
        ("categorical:3", [0.0, 2.0], None),
        ("gaussian", [-7.5], None),
    ],
)
def test_cells_that_cannot_be_are_named(kind: str, cells: list[float], fault: str | None) -> None:
    assert likelihood_of(kind).fault(np.array(cells)) == fault
