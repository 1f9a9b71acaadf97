"""EM against laws, closed forms, scipy and numerical integration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal, multivariate_t
from sklearn.mixture import GaussianMixture

from segmenter.em import (
    Batches,
    Parameters,
    Prior,
    Rows,
    SingularFitError,
    expectation,
    known_cells,
    log_prior,
    log_sum_exp,
    run_em,
)
from segmenter.families import ALIASES, FAMILIES, is_crossed


def a_mixture(family: str, k: int = 3, d: int = 2, seed: int = 0, degrees: float = 0) -> Parameters:
    """A mixture whose covariances are round where the family wants it, of unequal size."""
    generator = np.random.default_rng(seed)
    roots = generator.standard_normal((k, d, d)) + 1.5 * np.eye(d)
    covariances = roots @ np.swapaxes(roots, 1, 2) if is_crossed(family) else np.eye(d) + 0 * roots
    return Parameters(
        family,
        generator.dirichlet(np.full(k, 5.0)),
        3 * generator.standard_normal((k, d)),
        covariances,
        np.full(k, degrees) if degrees else None,
    )


def drawn(n: int = 300, d: int = 2, seed: int = 1) -> np.ndarray:
    """Skewed rows, like no mixture of the few parts that are fitted to them."""
    return np.random.default_rng(seed).gamma(2.0, size=(n, d)) @ (np.eye(d) + 0.3)


def with_holes(x: np.ndarray, share: float = 0.3, seed: int = 2) -> np.ndarray:
    holes = np.random.default_rng(seed).random(x.shape) < share
    return np.where(holes, np.nan, x)


def component_logs(parameters: Parameters, x: np.ndarray, columns: list[int]) -> np.ndarray:
    """Log of weight times density of the known columns by scipy, (n, K)."""
    logs = []
    for k, weight in enumerate(parameters.weights):
        mean = parameters.means[k, columns]
        covariance = parameters.covariances[k][np.ix_(columns, columns)]
        law = multivariate_normal(mean, covariance)
        if parameters.degrees is not None:
            law = multivariate_t(mean, covariance, df=parameters.degrees[k])
        logs.append(np.log(weight) + law.logpdf(x[:, columns]).reshape(len(x)))
    return np.stack(logs, axis=1)


def log_likelihood(parameters: Parameters, x: np.ndarray, crossed: bool = True) -> float:
    return float(expectation(Rows(x, np.full(x.shape[1], 0.5), crossed), parameters)[0])


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    degrees=st.sampled_from([0.0, 6.0]),
    holes=st.sampled_from([0.0, 0.3]),
    strength=st.sampled_from([0.01, 2.0]),
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_objective_never_decreases(
    family: str, seed: int, degrees: float, holes: float, strength: float
) -> None:
    x = with_holes(drawn(120, seed=seed), holes, seed)
    rows = Rows(x, np.nanmean(x, axis=0), is_crossed(family))
    prior = Prior(np.eye(2), strength)

    fit = run_em(rows, a_mixture(family, seed=seed, degrees=degrees), prior, 25, 0.0)

    assert np.diff(fit.trace).min(initial=0.0) > -1e-7 * (1 + abs(fit.trace[-1]))


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("degrees", [0.0, 5.0])
@pytest.mark.parametrize("family", ["VVV", "VVI"])
def test_the_likelihood_of_known_cells_is_that_of_scipy(
    family: str, degrees: float, noise: float
) -> None:
    x = with_holes(drawn(60, 3))
    box = np.array([np.nanmin(x, axis=0), np.nanmax(x, axis=0)])
    parameters = a_mixture(family, d=3, degrees=degrees)
    parameters = replace(
        parameters,
        weights=parameters.weights * (1 - noise),
        noise_weight=noise,
        noise_box=box if noise else None,
    )

    expected = 0.0
    for row in x:
        columns = np.flatnonzero(~np.isnan(row)).tolist()
        total = 1.0 - noise
        if columns:
            total = np.exp(component_logs(parameters, row[None], columns)).sum()
        if noise:
            total += noise / np.prod(np.diff(box, axis=0)[0, columns])
        expected += np.log(total)

    assert log_likelihood(parameters, x, is_crossed(family)) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("degrees", [0.0, 4.0])
def test_a_missing_cell_is_integrated_out(degrees: float) -> None:
    parameters = a_mixture("VVV", d=3, degrees=degrees)
    row = np.array([[0.7, np.nan, -1.0]])

    def whole(missing: float) -> float:
        full = np.array([[row[0, 0], missing, row[0, 2]]])
        return float(np.exp(component_logs(parameters, full, [0, 1, 2])).sum())

    integral = quad(whole, -np.inf, np.inf, epsrel=1e-9)[0]

    assert np.exp(log_likelihood(parameters, row)) == pytest.approx(integral, rel=1e-6)


@pytest.mark.parametrize("degrees", [0.0, 6.0])
def test_statistics_of_missing_cells_are_those_of_draws(degrees: float) -> None:
    """Each missing cell drawn from its law given the known ones gives the same sums on average."""
    single = a_mixture("VVV", k=1, degrees=degrees)
    rows = np.array([[1.5, np.nan]] * 3)
    centre = np.zeros(2)

    statistics = expectation(Rows(rows, centre, True), single)[1]
    generator = np.random.default_rng(0)
    root = np.linalg.cholesky(single.covariances[0])
    slope = single.covariances[0, 0, 1] / single.covariances[0, 0, 0]
    mean = single.means[0, 1] + slope * (1.5 - single.means[0, 0])
    pull = statistics.pulled[0] / 3
    apart = 1.5 - single.means[0, 0]
    size = 400_000
    if degrees:
        distance = apart**2 / single.covariances[0, 0, 0]
        scale = generator.gamma(0.5 * (degrees + 1), 2 / (degrees + distance), size)
        assert scale.mean() == pytest.approx(pull, rel=0.01)
    else:
        scale = np.ones(size)
    second = mean + root[1, 1] * generator.standard_normal(size) / np.sqrt(scale)

    assert statistics.first[0, 1] == pytest.approx(3 * (scale * second).mean(), rel=0.02)
    assert statistics.second[0, 1, 1] == pytest.approx(3 * (scale * second**2).mean(), rel=0.02)
    assert statistics.second[0, 0, 1] == pytest.approx(3 * 1.5 * (scale * second).mean(), rel=0.02)


@pytest.mark.parametrize("theirs", ["full", "tied", "diag", "spherical"])
def test_without_a_prior_the_optimum_is_that_of_scikit_learn(theirs: str) -> None:
    x = drawn(400)
    reference = GaussianMixture(2, covariance_type=theirs, reg_covar=0, tol=1e-12, max_iter=3000)
    reference.set_params(random_state=0).fit(x)
    family = ALIASES[theirs]
    full = {
        "full": lambda c: c,
        "tied": lambda c: np.stack([c, c]),
        "diag": lambda c: c[:, None, :] * np.eye(2),
        "spherical": lambda c: c[:, None, None] * np.eye(2),
    }
    rows = Rows(x, x.mean(axis=0), is_crossed(family))
    start = Parameters(
        family, reference.weights_, reference.means_ + 0.1, full[theirs](reference.covariances_)
    )

    ours = run_em(rows, start, Prior(np.eye(2), 0.0), 3000, 1e-13)

    assert ours.log_likelihood / len(x) == pytest.approx(reference.score(x), abs=1e-8)


def test_one_pass_is_that_of_scikit_learn_to_nine_digits() -> None:
    x = drawn(5_000, 4)
    begun = GaussianMixture(3, reg_covar=0, random_state=0).fit(x)
    start = Parameters("VVV", begun.weights_, begun.means_, begun.covariances_)
    theirs = GaussianMixture(3, reg_covar=0, weights_init=begun.weights_, means_init=begun.means_)
    theirs.set_params(precisions_init=begun.precisions_, max_iter=1, tol=0)
    with pytest.warns(UserWarning, match="did not converge"):
        theirs.fit(x)

    ours = run_em(Rows(x, x.mean(axis=0), True), start, Prior(np.eye(4), 0.0), 1, -1.0)

    np.testing.assert_allclose(ours.parameters.covariances, theirs.covariances_, rtol=1e-9)
    assert ours.log_likelihood / len(x) == pytest.approx(theirs.score(x), abs=1e-9)


def test_planted_degrees_of_freedom_are_found_again() -> None:
    law = multivariate_t([1.0, -2.0], [[2.0, 0.5], [0.5, 1.0]], df=5)
    x = law.rvs(20_000, random_state=0)
    start = replace(a_mixture("VVV", k=1), degrees=np.array([20.0]))

    fit = run_em(Rows(x, x.mean(axis=0), True), start, Prior(np.eye(2), 0.0), 500, 1e-9)

    assert fit.parameters.degrees is not None
    assert fit.parameters.degrees[0] == pytest.approx(5, rel=0.1)
    np.testing.assert_allclose(fit.parameters.means, [[1, -2]], atol=0.04)
    np.testing.assert_allclose(fit.parameters.covariances[0], law.shape, atol=0.08)


def test_degrees_of_freedom_are_the_best_for_their_mean_and_scale() -> None:
    x = multivariate_t([0.0, 0.0], np.eye(2), df=4).rvs(3_000, random_state=1)
    start = replace(a_mixture("VVV", k=1), degrees=np.array([15.0]))
    end = run_em(Rows(x, x.mean(axis=0), True), start, Prior(np.eye(2), 0.0), 3000, 1e-12)

    law = multivariate_t(end.parameters.means[0], end.parameters.covariances[0])
    searched = minimize_scalar(
        lambda degrees: -law._dist.logpdf(x, law.loc, law.shape, df=degrees).sum(),
        bounds=(2, 50),
        method="bounded",
    )

    assert end.parameters.degrees is not None
    assert end.parameters.degrees[0] == pytest.approx(searched.x, rel=1e-2)


@pytest.mark.parametrize("degrees", [0.0, 5.0])
def test_a_row_of_weight_two_counts_as_two_rows(degrees: float) -> None:
    x = with_holes(drawn(100))
    weights = np.random.default_rng(0).integers(1, 4, len(x))
    centre, prior = np.nanmean(x, axis=0), Prior(np.eye(2), 0.1)
    start = a_mixture("VVV", degrees=degrees)

    weighted = run_em(Rows(x, centre, True, weights.astype(float)), start, prior, 30, 0.0)
    repeated = run_em(Rows(np.repeat(x, weights, axis=0), centre, True), start, prior, 30, 0.0)

    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, rel=1e-10)
    np.testing.assert_allclose(weighted.parameters.means, repeated.parameters.means, atol=1e-8)


def test_batches_give_the_pass_over_all_rows() -> None:
    x = with_holes(drawn(1_000, 3))
    centre, start = np.nanmean(x, axis=0), a_mixture("VVV", d=3, degrees=7.0)
    pieces = [(piece, None) for piece in np.array_split(x, 7)]
    batches = Batches(lambda: iter(pieces), centre, True, float(len(x)))

    apart = expectation(batches, start)
    whole = expectation(Rows(x, centre, True), start)

    assert apart[0] == pytest.approx(whole[0], rel=1e-12)
    np.testing.assert_allclose(apart[1].second, whole[1].second, rtol=1e-9)
    np.testing.assert_allclose(apart[1].tails, whole[1].tails, rtol=1e-9)


def test_starts_that_share_a_pass_do_not_know_of_each_other() -> None:
    x = with_holes(drawn(200))
    one, two = (a_mixture("VVV", seed=seed, degrees=5.0) for seed in (0, 1))
    together = replace(
        one,
        weights=np.stack([one.weights, two.weights]),
        means=np.stack([one.means, two.means]),
        covariances=np.stack([one.covariances, two.covariances]),
        degrees=np.full((2, 3), 5.0),
        noise_weight=np.zeros(2),
    )
    rows = Rows(x, np.nanmean(x, axis=0), True)

    likelihood, statistics = expectation(rows, together)

    for place, alone in enumerate((one, two)):
        expected = expectation(rows, alone)
        assert likelihood[place] == pytest.approx(expected[0], rel=1e-12)
        np.testing.assert_allclose(statistics.second[place], expected[1].second, rtol=1e-9)


def test_the_prior_is_an_inverse_wishart_density_up_to_a_constant() -> None:
    prior = Prior(np.array([[2.0, 0.3], [0.3, 1.0]]), 3.0)
    parameters = a_mixture("VVV")

    expected = sum(
        -0.5 * 3 * (np.log(np.linalg.det(s)) + np.trace(prior.shape @ np.linalg.inv(s)))
        for s in parameters.covariances
    )

    assert log_prior(parameters, prior) == pytest.approx(expected)


def test_rows_are_grouped_by_their_known_cells() -> None:
    x = np.array([[1, np.nan], [2, 3], [np.nan, np.nan], [4, np.nan]])

    groups = {columns: places.tolist() for columns, places in known_cells(x)}

    assert groups == {(0,): [0, 3], (0, 1): [1], (): [2]}


def test_posteriors_of_far_rows_are_finite() -> None:
    logs, posterior, indecision = log_sum_exp(np.array([[-1e300, 0.0], [-2e300, 0.0]]))

    np.testing.assert_allclose(logs, [-1e300, np.log(2)])
    np.testing.assert_allclose(posterior, [[1, 0.5], [0, 0.5]])
    np.testing.assert_allclose(indecision, -np.log(posterior.max(axis=0)))


def test_a_singular_covariance_is_told() -> None:
    flat = replace(a_mixture("VVV"), covariances=np.zeros((3, 2, 2)))

    with pytest.raises(SingularFitError, match="not positive definite"):
        log_likelihood(flat, drawn())
