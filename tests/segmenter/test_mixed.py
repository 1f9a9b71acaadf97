"""The mixture over columns of several kinds, against sums by hand, laws and planted segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import betabinom, multivariate_normal, nbinom
from sklearn.metrics import adjusted_rand_score

from segmenter import SegmentMixture

KINDS = ("continuous", "count", "share", "trials", "category", "semicontinuous")
TRIALS = {2: 3}
MEANS, RATES = np.array([0.0, 1.5, 3.0]), np.array([2.0, 6.0, 15.0])
SHARES, ZEROS = np.array([0.2, 0.7, 0.4]), np.array([0.7, 0.2, 0.4])


def some_rows(n: int = 900, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 6) of three segments, a column of each of KINDS, and the segments (n,)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=n)
    trials = generator.integers(1, 9, n)
    shares = generator.binomial(trials, generator.beta(8 * SHARES[labels], 8 - 8 * SHARES[labels]))
    spent = generator.normal(MEANS[labels] - 1, 0.7)
    columns = [
        generator.normal(MEANS[labels], 0.6),
        generator.poisson(RATES[labels]),
        shares / trials,
        trials,
        np.where(generator.random(n) < 0.8, labels, generator.integers(3, size=n)),
        np.where(generator.random(n) < ZEROS[labels], 0.0, spent),
    ]
    return np.column_stack(columns).astype(float), labels


def a_mixture(**settings: Any) -> SegmentMixture:
    given = {"n_components": 3, "covariance_type": "VVV", "tails": "gaussian", "random_state": 0}
    return SegmentMixture(kinds=KINDS, trials=TRIALS, **(given | settings))


def log_density_by_hand(mixture: SegmentMixture, row: np.ndarray) -> float:
    """Of one row without missing cells, from the laws of scipy."""
    arrays = mixture.to_arrays()
    at_zero = row[5] == 0
    places = [0] if at_zero else [0, 1]
    successes, trials = round(row[2] * row[3]), round(row[3])
    terms = []
    for k in range(mixture.n_components_):
        mean, covariance = mixture.means_[k][places], mixture.covariances_[k]
        rate, size = arrays["block.1.mean"][k], arrays["block.1.size"][k]
        share, spread = arrays["block.2.mean"][k], arrays["block.2.concentration"][k]
        level = np.flatnonzero(arrays["block.4.levels"] == row[4])[0]
        terms.append(
            np.log(mixture.weights_[k])
            + multivariate_normal(mean, covariance[np.ix_(places, places)]).logpdf(
                row[[0, 5]][places]
            )
            + nbinom(size, size / (size + rate)).logpmf(row[1])
            + betabinom(trials, share * spread, (1 - share) * spread).logpmf(successes)
            + np.log(arrays["block.4.probability"][k, level])
            + np.log(arrays["block.5.probability"][k, int(at_zero)])
        )
    return float(logsumexp(terms))


def test_the_density_is_the_product_of_the_kinds_laws() -> None:
    x, _ = some_rows()
    mixture = a_mixture().fit(x)

    scores = mixture.score_samples(x[:40])

    wanted = [log_density_by_hand(mixture, row) for row in x[:40]]
    np.testing.assert_allclose(scores, wanted, atol=1e-8)
    assert mixture.log_likelihood_ == pytest.approx(mixture.score_samples(x).sum(), abs=1e-6)


@pytest.mark.parametrize("settings", [{}, {"tails": "t"}, {"noise": True}], ids=str)
def test_em_never_decreases_the_objective(settings: dict[str, Any]) -> None:
    x, _ = some_rows(400)
    x[::7, 1] = x[::5, 2] = x[::11, 0] = x[::3, 4] = np.nan

    mixture = a_mixture(n_components=4, tol=1e-9, max_iter=100, **settings).fit(x)

    assert len(mixture.trace_) > 5
    assert np.diff(mixture.trace_).min() > -1e-8 * len(x)


def test_planted_segments_are_found_and_their_number_too() -> None:
    x, labels = some_rows()

    mixture = a_mixture(n_components="auto", covariance_type="VVI", max_components=6).fit(x)

    assert mixture.n_components_ == 3
    assert adjusted_rand_score(labels, mixture.predict(x)) > 0.9
    order = np.argsort(mixture.means_[:, 0])
    arrays = mixture.to_arrays()
    np.testing.assert_allclose(arrays["block.1.mean"][order], RATES, rtol=0.1)
    np.testing.assert_allclose(arrays["block.2.mean"][order], SHARES, atol=0.08)
    np.testing.assert_allclose(arrays["block.5.probability"][order, 1], ZEROS, atol=0.08)


def test_segments_that_differ_in_a_count_alone_are_found() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 300)
    x = np.column_stack(
        [generator.standard_normal(600), generator.poisson(np.array([1.0, 14.0])[labels])]
    )

    mixture = SegmentMixture(
        kinds=("continuous", "count"), covariance_type="EII", max_components=4, random_state=0
    ).fit(x)

    assert mixture.n_components_ == 2
    assert adjusted_rand_score(labels, mixture.predict(x)) > 0.95


def test_a_missing_count_is_summed_out() -> None:
    x, _ = some_rows()
    mixture = a_mixture().fit(x)
    row = x[:1].copy()
    every = np.repeat(row, 2_000, axis=0)
    every[:, 1] = np.arange(2_000)

    row[0, 1] = np.nan

    assert mixture.score_samples(row)[0] == pytest.approx(
        logsumexp(mixture.score_samples(every)), abs=1e-9
    )


def test_rows_without_any_discrete_cell_have_the_density_of_the_others() -> None:
    x, _ = some_rows()
    mixture = a_mixture().fit(x)
    alone = np.full_like(x, np.nan)
    alone[:, [0, 3]] = x[:, [0, 3]]

    means, variances = mixture.means_[:, 0], mixture.covariances_[:, 0, 0]
    terms = np.log(mixture.weights_ / np.sqrt(2 * np.pi * variances))
    by_hand = logsumexp(terms - (x[:, :1] - means) ** 2 / (2 * variances), axis=1)

    np.testing.assert_allclose(mixture.score_samples(alone), by_hand)


def test_a_row_of_weight_two_is_the_row_twice() -> None:
    x, _ = some_rows(300)
    twice = np.random.default_rng(1).random(300) < 0.5

    weighted = a_mixture(tol=1e-10).fit(x, sample_weight=1.0 + twice)
    repeated = a_mixture(tol=1e-10).fit(np.concatenate([x, x[twice]]))

    np.testing.assert_allclose(
        weighted.score_samples(x), repeated.score_samples(x), rtol=1e-4, atol=1e-4
    )


def test_batches_give_the_fit_of_all_rows() -> None:
    x, _ = some_rows(600)

    whole = a_mixture(tol=1e-10).fit(x)
    batched = a_mixture(tol=1e-10).fit_batches([x[:250], x[250:]])

    assert batched.log_likelihood_ == pytest.approx(whole.log_likelihood_, abs=1e-3)
    np.testing.assert_allclose(batched.score_samples(x), whole.score_samples(x), atol=1e-2)


def test_a_warm_start_goes_on_from_the_blocks_of_the_champion() -> None:
    x, _ = some_rows(600)
    champion = a_mixture(tol=1e-9).fit(x)
    later, _ = some_rows(600, seed=5)

    same = a_mixture(start=champion, tol=1e-9).fit(x)
    fresh = a_mixture(start=champion).fit(later)

    assert same.n_iter_ <= 2
    assert same.log_likelihood_ == pytest.approx(champion.log_likelihood_, abs=1e-4)
    assert (fresh.predict(x) == champion.predict(x)).mean() > 0.97


@pytest.mark.parametrize("noise", [False, True])
def test_a_mixture_comes_back_from_its_arrays(noise: bool) -> None:
    x, _ = some_rows(400)
    mixture = a_mixture(noise=noise).fit(x)

    again = SegmentMixture.from_arrays(mixture.to_arrays(), random_state=3)

    np.testing.assert_array_equal(again.log_terms(x), mixture.log_terms(x))
    assert again.bic(x) == mixture.bic(x)
    np.testing.assert_array_equal(
        again.sample(50)[0], mixture.set_params(random_state=3).sample(50)[0]
    )


def test_the_mean_score_of_draws_is_that_of_the_rows() -> None:
    x, _ = some_rows(3_000)
    mixture = a_mixture().fit(x)

    drawn, labels = mixture.sample(6_000)

    scores = mixture.score_samples(drawn)
    error = scores.std() / np.sqrt(len(scores))
    assert scores.mean() == pytest.approx(mixture.score(x), abs=4 * error)
    assert adjusted_rand_score(labels, mixture.predict(drawn)) > 0.9
    assert (drawn[:, 5] == 0).mean() == pytest.approx((x[:, 5] == 0).mean(), abs=0.04)


def test_strays_are_the_noise_of_a_mixed_mixture() -> None:
    x, _ = some_rows(900)
    far = x[:12].copy()
    far[:, 0] += 60.0

    mixture = a_mixture(noise=True).fit(np.concatenate([x, far]))

    assert (mixture.predict(far) == -1).all()
    assert (mixture.predict(x) == -1).mean() < 0.02


def test_the_criterion_counts_the_parameters_of_the_blocks() -> None:
    x, _ = some_rows()
    mixture = a_mixture().fit(x)

    free = (mixture.bic(x) + 2 * mixture.score_samples(x).sum()) / np.log(len(x))

    gaussian = 2 + 3 * 2 + 3 * 3
    assert free == pytest.approx(gaussian + 3 * (2 + 2 + 2 + 1))


def test_an_unknown_level_is_unusual_and_says_nothing_of_the_segment() -> None:
    x, _ = some_rows()
    mixture = a_mixture().fit(x)
    missing, unknown = x[:5].copy(), x[:5].copy()

    missing[:, 4], unknown[:, 4] = np.nan, 99.0

    np.testing.assert_allclose(mixture.predict_proba(unknown), mixture.predict_proba(missing))
    assert (mixture.score_samples(unknown) < mixture.score_samples(missing) - 5).all()


def test_a_column_without_a_known_cell_is_named() -> None:
    x, _ = some_rows(100)
    x[:, 1] = np.nan

    with pytest.raises(ValueError, match="column 1 has no known cell"):
        a_mixture().fit(x)
