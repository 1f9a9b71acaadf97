"""Each of the fourteen covariance structures against a second way to its maximum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.optimize import minimize

from segmenter.families import FAMILIES, estimate, is_crossed, parameter_count, structured

K, D = 3, 3
ITERATIVE = ("VEI", "VEE", "VEV", "EVE", "VVE")


def scatters(seed: int, k: int = K, d: int = D) -> tuple[np.ndarray, np.ndarray]:
    """Positive definite scatters (k, d, d) that share some of their axes, and their counts (k,)."""
    generator = np.random.default_rng(seed)
    counts = generator.uniform(20, 200, k)
    common = np.linalg.qr(generator.standard_normal((d, d)))[0]
    roots = common * generator.uniform(0.3, 3, (k, 1, d)) + 0.2 * generator.standard_normal(
        (k, d, d)
    )
    return counts[:, None, None] * (roots @ np.swapaxes(roots, 1, 2)), counts


def objective(covariances: np.ndarray, scatter: np.ndarray, counts: np.ndarray) -> float:
    """Gaussian log-likelihood of the scatters, up to a constant."""
    fit = np.einsum("kij,kji->k", scatter, np.linalg.inv(covariances))
    return float(-0.5 * (counts * np.linalg.slogdet(covariances)[1] + fit).sum())


def converged(family: str, scatter: np.ndarray, counts: np.ndarray) -> np.ndarray:
    covariances = estimate(family, scatter, counts)
    for _ in range(200 if family in ITERATIVE else 1):
        covariances = estimate(family, scatter, counts, covariances)
    return covariances


def built(family: str, numbers: np.ndarray) -> np.ndarray:
    """Covariances (K, D, D) of the family from free numbers, by its definition v D A D'."""
    volume, shape, orientation = np.split(numbers, [K, K + K * D])
    logs = volume if family[0] == "V" else np.full(K, volume[0])
    shapes = shape.reshape(K, D)
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    shapes = {"I": 0 * shapes, "E": shapes[:1].repeat(K, axis=0), "V": shapes}[family[1]]
    turns = np.zeros((K, D, D))
    turns[:, *np.triu_indices(D, 1)] = orientation.reshape(K, -1)
    turns = np.array([expm(turn - turn.T) for turn in turns])
    turns = {"I": np.eye(D)[None].repeat(K, axis=0), "E": turns[:1].repeat(K, axis=0), "V": turns}[
        family[2]
    ]
    return turns * np.exp(logs[:, None] + shapes)[:, None, :] @ np.swapaxes(turns, 1, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_m_step_is_as_good_as_a_numerical_search_by_the_definition(family: str) -> None:
    scatter, counts = scatters(1)
    found = objective(converged(family, scatter, counts), scatter, counts)

    generator = np.random.default_rng(0)
    searched = max(
        -minimize(
            lambda numbers: -objective(built(family, numbers), scatter, counts),
            0.5 * generator.standard_normal(K + K * D + K * D * (D - 1) // 2),
            method="L-BFGS-B",
        ).fun
        for _ in range(4)
    )

    assert found >= searched - 1e-3
    assert found <= searched + 1e-2


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 4), d=st.integers(1, 5))
def test_repeated_m_steps_never_lower_the_likelihood(
    family: str, seed: int, k: int, d: int
) -> None:
    scatter, counts = scatters(seed, k, d)
    covariances = estimate(family, scatter, counts)
    before = objective(covariances, scatter, counts)

    for _ in range(5):
        covariances = estimate(family, scatter, counts, covariances)
        after = objective(covariances, scatter, counts)
        assert after >= before - 1e-9 * abs(before)
        before = after


@pytest.mark.parametrize("family", FAMILIES)
def test_covariances_have_the_structure_of_their_name(family: str) -> None:
    covariances = estimate(family, *scatters(2))
    values = np.linalg.eigvalsh(covariances)
    volumes = np.linalg.det(covariances)
    shapes = values / volumes[:, None] ** (1 / D)

    assert np.allclose(volumes, volumes[0]) == (family[0] == "E")
    if family[1] == "I":
        np.testing.assert_allclose(shapes, 1)
    if family[2] != "E" or family[1] == "E":  # common axes may be listed in another order
        assert np.allclose(shapes, shapes[0]) == (family[1] != "V")
    products = np.einsum("kij,ljm->klim", covariances, covariances)
    together = np.allclose(products, np.swapaxes(products, 0, 1))
    assert together == (family[2] != "V")
    assert np.allclose(covariances, covariances * np.eye(D)) == (not is_crossed(family))
    np.testing.assert_allclose(structured(family, covariances), covariances)


@pytest.mark.parametrize("family", FAMILIES)
def test_components_and_starts_are_independent_of_their_order(family: str) -> None:
    scatter, counts = scatters(3)
    order = np.array([2, 0, 1])

    both = estimate(family, np.stack([scatter, scatter[order]]), np.stack([counts, counts[order]]))

    np.testing.assert_allclose(both[0], estimate(family, scatter, counts), rtol=1e-9)
    if family not in ITERATIVE:
        np.testing.assert_allclose(both[1], both[0][order], rtol=1e-9)


# mclust::nMclustParams(modelName, d = 4, G = 3), version 6.0.0
COUNTED = {
    "EII": 15, "VII": 17, "EEI": 18, "VEI": 20, "EVI": 24, "VVI": 26, "EEE": 24,
    "VEE": 26, "EVE": 30, "VVE": 32, "EEV": 36, "VEV": 38, "EVV": 42, "VVV": 44,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_counted_as_in_mclust(family: str) -> None:
    assert parameter_count(family, 3, 4) == COUNTED[family]
