"""Starts, the scan, refusals and screens against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score

from segmenter.blocks import NO_BLOCKS
from segmenter.em import Parameters, Prior, Rows, SingularFitError, expectation
from segmenter.families import FAMILIES
from segmenter.selection import (
    FINALISTS,
    Candidate,
    Sample,
    Settings,
    Starts,
    _left,
    best_of,
    fences,
    filled,
    hard_starts,
    prior_for,
    refusal,
    scan,
    single_gaussian,
    subsample,
    within,
)


def two_groups(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    rows = generator.standard_normal((n, 3)) * [1.0, 0.5, 2.0] + 7 * labels[:, None]
    return rows, labels


def a_sample(x: np.ndarray) -> tuple[Sample, Settings]:
    weights, random = np.ones(len(x)), np.random.RandomState(0)
    single = single_gaussian(x, weights)
    starts = Starts(filled(x, single), weights, single, NO_BLOCKS, 2, random)
    return Sample(x, weights, starts, single.means[0]), Settings(
        "bic", 0.0, 500, 1e-6, single.covariances[0]
    )


def test_every_start_has_the_groups_asked_for_and_one_is_right() -> None:
    x, labels = two_groups()
    starts = a_sample(x)[0].starts
    place = np.lexsort(x.T[::-1])  # starts.x holds the rows in the order of their values

    for k in (1, 2, 5):
        found = starts.partitions(k)
        assert len(found) >= 1
        assert {len(np.unique(part)) for part in found} == {k}
    np.testing.assert_array_equal(starts.x, x[place])
    assert max(adjusted_rand_score(labels[place], p) for p in starts.partitions(2)) == 1


def test_a_partition_becomes_its_own_moments() -> None:
    x, labels = two_groups()
    _, choice = a_sample(x)
    rows = Rows(x, x.mean(axis=0), True, np.ones(len(x)))

    start = hard_starts(rows, labels[None], "VVV", choice)

    prior = choice.prior(2)
    for k in range(2):
        own = x[labels == k]
        scatter = len(own) * np.cov(own.T, bias=True) + prior.strength * prior.shape
        np.testing.assert_allclose(start.means[0, k], own.mean(axis=0))
        np.testing.assert_allclose(start.covariances[0, k], scatter / (len(own) + prior.strength))


def of_size(k: int, **criteria: float) -> list[Candidate]:
    return [Candidate(name, "gaussian", k, value, ()) for name, value in criteria.items()]


def test_a_family_goes_on_unless_twice_the_largest_change_leaves_it_behind() -> None:
    before = of_size(2, VVV=500.0, EEE=900.0, EII=1_200.0, VII=1_201.0)
    found = of_size(3, VVV=520.0, EEE=600.0, EII=1_100.0, VII=1_101.0)
    families = [candidate.family for candidate in found]

    assert _left(families, before, found, best=500.0) == ["VVV", "EEE", "EII"]
    assert _left(families, [], found, best=520.0) == families
    assert _left(families, before, found, best=-500.0) == []


def test_a_family_far_behind_is_not_looked_at_in_larger_sizes() -> None:
    """Long, slanted groups: a sphere is behind by more than any size brings."""
    generator = np.random.default_rng(0)
    x = two_groups(600)[0] @ generator.standard_normal((3, 3)) * [1.0, 40.0, 1.0]
    sample, choice = a_sample(np.column_stack([x, x[:, 0] + 0.01 * generator.random(600)]))

    found = scan(sample, range(1, 8), ("VVV", "EII"), ("gaussian",), choice)

    largest = {name: max(c.n_components for c in found if c.family == name)
               for name in ("VVV", "EII")}  # fmt: skip
    assert largest["EII"] < largest["VVV"]
    assert best_of(found).family == "VVV"


def test_the_scan_runs_the_best_models_to_their_ends_and_lists_all() -> None:
    x, _ = two_groups()

    found = scan(*[a_sample(x)[0], range(1, 5), FAMILIES, ("gaussian",), a_sample(x)[1]])

    ended = [candidate for candidate in found if candidate.fit is not None]
    assert {(c.family, c.n_components) for c in found} >= {(f, 2) for f in FAMILIES}
    assert 3 <= len(ended) <= FINALISTS
    assert (best_of(found).family, best_of(found).n_components) == ("EEI", 2)
    assert best_of(found).criterion == min(c.criterion for c in ended)


def test_one_gaussian_of_complete_rows_is_their_mean_and_covariance() -> None:
    x, _ = two_groups()
    weights = np.random.default_rng(0).uniform(0.5, 2, len(x))

    single = single_gaussian(x, weights)

    np.testing.assert_allclose(single.means[0], np.average(x, axis=0, weights=weights))
    np.testing.assert_allclose(single.covariances[0], np.cov(x.T, aweights=weights, bias=True))


def test_one_gaussian_of_incomplete_rows_is_a_maximum_of_their_likelihood() -> None:
    generator = np.random.default_rng(1)
    x = multivariate_normal([1, 2], [[2, 1.2], [1.2, 1]]).rvs(400, random_state=generator)
    x[generator.random(x.shape) < 0.3] = np.nan
    single = single_gaussian(x, np.ones(len(x)))

    def likelihood(moved: np.ndarray, scale: float) -> float:
        changed = Parameters("VVV", np.ones(1), single.means + moved, single.covariances * scale)
        return float(expectation(Rows(x, np.zeros(2), True), changed)[0])

    best = likelihood(np.zeros(2), 1.0)
    for moved, scale in (([0.05, 0], 1), ([0, -0.05], 1), ([0, 0], 0.95), ([0, 0], 1.05)):
        assert likelihood(np.array(moved), scale) < best
    whole = filled(x, single)
    known = ~np.isnan(x)
    np.testing.assert_array_equal(whole[known], x[known])
    slope = single.covariances[0, 0, 1] / single.covariances[0, 0, 0]
    lacking = known[:, 0] & ~known[:, 1]
    expected = single.means[0, 1] + slope * (x[lacking, 0] - single.means[0, 0])
    np.testing.assert_allclose(whole[lacking, 1], expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spike_is_refused_in_every_family_that_can_hold_it(family: str) -> None:
    generator = np.random.default_rng(0)
    spike = np.zeros((200, 2)) + 1e-9 * generator.standard_normal((200, 2))
    x = np.concatenate([spike, generator.normal(4, 1, (400, 2))])
    labels = np.repeat([0, 1], [200, 400])
    _, choice = a_sample(x)
    rows = Rows(x, x.mean(axis=0), True, np.ones(len(x)))
    starts = hard_starts(rows, labels[None], family, choice)
    one = Parameters(family, starts.weights[0], starts.means[0], starts.covariances[0])

    told = refusal(one, expectation(rows, one)[1], choice.prior(2), 0.0)

    assert ("floor" in told) == (family[0] == "V")


def test_components_of_too_few_rows_are_refused() -> None:
    x, _ = two_groups()
    _, choice = a_sample(x)
    few = np.append(np.zeros(300, dtype=int), np.ones(5, dtype=int))
    x = np.concatenate([x, 90 + x[:5]])
    rows = Rows(x, x.mean(axis=0), True, np.ones(len(x)))
    starts = hard_starts(rows, few[None], "EEE", choice)
    one = Parameters("EEE", starts.weights[0], starts.means[0], starts.covariances[0])

    statistics = expectation(rows, one)[1]

    assert "5.0 rows, under 6" in refusal(one, statistics, choice.prior(2), 0.0)
    assert "a share of 0.0164, under 0.1000" in refusal(one, statistics, choice.prior(2), 0.1)


def test_nothing_left_is_told_with_the_reasons() -> None:
    refused = Candidate("VVV", "gaussian", 2, np.inf, (), refused="a component is a spike")

    with pytest.raises(SingularFitError, match="VVV gaussian 2: a component is a spike"):
        best_of([refused])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_the_screen_does_not_depend_on_units(seed: int, scale: float, shift: float) -> None:
    x = np.random.default_rng(seed).standard_t(1.5, (200, 2))

    moved = x * scale + shift

    np.testing.assert_array_equal(within(x, fences(x)), within(moved, fences(moved)))


def test_the_screen_drops_far_rows_keeps_holes_and_spares_a_tail() -> None:
    generator = np.random.default_rng(0)
    x = np.column_stack([generator.standard_normal(500), generator.lognormal(0, 3, 500)])
    x[0, 0], x[1] = 50.0, np.nan

    kept = within(x, fences(x))

    assert not kept[0]
    assert kept[1:].all()  # the second column is all tail, and makes no row far


def test_the_prior_follows_the_data_and_the_room_of_a_component() -> None:
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])

    one, four = prior_for(covariance, 1), prior_for(covariance, 4)

    assert isinstance(one, Prior)
    np.testing.assert_allclose(one.shape, covariance)
    np.testing.assert_allclose(four.shape, covariance / 4)
    assert one.strength == four.strength == pytest.approx(0.04)


def test_a_subsample_keeps_the_order_and_takes_no_row_twice() -> None:
    kept = subsample(1_000, 100, np.random.RandomState(0))

    assert len(kept) == 100
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(subsample(5, 100, np.random.RandomState(0)), np.arange(5))
