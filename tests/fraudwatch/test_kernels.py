"""The panel against scipy and brute force, and what it is there for: planted clusters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from fraudwatch.kernels import CORE_WEIGHT, NEAR_WEIGHT, WIDE_WEIGHT, Core, Kernels, Panel

NETWORK = np.random.default_rng(9).gamma(4.0, 3.0, 5000)  # surprises as a network's may be


def a_panel(rows: np.ndarray, seed: int = 0) -> Panel:
    panel = Panel.fit(rows, lambda some: NETWORK[: len(some)], np.random.default_rng(seed))
    assert panel is not None
    return panel


def members(panel: Panel) -> tuple[Kernels, Kernels]:
    return panel.near, panel.wide


def own(panel: Panel, rows: np.ndarray) -> np.ndarray:
    """The members' surprises before calibration, (n, members)."""
    kernels = [member.weigh(rows)[0] for member in members(panel)]
    cores = [] if panel.core is None else [panel.core.columns(rows).sum(1)]
    return np.column_stack([*kernels, *cores])


def normal_rows(n: int = 400, d: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32).astype(np.float64)


def with_copies(n: int = 200, d: int = 6) -> np.ndarray:
    rows = normal_rows(n, d)
    return np.vstack([rows, rows[:50], rows[:20]])


def by_hand(panel: Panel, rows: np.ndarray, bandwidth: float) -> np.ndarray:
    """log of share times kernel for each row and prototype, one by one."""
    d = rows.shape[1]
    kernel = stats.multivariate_normal(np.zeros(d), bandwidth**2 * np.eye(d))
    return np.array([[kernel.logpdf(x - u) for u in panel.near.prototypes] for x in rows]) + (
        panel.near.log_share
    )


def test_prototypes_are_the_distinct_rows_with_their_shares() -> None:
    panel = a_panel(with_copies())

    assert len(panel.near.prototypes) == 200
    assert np.exp(panel.near.log_share).sum() == pytest.approx(1.0)
    counts = np.exp(panel.near.log_share) * 270
    assert sorted(np.round(counts).astype(int).tolist()) == [1] * 150 + [2] * 30 + [3] * 20


@pytest.mark.parametrize("member", [0, 1])
def test_kernels_are_the_sum_of_normal_densities(member: int) -> None:
    panel = a_panel(with_copies())
    rows = normal_rows(30, seed=1) * 2
    bandwidth = members(panel)[member].bandwidth

    surprise, _ = members(panel)[member].weigh(rows)

    np.testing.assert_allclose(
        surprise, -logsumexp(by_hand(panel, rows, bandwidth), axis=1), rtol=1e-6
    )


@pytest.mark.parametrize("member", [0, 1])
def test_columns_of_a_kernel_leave_the_divergence_of_the_posterior(member: int) -> None:
    panel = a_panel(with_copies())
    rows = normal_rows(30, seed=1)
    terms = by_hand(panel, rows, members(panel)[member].bandwidth)
    posterior = np.exp(terms - logsumexp(terms, axis=1, keepdims=True))
    log_posterior = np.log(np.maximum(posterior, 1e-300))
    divergence = (posterior * (log_posterior - panel.near.log_share)).sum(1)

    surprise, relative = members(panel)[member].weigh(rows)
    columns = members(panel)[member].columns(rows, relative)

    np.testing.assert_allclose(columns.sum(1) + divergence, surprise, rtol=1e-4)


def test_each_prototype_is_left_out_of_its_own_sum() -> None:
    panel = a_panel(normal_rows(60))

    for kernels in members(panel):
        surprise, _ = kernels.weigh(panel.near.prototypes, left_out=True)

        terms = by_hand(panel, panel.near.prototypes, kernels.bandwidth)
        np.fill_diagonal(terms, -np.inf)
        np.testing.assert_allclose(surprise, -logsumexp(terms, axis=1), rtol=1e-6)


def test_the_core_is_a_normal_density_whose_shares_sum_to_it() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 3.0
    core = Core.fit(rows)

    columns = core.columns(rows)

    exact = stats.multivariate_normal(rows.mean(0), np.linalg.inv(core.precision)).logpdf(rows)
    np.testing.assert_allclose(columns.sum(1), -exact, rtol=1e-8)


def test_members_have_the_median_and_spread_of_the_network_times_their_weight() -> None:
    rows = normal_rows(500, 20)
    panel = a_panel(rows)

    prototypes = panel.near.prototypes
    kernels = [member.weigh(prototypes, left_out=True)[0] for member in members(panel)]
    assert panel.core is not None
    alone = np.column_stack([*kernels, panel.core.columns(prototypes).sum(1)])
    calibrated = panel.offset + panel.slope * alone

    network = NETWORK[:500]
    np.testing.assert_allclose(np.median(calibrated, axis=0), np.median(network))
    spread = np.subtract(*np.percentile(calibrated, [75, 25], axis=0))
    known = np.subtract(*np.percentile(network, [75, 25]))
    np.testing.assert_allclose(spread / known, [NEAR_WEIGHT, WIDE_WEIGHT, CORE_WEIGHT])


@pytest.mark.parametrize(("n", "d", "core"), [(400, 19, False), (400, 20, True), (110, 20, False)])
def test_only_many_columns_and_enough_rows_have_a_core(n: int, d: int, core: bool) -> None:
    assert (a_panel(normal_rows(n, d)).core is not None) == core


def test_a_tight_cluster_among_the_training_rows_stays_surprising() -> None:
    rng = np.random.default_rng(0)
    cluster = 2.5 + 0.05 * rng.normal(size=(20, 8))
    rows = np.vstack([rng.normal(size=(980, 8)), cluster])
    panel = a_panel(rows)

    surprise = panel.surprise(rows)

    near = own(panel, rows)[:, 0]
    assert (surprise[980:] > np.quantile(surprise[:980], 0.9)).all()
    assert (near[980:] < np.quantile(near[:980], 0.05)).all()  # alone, it has learned the frauds


def test_far_rows_do_not_steer_the_core() -> None:
    rng = np.random.default_rng(0)
    mixing = np.eye(20) + 0.2 * rng.normal(size=(20, 20))
    genuine = rng.normal(size=(950, 20)) @ mixing
    far = 4.0 + 2.0 * rng.normal(size=(50, 20))
    both = np.vstack([genuine, far])

    core = a_panel(both).core

    assert core is not None
    clean = np.median(Core.fit(genuine).columns(far).sum(1))
    assert np.median(core.columns(far).sum(1)) > 0.9 * clean
    assert np.median(Core.fit(both).columns(far).sum(1)) < 0.5 * clean


def test_the_columns_of_the_loudest_member_come_with_the_surprise() -> None:
    panel = a_panel(normal_rows(500, 20))
    rows = normal_rows(200, 20, seed=2) * np.linspace(0.2, 4, 200)[:, None]

    surprise, columns = panel.parts(rows)

    np.testing.assert_array_equal(surprise, panel.surprise(rows))
    calibrated = panel.offset + panel.slope * own(panel, rows)
    loudest = calibrated.argmax(1)
    assert set(loudest) >= {0, 1}
    for i in (0, 60, 199):
        member = members(panel)[loudest[i]] if loudest[i] < 2 else None
        known = panel.core.columns(rows[[i]]) if member is None and panel.core else None
        if member is not None:
            known = member.columns(rows[[i]], member.weigh(rows[[i]])[1])
        assert known is not None
        np.testing.assert_allclose(columns[i], panel.slope[loudest[i]] * known[0], rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 299), st.integers(1, 299))
def test_a_row_has_the_same_surprise_in_any_batch(start: int, size: int) -> None:
    panel = a_panel(normal_rows(100, 6))
    rows = normal_rows(300, 6, seed=3) * np.linspace(0.1, 40, 300)[:, None]

    some = panel.surprise(rows[start : start + size])

    np.testing.assert_allclose(some, panel.surprise(rows)[start : start + size], rtol=1e-9)


def test_absurd_rows_are_finite_and_the_most_surprising() -> None:
    panel = a_panel(normal_rows(100, 6))

    surprise = panel.surprise(np.array([[1e12] * 6, [-1e300] * 6, [0.0] * 6]))

    assert np.isfinite(surprise).all()
    assert surprise[:2].min() > 1e3 * abs(surprise[2])


def test_arrays_bring_back_the_same_panel() -> None:
    rows = normal_rows(500, 20)
    panel = a_panel(rows)

    again = Panel.from_arrays(panel.to_arrays())

    np.testing.assert_array_equal(again.surprise(rows), panel.surprise(rows))
    np.testing.assert_array_equal(again.parts(rows)[1], panel.parts(rows)[1])


def test_a_few_distinct_rows_make_no_panel() -> None:
    rows = np.repeat(normal_rows(49), 20, axis=0)

    panel = Panel.fit(rows, lambda some: np.zeros(len(some)), np.random.default_rng(0))

    assert panel is None


def test_of_a_large_table_so_many_rows_are_drawn() -> None:
    rows = normal_rows(3000)

    first, again, other = (a_panel(rows, seed) for seed in (0, 0, 1))

    assert len(first.near.prototypes) == 2000
    np.testing.assert_array_equal(first.near.prototypes, again.near.prototypes)
    assert not np.array_equal(first.near.prototypes, other.near.prototypes)
