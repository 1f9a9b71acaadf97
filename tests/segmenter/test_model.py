"""The estimator against closed forms, laws and planted parameters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, multivariate_t
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from segmenter import SegmentMixture
from segmenter.families import FAMILIES


def three_groups(n: int = 600, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), n // 3)
    means = 6 * np.eye(3, d)
    spread = np.tril(generator.uniform(0.2, 0.8, (3, d, d))) + 0.5 * np.eye(d)
    noise = generator.standard_normal((len(labels), d))
    return means[labels] + np.einsum("nij,nj->ni", spread[labels], noise), labels


# scikit-learn fits 27 rows of 30 columns there; a mixture of fewer rows than columns is refused.
REFUSED = {"check_sample_weight_equivalence_on_dense_data": "fewer rows than columns"}


def test_it_is_a_scikit_learn_estimator() -> None:
    results = check_estimator(
        SegmentMixture(max_components=3),
        on_skip=None,
        on_fail=None,
        expected_failed_checks=REFUSED,
    )

    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in results) > 30


@pytest.mark.parametrize("tails", ["gaussian", "t"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_is_that_of_scipy(family: str, tails: str) -> None:
    x, _ = three_groups()
    mixture = SegmentMixture(3, family, tails, random_state=0).fit(x)

    components = zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True)
    if tails == "t":
        degrees = mixture.degrees_of_freedom_[0]
        expected = sum(w * multivariate_t(m, c, df=degrees).pdf(x) for w, m, c in components)
    else:
        expected = sum(w * multivariate_normal(m, c).pdf(x) for w, m, c in components)

    np.testing.assert_allclose(mixture.score_samples(x), np.log(expected), atol=1e-9)
    assert mixture.log_likelihood_ == pytest.approx(np.log(expected).sum(), abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_integrates_to_one(family: str) -> None:
    x = three_groups(d=2)[0]
    mixture = SegmentMixture(3, family, random_state=0).fit(x)
    axis = np.linspace(-12, 18, 601)

    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    total = np.exp(mixture.score_samples(grid)).sum() * (axis[1] - axis[0]) ** 2

    assert total == pytest.approx(1, abs=1e-6)


def test_far_rows_have_finite_densities() -> None:
    mixture = SegmentMixture(3, "full", "gaussian", random_state=0).fit(three_groups()[0])

    scores = mixture.score_samples(np.full((1, 3), 1e6))

    assert np.isfinite(scores).all()
    assert scores[0] < -1e9


def test_scores_do_not_depend_on_the_batch() -> None:
    x, _ = three_groups(n=9_000)
    mixture = SegmentMixture(3, "full", "gaussian", random_state=0).fit(x)

    alone = np.concatenate([mixture.score_samples(row[None]) for row in x[::500]])

    np.testing.assert_allclose(mixture.score_samples(x)[::500], alone, atol=1e-9)


def test_planted_parameters_are_found_again_without_their_number() -> None:
    x, labels = three_groups(n=6_000)

    mixture = SegmentMixture(random_state=0).fit(x)

    assert (mixture.n_components_, mixture.covariance_type_) == (3, "VVV")
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


def test_rows_beyond_the_screen_are_noise_and_ordinary_ones_are_not() -> None:
    x, labels = three_groups(n=1_500)
    generator = np.random.default_rng(1)
    far = x.mean(axis=0) + 60 * generator.standard_normal((30, 3))
    stray = generator.uniform(x.min(axis=0) - 3, x.max(axis=0) + 3, (30, 3))

    mixture = SegmentMixture(noise=True, max_components=5, random_state=0)
    predicted = mixture.fit(np.concatenate([x, far, stray])).predict(x)

    assert mixture.n_components_ == 3
    assert adjusted_rand_score(labels[predicted >= 0], predicted[predicted >= 0]) > 0.99
    assert (predicted == -1).mean() < 0.01
    assert (mixture.predict(far) == -1).mean() > 0.9
    assert 0 < mixture.noise_weight_ < 0.05


def test_with_noise_posteriors_leave_room_for_it_and_terms_add_up() -> None:
    x, _ = three_groups()
    mixture = SegmentMixture(3, "full", "gaussian", noise=True, random_state=0).fit(x)

    terms, posterior = mixture.log_terms(x), mixture.predict_proba(x)

    assert terms.shape == (600, 4)
    assert mixture.noise_log_density_ is not None
    expected = np.log(mixture.noise_weight_) + mixture.noise_log_density_
    np.testing.assert_allclose(terms[:, -1], expected)
    noise = np.exp(terms[:, -1] - mixture.score_samples(x))
    np.testing.assert_allclose(posterior.sum(axis=1), 1 - noise, atol=1e-12)


def test_groups_are_found_where_a_third_of_the_cells_is_missing() -> None:
    x, labels = three_groups(n=900, d=4)
    holes = np.random.default_rng(0).random(x.shape) < 0.3
    kept = holes.sum(axis=1) < 4

    mixture = SegmentMixture(max_components=4, covariance_type="full", random_state=0)
    mixture.fit(np.where(holes, np.nan, x)[kept])

    assert mixture.n_components_ == 3
    assert adjusted_rand_score(labels, mixture.predict(x)) > 0.99


def test_a_row_of_weight_two_counts_as_the_row_twice() -> None:
    x, _ = three_groups(n=300)
    weights = np.random.default_rng(0).integers(0, 3, len(x))
    settings = {"max_components": 4, "covariance_type": "full", "random_state": 0}

    weighted = SegmentMixture(**settings).fit(x, sample_weight=weights)
    repeated = SegmentMixture(**settings).fit(np.repeat(x, weights, axis=0))

    np.testing.assert_allclose(weighted.score_samples(x), repeated.score_samples(x), atol=1e-6)


@pytest.mark.parametrize("noise", [False, True])
def test_batches_give_the_fit_of_all_rows(noise: bool) -> None:
    x, _ = three_groups(n=6_000)
    settings = {"covariance_type": "full", "tails": "gaussian", "noise": noise, "tol": 1e-9}

    whole = SegmentMixture(3, random_state=0, **settings).fit(x)
    apart = SegmentMixture(3, random_state=0, **settings).fit_batches(np.array_split(x, 9))

    assert apart.n_components_ == 3
    np.testing.assert_allclose(apart.score_samples(x), whole.score_samples(x), atol=0.02)
    assert apart.log_likelihood_ == pytest.approx(whole.log_likelihood_, rel=1e-3)


def test_weighted_batches_count_as_weighted_rows() -> None:
    x, _ = three_groups(n=900)
    weights = np.random.default_rng(0).uniform(0.5, 2, len(x))
    settings = {"covariance_type": "full", "tails": "gaussian", "random_state": 0, "tol": 1e-9}

    whole = SegmentMixture(3, **settings).fit(x, sample_weight=weights)
    apart = SegmentMixture(3, **settings).fit_batches(
        np.array_split(x, 4), np.array_split(weights, 4)
    )

    np.testing.assert_allclose(apart.score_samples(x), whole.score_samples(x), atol=1e-3)


def test_a_start_keeps_the_order_and_the_shape_of_its_components() -> None:
    first = SegmentMixture(max_components=4, random_state=0).fit(three_groups()[0])
    later, _ = three_groups(seed=1)

    warm = SegmentMixture(start=first, random_state=5).fit(later)

    assert (warm.covariance_type_, warm.tails_) == (first.covariance_type_, first.tails_)
    np.testing.assert_allclose(warm.means_, first.means_, atol=0.5)
    assert [c["n_components"] for c in warm.scan_] == [3]
    cloned = clone(SegmentMixture(start=first.to_arrays(), random_state=5)).fit(later)
    np.testing.assert_array_equal(cloned.means_, warm.means_)


def test_heavy_tails_are_chosen_for_heavy_tailed_groups_and_only_there() -> None:
    x, labels = three_groups(n=1_500)
    generator = np.random.default_rng(2)
    pull = np.sqrt(generator.chisquare(4, len(x)) / 4)[:, None]
    centre = np.array([x[labels == label].mean(axis=0) for label in range(3)])[labels]
    heavy = 3 * centre + (x - centre) / pull

    found = SegmentMixture(max_components=5, random_state=0).fit(heavy)
    light = SegmentMixture(max_components=5, random_state=0).fit(x)

    assert (found.n_components_, found.tails_) == (3, "t")
    assert found.degrees_of_freedom_ is not None
    assert found.degrees_of_freedom_[0] == pytest.approx(4, rel=0.35)
    assert light.tails_ == "gaussian"
    drawn, _ = found.sample(20_000)
    np.testing.assert_allclose(np.median(drawn, axis=0), np.median(heavy, axis=0), atol=0.8)


@pytest.mark.parametrize("settings", [{"tails": "t"}, {"noise": True}])
def test_tails_and_noise_are_kept_in_the_arrays(settings: dict[str, object]) -> None:
    x, _ = three_groups()
    mixture = SegmentMixture(3, "full", random_state=0, **settings).fit(x)

    again = SegmentMixture.from_arrays(mixture.to_arrays())

    np.testing.assert_array_equal(mixture.log_terms(x), again.log_terms(x))
