"""Cuts, agreement of halves, and which of parts and cuts are published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score

from segmenter import publishing
from segmenter.agreement import SPLITS, Pairs, agreement, bootstraps, halves, joined, refits
from segmenter.cuts import Cut, cut
from segmenter.model import SegmentMixture
from segmenter.publishing import CUT_KEPT, FOUND, STABLE, Published, Task, publish

CENTRES = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 6.0, 6.0]])


def groups(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows about three centres far apart, and whose they are."""
    kind = np.arange(n) % 3
    return CENTRES[kind] + np.random.default_rng(seed).standard_normal((n, 3)), kind


def continuum(n: int = 1_500, seed: int = 0) -> np.ndarray:
    """One skewed cloud along a diagonal: no groups, and several parts to describe it."""
    generator = np.random.default_rng(seed)
    along = generator.gamma(2.0, 1.0, n)
    return along[:, None] + 0.3 * generator.standard_normal((n, 3))


def task(**changes: Any) -> Task:
    asked = Task(wanted=None, limit=12, least=0.02, cells=6, share=1.0, columns=(0, 1, 2), seed=0)
    return replace(asked, **changes)


def published(matrix: np.ndarray, **changes: Any) -> Published:
    mixture = SegmentMixture(random_state=0, tails="gaussian", covariance_type="full", n_init=1)
    return publish(mixture.fit(matrix), matrix, matrix, task(**changes))


def test_a_cut_finds_groups_that_are_apart() -> None:
    matrix, kind = groups()

    found = cut(matrix, [0, 1, 2], 3, seed=0)

    assert adjusted_rand_score(kind, found.labels(matrix)) == 1
    np.testing.assert_allclose(found.shares, 1 / 3, atol=0.01)


def test_a_cut_looks_only_at_its_columns() -> None:
    matrix, _ = groups()
    other = matrix.copy()
    other[:, 0] = 1e3

    found = cut(matrix, [1, 2], 2, seed=0)

    np.testing.assert_array_equal(found.labels(matrix), found.labels(other))


def test_far_rows_move_no_centre() -> None:
    matrix, _ = groups()
    strays = np.concatenate([matrix, np.full((6, 3), 1e4)])

    alone, together = (cut(x, [0, 1, 2], 3, seed=0) for x in (matrix, strays))

    np.testing.assert_allclose(together.means, alone.means)
    np.testing.assert_allclose(together.center, alone.center)


def test_the_posterior_of_a_cut_is_that_of_equal_round_gaussians() -> None:
    matrix, _ = groups()
    found = cut(matrix, [0, 1, 2], 3, seed=0)
    z = (matrix - found.center) / found.scale

    density = np.stack(
        [multivariate_normal(m, found.variance * np.eye(3)).pdf(z) for m in found.means], axis=1
    )

    expected = density / density.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.posterior(matrix), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.labels(matrix), expected.argmax(axis=1))


def test_a_moved_cut_keeps_its_cells_and_follows_the_rows() -> None:
    matrix, _ = groups()
    first = cut(matrix, [0, 1, 2], 3, seed=0)

    moved = first.moved(matrix + 0.5 * first.scale)

    np.testing.assert_allclose(moved.means, first.means + 0.5, atol=0.05)


def test_a_cut_is_read_back_to_the_bit() -> None:
    matrix, _ = groups()
    found = cut(matrix, [2, 0], 3, seed=0)

    again = Cut.from_arrays(found.to_arrays())

    assert again is not None
    np.testing.assert_array_equal(again.posterior(matrix), found.posterior(matrix))
    np.testing.assert_array_equal(again.shares, found.shares)
    assert Cut.from_arrays({}) is None


@given(n=st.integers(2, 300), seed=st.integers(0, 2**31 - 1))
def test_two_halves_hold_every_row_once(n: int, seed: int) -> None:
    pairs = halves(n, seed)

    assert len(pairs) == SPLITS
    for first, second in pairs:
        assert sorted([*first, *second]) == list(range(n))
        assert abs(len(first) - len(second)) <= 1


@given(n=st.integers(2, 300), seed=st.integers(0, 2**31 - 1))
def test_a_bootstrap_sample_is_as_large_as_the_rows_it_draws_from(n: int, seed: int) -> None:
    drawn = np.array(bootstraps(n, seed))

    assert drawn.shape == (SPLITS, 2, n)
    assert 0 <= drawn.min() <= drawn.max() < n


def test_agreement_is_the_mean_adjusted_rand_index() -> None:
    generator = np.random.default_rng(0)
    pairs = [(generator.integers(3, size=50), generator.integers(3, size=50)) for _ in range(4)]

    expected = np.mean([adjusted_rand_score(first, second) for first, second in pairs])

    assert agreement(pairs) == pytest.approx(expected)
    assert agreement([(first, first + 7) for first, _ in pairs]) == 1


def test_customers_apart_count_as_a_group_of_their_own() -> None:
    first, second = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])

    expected = adjusted_rand_score([0, 0, 1, 1, 9, 9], [0, 1, 1, 0, 9, 9])

    assert agreement([(first, second)], apart=2) == pytest.approx(expected)


def test_groups_of_two_strata_are_never_the_same() -> None:
    one, two = [(np.array([0, 1]), np.array([0, 0]))], [(np.array([0]), np.array([1]))]

    (together,) = joined([one, two])

    assert len(set(together[0])) == 3
    assert together[1][0] == together[1][1] != together[1][2]


def test_refits_see_each_sample_and_answer_for_all_rows() -> None:
    samples = halves(10, seed=0)

    found = refits(lambda rows: np.isin(np.arange(10), rows), samples)

    assert all((first ^ second).all() for first, second in found)


def test_groups_that_are_apart_are_published_as_they_are() -> None:
    matrix, _ = groups()

    found = published(matrix)

    assert found.cut is None
    assert found.n_segments == 3
    assert found.agreement == pytest.approx(1, abs=0.02)
    assert found.record()["stable"]


def test_groups_are_published_only_where_refits_find_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix, _ = groups()
    again = publishing._parts_again

    def another(*given: Any) -> Pairs:
        """As if one half of each pair had not told two of the groups apart."""
        joined = [np.logaddexp(other[:, :1], other[:, 1:2]) for _, other in again(*given)]
        return [
            (one, np.column_stack([both, other[:, 2:]]))
            for (one, other), both in zip(again(*given), joined, strict=True)
        ]

    monkeypatch.setattr(publishing, "_parts_again", another)
    found = published(matrix)

    assert found.tried[0]["by"] == "parts" and found.tried[0]["segments"] == 3
    assert found.tried[0]["agreement"] < FOUND
    assert found.cut is not None


def test_a_continuum_is_cut_into_cells_that_halves_agree_on() -> None:
    matrix = continuum()

    found = published(matrix)

    assert found.cut is not None
    assert 2 <= found.n_segments <= 6
    assert found.agreement >= STABLE
    assert [step["by"] for step in found.tried] == ["cut"] * len(found.tried)
    numbers = [step["segments"] for step in found.tried]
    assert numbers == list(range(6, found.n_segments - 1, -1))
    assert all(not step["stable"] for step in found.tried[:-1])


@pytest.mark.parametrize(
    ("agreements", "cells"),
    [([0.75], 6), ([0.65, 0.75, 0.85], 4), ([0.65, 0.79, 0.79, 0.79, 0.79], 2)],
    ids=["kept", "left for a stable one", "none is stable"],
)
def test_a_cut_keeps_its_conventional_number_longer_than_another(
    agreements: list[float], cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter(agreements)
    monkeypatch.setattr(publishing, "agreement", lambda *_: next(told))

    found = published(continuum())

    assert found.n_segments == cells
    assert [step["agreement"] for step in found.tried] == agreements


def test_where_halves_agree_on_nothing_the_coarsest_cut_is_published() -> None:
    ball = np.random.default_rng(0).standard_normal((200, 3))  # no direction is its own

    found = published(ball)

    assert found.cut is not None and found.n_segments == found.tried[-1]["segments"] == 2
    assert all(step["agreement"] < CUT_KEPT for step in found.tried)
    assert not found.record()["stable"]


def test_parts_are_published_where_halves_agree_on_no_cut_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ball = np.random.default_rng(1).standard_normal((600, 3))
    matrix = np.column_stack([groups()[0], ball])
    monkeypatch.setattr("segmenter.publishing.FOUND", 1.01)

    found, of_columns = (published(matrix, columns=at) for at in ((3, 4, 5), (0, 1, 2)))

    assert found.cut is None and found.n_segments == 3
    assert of_columns.cut is not None


def test_the_agreement_told_is_that_of_the_pairs() -> None:
    found = published(continuum())

    assert found.agreement == pytest.approx(agreement(found.pairs))


@pytest.mark.parametrize("wanted", [1, 2, 4, 7])
@pytest.mark.parametrize("matrix", [groups()[0], continuum()], ids=["groups", "continuum"])
def test_as_many_segments_as_a_person_wants(matrix: np.ndarray, wanted: int) -> None:
    assert published(matrix, wanted=wanted, limit=wanted).n_segments == wanted


def test_no_cell_is_smaller_than_the_least_share() -> None:
    matrix = continuum()

    found = published(matrix, least=0.2)

    assert found.cut is not None
    shares = np.bincount(found.cut.labels(matrix)) / len(matrix)
    assert shares.min() >= 0.19


def test_a_stratum_of_one_cell_stays_whole_where_it_is_a_continuum() -> None:
    found = published(continuum(), cells=1)

    assert found.n_segments == 1
    assert found.cut is None
    assert found.agreement == 1
