"""The simulated rows of the segmentation suite are what they say: their truth is known twice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, lognorm
from scipy.stats import skew as skewness
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tests.quality import clustering


def test_planted_groups_have_their_shares_and_nearest_means() -> None:
    mixture = clustering.planted(4, 3, distance=6.0, stretch=3.0, seed=1)

    labels = mixture.labels(1_000, np.random.default_rng(0))

    assert np.allclose(np.bincount(labels) / 1_000, mixture.shares, atol=0.004)
    gaps = np.linalg.norm(mixture.means[:, None] - mixture.means[None], axis=2)
    assert np.isclose(gaps[gaps > 0].min(), 6.0)


def test_the_truth_assigns_as_discriminant_analysis_does_where_covariances_are_equal() -> None:
    one = clustering.planted(3, 2, distance=2.0, stretch=2.0, seed=2)
    mixture = clustering.Planted(one.shares, one.means, np.repeat(one.covariances[:1], 3, axis=0))
    generator = np.random.default_rng(0)
    labels = mixture.labels(50_000, generator)
    rows = mixture.scattered(labels, generator.standard_normal((50_000, 2)))

    learned = LinearDiscriminantAnalysis().fit(rows, labels).predict(rows)

    assert (mixture.assigned(rows) == learned).mean() > 0.995


def test_a_missing_cell_is_integrated_out_of_the_truth() -> None:
    mixture = clustering.planted(3, 2, distance=1.5, stretch=4.0, seed=3)
    seen = np.linspace(-4.0, 4.0, 41)
    hidden = np.linspace(-15.0, 15.0, 3_001)
    grid = (
        np.stack(np.meshgrid(seen, hidden, indexing="ij"), axis=-1) - mixture.means[:, None, None]
    )
    precisions = np.linalg.inv(mixture.covariances)
    distances = np.einsum("kabi,kij,kabj->kab", grid, precisions, grid)
    scales = mixture.shares / np.sqrt(np.linalg.det(mixture.covariances))
    by_sum = (scales[:, None, None] * np.exp(-0.5 * distances)).sum(axis=2).argmax(axis=0)

    found = mixture.assigned(np.column_stack([seen, np.full(41, np.nan)]))

    assert (found == by_sum).all()


def test_skewed_noise_has_the_moments_of_the_log_normal() -> None:
    noise = clustering._skewed(np.random.default_rng(0).standard_normal(400_000), 0.6)

    assert np.allclose([noise.mean(), noise.var()], [0.0, 1.0], atol=0.02)
    assert np.isclose(skewness(noise), lognorm(0.6).stats("s"), atol=0.15)


def test_heavy_tails_widen_the_covariance_of_five_segments_twofold() -> None:
    plain = clustering.five_segments("gaussian", 40_000, 0)
    heavy = clustering.five_segments("t4", 40_000, 0)

    widths = [np.var(made.rows[made.truth == 0], axis=0).sum() for made in (plain, heavy)]

    assert np.isclose(widths[1] / widths[0], 2.0, rtol=0.15)  # 4 / (4 - 2)


def test_five_segments_of_every_kind_can_be_told_apart() -> None:
    for kind in clustering.KINDS:
        assert clustering.five_segments(kind, 2_000, 0).ceiling > 0.95


def test_far_outliers_lie_outside_every_group() -> None:
    made = clustering.far_outliers("far", 0)
    stray = made.truth == clustering.OUTLIER
    inside = []
    for group in range(made.n_groups):
        rows = made.rows[made.truth == group]
        apart = made.rows[stray] - rows.mean(axis=0)
        distances = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(np.cov(rows.T)), apart)
        inside.append(distances < chi2(8).ppf(0.9999))

    assert stray.sum() == 60
    assert not np.any(inside)


def test_the_zero_column_and_the_missing_cells_have_their_shares() -> None:
    assert np.isclose((clustering.zero_column(0).rows[:, -1] == 0).mean(), 0.6, atol=0.02)
    holes = np.isnan(clustering.missing_cells(0.3, 0).rows)

    assert np.isclose(holes.mean(), 0.3, atol=0.01)
    assert not holes.all(axis=1).any()


def test_figures_count_flagged_outliers_and_lost_rows_apart() -> None:
    truth = np.array([0, 0, 1, 1, -1, -1])

    found = clustering.figures(truth, np.array([5, 5, 7, -1, -1, 5]))

    assert found["flagged"] == 0.5
    assert found["lost"] == 0.25
    assert found["ARI"] == pytest.approx(0.571, abs=1e-3)  # pairs: 1 together of 2 and 1


def test_figures_of_rows_without_outliers_leave_the_shares_open() -> None:
    found = clustering.figures(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))

    assert found["ARI"] == 1.0
    assert np.isnan([found["flagged"], found["lost"]]).all()
