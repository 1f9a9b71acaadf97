"""The mixture against closed forms, laws and planted parameters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.utils.estimator_checks import check_estimator

from segmenter import SegmentMixture
from segmenter.model import (
    FAMILIES,
    Parameters,
    Quadratics,
    is_crossed,
    log_prior,
    natural_parameters,
    parameter_count,
    prior_for,
    run_em,
)


def three_groups(n: int = 600, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), n // 3)
    means = 6 * np.eye(3, d)
    spread = np.tril(generator.uniform(0.2, 0.8, (3, d, d))) + 0.5 * np.eye(d)
    noise = generator.standard_normal((len(labels), d))
    return means[labels] + np.einsum("nij,nj->ni", spread[labels], noise), labels


def parameters_of(mixture: SegmentMixture) -> Parameters:
    return Parameters(
        mixture.covariance_type_, mixture.weights_, mixture.means_, mixture.covariances_
    )


def test_it_is_a_scikit_learn_estimator() -> None:
    results = check_estimator(SegmentMixture(), on_skip=None, on_fail=None)

    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in results) > 30


@pytest.mark.parametrize("family", FAMILIES)
def test_em_never_decreases_the_objective(family: str) -> None:
    x = np.random.default_rng(1).gamma(2.0, size=(400, 3))
    mixture = SegmentMixture(4, family, tol=1e-9, max_iter=200, random_state=0).fit(x)

    assert len(mixture.trace_) > 5
    assert np.diff(mixture.trace_).min() > -1e-8 * len(x)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_prior_em_never_decreases_the_likelihood(family: str) -> None:
    x, _ = three_groups()
    rows = Quadratics(x, x.mean(axis=0), is_crossed(family))
    prior = prior_for(np.cov(x.T), 2)
    start = SegmentMixture(2, family, max_iter=1, random_state=0).fit(x)
    nothing = type(prior)(prior.shape, 0.0)

    fit = run_em(rows, parameters_of(start), nothing, 40, 0.0)

    assert np.diff(fit.trace).min() > -1e-8 * len(x)
    assert fit.trace[-1] == fit.log_likelihood


@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_is_that_of_scipy(family: str) -> None:
    x, _ = three_groups()
    mixture = SegmentMixture(3, family, random_state=0).fit(x)

    expected = sum(
        weight * multivariate_normal(mean, covariance).pdf(x)
        for weight, mean, covariance in zip(
            mixture.weights_, mixture.means_, mixture.covariances_, strict=True
        )
    )

    np.testing.assert_allclose(mixture.score_samples(x), np.log(expected), atol=1e-9)
    assert mixture.log_likelihood_ == pytest.approx(np.log(expected).sum(), abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_prior_the_optimum_is_that_of_scikit_learn(family: str) -> None:
    x, _ = three_groups()
    theirs = GaussianMixture(3, covariance_type=family, reg_covar=0, tol=1e-12, max_iter=2000)
    theirs.set_params(random_state=0).fit(x)
    start = parameters_of(SegmentMixture(3, family, random_state=0).fit(x))
    rows = Quadratics(x, x.mean(axis=0), is_crossed(family))
    nothing = type(prior_for(np.cov(x.T), 3))(np.cov(x.T), 0.0)

    ours = run_em(rows, start, nothing, 2000, 1e-13)

    assert ours.log_likelihood / len(x) == pytest.approx(theirs.score(x), abs=1e-7)
    assert SegmentMixture.from_arrays(
        {
            "weights": ours.parameters.weights,
            "means": ours.parameters.means,
            "covariances": ours.parameters.covariances,
            "family": np.array([FAMILIES.index(family)]),
        }
    ).bic(x) == pytest.approx(theirs.bic(x), abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_integrates_to_one(family: str) -> None:
    x = three_groups(d=2)[0]
    mixture = SegmentMixture(3, family, random_state=0).fit(x)
    axis = np.linspace(-12, 18, 601)

    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    total = np.exp(mixture.score_samples(grid)).sum() * (axis[1] - axis[0]) ** 2

    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_m_step_is_the_maximum_of_the_penalised_likelihood(family: str) -> None:
    x = np.random.default_rng(3).standard_normal((60, 2)) @ np.array([[1.0, 0.4], [0.0, 2.0]])
    prior = prior_for(np.cov(x.T), 1)
    best = parameters_of(SegmentMixture(1, family, random_state=0).fit(x))
    rows = Quadratics(x, x.mean(axis=0), True)

    def objective(scale: float) -> float:
        moved = Parameters(family, best.weights, best.means, best.covariances * scale)
        full = Parameters("full", best.weights, best.means, best.covariances * scale)
        terms = natural_parameters(full, rows.centre)
        return sum(float((terms @ block).sum()) for block in rows) + log_prior(moved, prior)

    assert objective(1.0) > max(objective(0.98), objective(1.02))


def test_far_rows_have_finite_densities() -> None:
    mixture = SegmentMixture(3, "full", random_state=0).fit(three_groups()[0])

    scores = mixture.score_samples(np.full((1, 3), 1e6))

    assert np.isfinite(scores).all()
    assert scores[0] < -1e9


def test_scores_do_not_depend_on_the_batch() -> None:
    x, _ = three_groups(n=9_000)
    mixture = SegmentMixture(3, "full", random_state=0).fit(x)

    alone = np.concatenate([mixture.score_samples(row[None]) for row in x[::500]])

    np.testing.assert_allclose(mixture.score_samples(x)[::500], alone, atol=1e-9)


def test_planted_parameters_are_found_again_without_their_number() -> None:
    x, labels = three_groups(n=6_000)

    mixture = SegmentMixture(random_state=0).fit(x)

    assert (mixture.n_components_, mixture.covariance_type_) == (3, "full")
    assert adjusted_rand_score(labels, mixture.predict(x)) > 0.99
    for label in range(3):
        k = np.bincount(mixture.predict(x[labels == label])).argmax()
        np.testing.assert_allclose(mixture.means_[k], x[labels == label].mean(axis=0), atol=0.05)
        np.testing.assert_allclose(mixture.covariances_[k], np.cov(x[labels == label].T), atol=0.05)


def test_more_rows_than_the_scan_looks_at_are_polished_on_all() -> None:
    x, labels = three_groups(n=9_000)

    mixture = SegmentMixture(max_components=4, random_state=0).fit(x)

    assert mixture.n_components_ == 3
    assert mixture.log_likelihood_ == pytest.approx(mixture.score_samples(x).sum(), rel=1e-9)
    assert adjusted_rand_score(labels, mixture.predict(x)) > 0.99


def test_the_criterion_decides_and_icl_never_asks_for_more_on_iris() -> None:
    x, _ = load_iris(return_X_y=True)

    by_bic = SegmentMixture(criterion="bic", random_state=0).fit(x)
    by_icl = SegmentMixture(criterion="icl", random_state=0).fit(x)

    listed = [c["criterion"] for c in by_bic.scan_ if not c["refused"]]
    assert by_bic.bic(x) == pytest.approx(min(listed))
    assert by_icl.icl(x) == pytest.approx(
        min(c["criterion"] for c in by_icl.scan_ if not c["refused"])
    )
    assert by_icl.n_components_ <= by_bic.n_components_


@pytest.mark.parametrize(("family", "count"), [("full", 29), ("tied", 17), ("diag", 20)])
def test_parameters_are_counted_as_in_the_textbook(family: str, count: int) -> None:
    assert parameter_count(family, 3, 3) == count


def test_a_spike_is_refused_and_recorded_not_floored() -> None:
    generator = np.random.default_rng(0)
    x = np.concatenate([np.zeros((300, 2)), generator.normal(3, 1, (600, 2))])

    with pytest.raises(ValueError, match="sd at the floor"):
        SegmentMixture(2, "full", random_state=0).fit(x)
    automatic = SegmentMixture(covariance_type="full", max_components=4, random_state=0).fit(x)

    assert automatic.n_components_ == 1
    assert {c["n_components"] for c in automatic.scan_ if c["refused"]} >= {2, 3}


def test_constant_and_collinear_columns_are_refused_by_name() -> None:
    x = np.random.default_rng(0).standard_normal((50, 2))

    with pytest.raises(ValueError, match=r"columns \[1\] are constant"):
        SegmentMixture(1).fit(np.column_stack([x[:, 0], np.full(50, 7.0)]))
    with pytest.raises(ValueError, match="linear combinations"):
        SegmentMixture(1).fit(np.column_stack([x, x.sum(axis=1)]))


def test_a_component_under_the_smallest_share_is_refused() -> None:
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(0, 1, (990, 2)), generator.normal(30, 1, (10, 2))])

    free = SegmentMixture(random_state=0).fit(x)
    bound = SegmentMixture(max_components=2, min_share=0.05, random_state=0).fit(x)

    assert free.n_components_ == 2
    assert bound.n_components_ == 1
    assert any("share" in c["refused"] for c in bound.scan_)


@pytest.mark.parametrize("wrong", [{"n_components": 0}, {"n_components": 51}])
def test_impossible_numbers_of_components_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected 1 to 50"):
        SegmentMixture(**wrong).fit(np.random.default_rng(0).standard_normal((50, 2)))


def test_unknown_families_and_criteria_are_refused() -> None:
    x = np.random.default_rng(0).standard_normal((50, 2))

    with pytest.raises(ValueError, match="'round'"):
        SegmentMixture(covariance_type="round").fit(x)
    with pytest.raises(ValueError, match="'aic'"):
        SegmentMixture(criterion="aic").fit(x)


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_refit_to_the_same_density(family: str) -> None:
    mixture = SegmentMixture(3, family, random_state=0).fit(three_groups()[0])

    drawn, labels = mixture.sample(20_000)
    again = SegmentMixture(3, family, random_state=0).fit(drawn)

    np.testing.assert_allclose(np.bincount(labels) / 20_000, mixture.weights_, atol=0.02)
    gap = mixture.score_samples(drawn) - again.score_samples(drawn)
    assert abs(gap.mean()) < 0.005


def test_arrays_give_the_same_mixture_to_the_bit() -> None:
    x, _ = three_groups()
    mixture = SegmentMixture(random_state=0).fit(x)

    again = SegmentMixture.from_arrays(mixture.to_arrays())

    np.testing.assert_array_equal(mixture.score_samples(x), again.score_samples(x))
    np.testing.assert_array_equal(mixture.predict_proba(x), again.predict_proba(x))
    assert again.covariance_type_ == mixture.covariance_type_


def test_posteriors_are_probabilities() -> None:
    x, _ = three_groups()
    mixture = SegmentMixture(3, random_state=0).fit(x)

    posterior = mixture.predict_proba(x)

    np.testing.assert_allclose(posterior.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(posterior.argmax(axis=1), mixture.predict(x))
