"""Counts, shares and categories against scipy, direct maximisation and planted parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import betabinom, nbinom

from segmenter.blocks import (
    Block,
    Blocks,
    CategoryBlock,
    Cells,
    CountBlock,
    ShareBlock,
    indicators,
)
from segmenter.layout import Layout, code

NOTHING = Cells(np.zeros(0), np.zeros(0))
LAYOUT = Layout.declared(("count", "share", "trials", "category", "continuous"), {1: 2}, 5)
PLANTED: dict[str, Block] = {
    "count": CountBlock(0, NOTHING, np.array([1.5, 12.0]), np.array([0.8, 6.0])),
    "share": ShareBlock(1, NOTHING, np.array([0.1, 0.7]), np.array([3.0, 20.0])),
    "category": CategoryBlock(
        3,
        NOTHING,
        np.array([[0.6, 0.3, 0.1, 0.0], [0.1, 0.1, 0.8, 0.0]]),
        np.array([1.0, 2.0, 5.0]),
    ),
}
ORDER = list(PLANTED)


def some_rows(n: int = 4_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 5) of a count, a share, its trials, a category and a number; their components."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=n)
    x = np.zeros((n, 5))
    x[:, 2] = generator.poisson(5.0, n)
    x[:, 4] = generator.standard_normal(n)
    for block in PLANTED.values():
        x[:, block.column] = block.sample(labels, x[:, 2], generator)
    return x, labels


def pooled(kind: str, x: np.ndarray) -> Block:
    """The law of all rows of one column."""
    return LAYOUT.pooled([(x, np.ones(len(x)))]).parts[ORDER.index(kind)]


def on(distinct: np.ndarray) -> Cells:
    """Cells without pseudo-rows."""
    return Cells(distinct, np.zeros(len(distinct)))


def masses(block: Block, x: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Mass (2, n) per distinct cell of the block, (2, V)."""
    codes = code(LAYOUT.cells(x, block.column), block.cells.distinct)
    return np.asarray(mass @ indicators(codes[None], [len(block.cells.distinct)]).T)


def members(labels: np.ndarray) -> np.ndarray:
    """Mass (2, n): one where a row belongs to the component."""
    return np.equal.outer(np.arange(2), labels).astype(float)


def fitted(block: Block, mass: np.ndarray) -> Block:
    """The M step repeated to its end, from the start of a partition with masses (2, V)."""
    found = block.begun(mass)
    for _ in range(30):
        found = found.updated(mass)
    return found


def test_counts_are_the_negative_binomial_of_scipy() -> None:
    x = np.arange(60.0)
    mean, size = np.array([0.2, 7.5, 30.0]), np.array([0.4, 3.0, 800.0])

    table = CountBlock(0, on(x), mean, size).log_table()

    wanted = nbinom.logpmf(x, size[:, None], (size / (size + mean))[:, None])
    np.testing.assert_allclose(table, wanted, atol=1e-9)


def test_a_count_of_the_largest_size_is_poisson() -> None:
    x = np.arange(30.0)

    table = CountBlock(0, on(x), np.array([4.0]), np.array([1e5])).log_table()

    poisson = x * np.log(4.0) - 4.0 - np.cumsum(np.log(np.maximum(x, 1)))
    np.testing.assert_allclose(table[0], poisson, atol=5e-3)


def test_shares_are_the_beta_binomial_of_scipy() -> None:
    trials, successes = np.array([(t, s) for t in range(1, 25) for s in range(t + 1)]).T
    mean, concentration = np.array([0.05, 0.5, 0.93]), np.array([0.7, 12.0, 500.0])
    cells = successes + 1j * trials

    table = ShareBlock(1, on(cells), mean, concentration).log_table()

    a, b = (mean * concentration)[:, None], ((1 - mean) * concentration)[:, None]
    np.testing.assert_allclose(table, betabinom.logpmf(successes, trials, a, b), atol=1e-9)


@pytest.mark.parametrize("kind", ["count", "share"])
def test_the_m_step_ends_where_direct_maximisation_ends(kind: str) -> None:
    x, labels = some_rows()
    block = pooled(kind, x)
    soft = 0.8 * members(labels) + 0.2 * np.random.default_rng(1).random((2, len(x)))
    mass = masses(block, x, soft)

    found = fitted(block, mass)

    law = type(block)
    for k in range(2):

        def minus_objective(theta: np.ndarray, k: int = k) -> float:
            first = np.exp(theta[:1]) if kind == "count" else expit(theta[:1])
            other = law(0, block.cells, first, np.exp(theta[1:]))  # type: ignore[call-arg]
            return -float((mass[k] + block.cells.pseudo) @ other.log_table()[0])

        best = minimize(minus_objective, np.zeros(2), method="Nelder-Mead", tol=1e-9)
        ours = (mass[k] + block.cells.pseudo) @ found.log_table()[k]
        assert ours == pytest.approx(-best.fun, abs=1e-5)


def test_levels_of_a_category_get_their_share_of_the_mass() -> None:
    block = CategoryBlock(0, on(np.array([3.0, 7.0])))

    table = block.updated(np.array([[1.5, 0.5], [0.5, 1.5]])).log_table()

    np.testing.assert_allclose(np.exp(table), 5 / 6 * np.array([[0.75, 0.25], [0.25, 0.75]]))


@pytest.mark.parametrize("kind", ORDER)
def test_planted_parameters_are_found_again(kind: str) -> None:
    x, labels = some_rows(40_000)
    block = pooled(kind, x)

    found = fitted(block, masses(block, x, members(labels))).to_arrays()

    for name, wanted in PLANTED[kind].to_arrays().items():
        np.testing.assert_allclose(found[name], wanted, rtol=0.1, atol=1e-3)


@given(
    kind=st.sampled_from(ORDER),
    seed=st.integers(0, 2**16),
    sharpness=st.sampled_from([0.02, 1.0, 30.0]),
)
def test_an_m_step_never_lowers_the_penalised_likelihood(
    kind: str, seed: int, sharpness: float
) -> None:
    x, _ = some_rows(60, seed)
    block = pooled(kind, x)
    soft = np.random.default_rng(seed).dirichlet(np.full(2, sharpness), len(x)).T
    mass = masses(block, x, soft)

    reached = -np.inf

    for _ in range(8):
        table = block.log_table()
        value = float((mass * table).sum() + (2 * block.log_prior()).mean())
        assert value >= reached - 1e-9 * abs(value)
        block, reached = block.updated(mass), value


@pytest.mark.parametrize("kind", ORDER)
def test_a_missing_cell_adds_nothing(kind: str) -> None:
    x, labels = some_rows(500)
    x[:, 2] += 1
    gone = np.random.default_rng(2).random(len(x)) < 0.3
    holed = x.copy()
    holed[gone, PLANTED[kind].column] = np.nan

    block, left = pooled(kind, holed), pooled(kind, x[~gone])

    assert (code(LAYOUT.cells(holed, block.column), block.cells.distinct)[gone] == -1).all()
    np.testing.assert_array_equal(block.log_table(), left.log_table())
    np.testing.assert_array_equal(
        masses(block, holed, members(labels)), masses(left, x[~gone], members(labels[~gone]))
    )


def test_a_share_of_no_trial_is_missing() -> None:
    x = np.zeros((3, 5))
    x[:, 1:3] = [[0.5, 2.0], [np.nan, 0.0], [0.5, np.nan]]

    cells = LAYOUT.cells(x, 1)

    assert cells[0] == 1 + 2j
    assert np.isnan(cells[1:]).all()


@pytest.mark.parametrize("kind", ORDER)
def test_draws_follow_the_table(kind: str) -> None:
    x, labels = some_rows(200_000, seed=3)
    block = replace(PLANTED[kind], cells=pooled(kind, x).cells)

    seen = masses(block, x, members(labels))

    share = np.ones(len(block.cells.distinct))
    if kind == "share":  # the law is that of the successes, given the trials
        of = LAYOUT.cells(x, 1).imag
        share = np.array([np.mean(of[~np.isnan(of)] == t) for t in block.cells.distinct.imag])
    drawn = seen / seen.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(drawn, np.exp(block.log_table()) * share, atol=4e-3)


@pytest.mark.parametrize("kind", ORDER)
def test_a_block_comes_back_from_its_arrays(kind: str) -> None:
    x, labels = some_rows(300)
    block = pooled(kind, x)
    found = fitted(block, masses(block, x, members(labels)))

    again = type(block).from_arrays(block.column, found.to_arrays())

    again = replace(again, cells=block.cells)
    np.testing.assert_array_equal(again.log_table(), found.log_table())


@pytest.mark.parametrize("kind", ORDER)
def test_a_component_of_one_value_keeps_every_other_value_possible(kind: str) -> None:
    x, _ = some_rows(400)
    x[:, 2] = 4.0
    x[:200, [0, 1, 3]] = [0.0, 0.0, 1.0]
    block = pooled(kind, x)

    table = fitted(block, masses(block, x, members(np.arange(400) >= 200))).log_table()

    assert np.isfinite(table).all()
    assert table[0].max() > -0.1


def test_a_level_that_the_fit_never_saw_is_rare_under_every_component() -> None:
    block = CategoryBlock(0, on(np.array([1.0, 2.0]))).updated(np.full((2, 2), 25.0))

    table = replace(block, cells=on(np.array([1.5, 9.0]))).log_table()

    np.testing.assert_allclose(np.exp(table), 1 / 102)


def test_components_of_a_block_can_be_taken_out() -> None:
    block = replace(PLANTED["count"], cells=on(np.arange(5.0)))

    np.testing.assert_array_equal(block.of(slice(1, 2)).log_table(), block.log_table()[1:])


def test_batches_are_pooled_as_all_their_rows_together() -> None:
    x, _ = some_rows(900)
    weights = np.random.default_rng(0).random(900)

    whole = LAYOUT.pooled([(x, weights)])
    parts = LAYOUT.pooled([(x[:200], weights[:200]), (x[200:], weights[200:])])

    for one, other in zip(whole.parts, parts.parts, strict=True):
        np.testing.assert_array_equal(one.cells.distinct, other.cells.distinct)
        np.testing.assert_allclose(one.cells.pseudo, other.cells.pseudo)
        np.testing.assert_allclose(one.log_table(), other.log_table(), atol=1e-9)


def test_an_atom_is_a_category_and_a_missing_continuous_cell() -> None:
    x = np.array([[0.0, 1.0], [2.5, 1.0], [0.0, 2.0], [np.nan, 3.0]])
    layout = Layout.declared(("semicontinuous", "continuous"), None, 2).observed(x)

    encoded = layout.encoded(x, layout.pooled([(x, np.ones(4))]))

    np.testing.assert_array_equal(
        encoded, [[np.nan, 1, 1], [2.5, 1, 0], [np.nan, 2, 1], [np.nan, 3, -1]]
    )
    np.testing.assert_array_equal(x[0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("cells", "column", "said"),
    [
        ([-1.0, 0.5, 2.0], 0, "column 0 has 1 cells that are negative"),
        ([0.0, 1.5, 2.0], 1, "column 1 has 1 cells that are outside 0 to 1"),
        ([0.0, 0.5, -2.0], 1, "column 2 has 1 cells that are negative"),
    ],
)
def test_an_impossible_cell_is_refused(cells: list[float], column: int, said: str) -> None:
    x = np.array([[*cells, 1.0, 0.0]])

    with pytest.raises(ValueError, match=said):
        LAYOUT.cells(x, column)


@pytest.mark.parametrize(
    ("kinds", "trials", "said"),
    [
        (("continuous",), None, "expected 2 of"),
        (("continuous", "amount"), None, "'amount'"),
        (("continuous", "share"), None, r"share columns \[1\]"),
        (("continuous", "share"), {1: 7}, "a column of 0 to 1"),
        (("count", "category"), None, "a continuous column among them"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(
    kinds: tuple[str, ...], trials: dict[int, int] | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Layout.declared(kinds, trials, 2)


def test_shares_side_by_side_are_as_one_by_one():
    random = np.random.default_rng(0)
    parts, masses = [], []
    for column in range(3):
        tried = random.integers(1, 8 + column, 60)
        cells = np.unique(random.binomial(tried, 0.2 + 0.2 * column) + 1j * tried)
        parts.append(ShareBlock(column, on(cells)))
        masses.append(random.gamma(1, 2, (4, len(cells))))
    parts.insert(1, CountBlock(9, on(np.arange(5.0))))
    masses.insert(1, random.gamma(1, 2, (4, 5)))
    histogram = np.concatenate(masses, axis=1)

    alone, together = Blocks(tuple(parts)).begun(histogram), Blocks(tuple(parts)).stacked()
    assert together.stack is not None
    together = together.begun(histogram).updated(histogram).of(slice(1, 3))
    alone = alone.updated(histogram).of(slice(1, 3))

    np.testing.assert_allclose(together.log_table(), alone.log_table(), atol=1e-9)
    np.testing.assert_allclose(together.log_prior(), alone.log_prior(), atol=1e-9)
    for one, other in zip(together.parts, alone.parts, strict=True):
        for name, law in other.to_arrays().items():
            np.testing.assert_allclose(one.to_arrays()[name], law, rtol=1e-7)
