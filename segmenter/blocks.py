"""Columns that are not continuous: what each component says about counts, shares, categories.

Such a column has few distinct cells: a count, a pair of successes and trials, a level. A block
is one column's law under every component, given as a table over the distinct cells. The terms of
the rows are the table times an indicator of each row's cells, and the M step sees only how much
posterior mass lies on each cell. A missing cell has no indicator: it is integrated out.

Laws: counts are negative binomial (mean, size; Poisson as the size grows), shares beta-binomial
(mean, concentration; binomial as the concentration grows), categories multinomial. The prior is
PRIOR_ROWS pseudo-rows per component, spread over the cells as the column is over all rows: it
keeps means and levels off zero, and is conjugate for categories. A probability is at most one, so
no component can collapse on an atom.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from scipy.sparse import csc_array, csr_array
from scipy.special import digamma, expit, gammaln, logit, zeta

PRIOR_ROWS = 1.0  # one row like all others: a level no row of a component has stays possible
FIRST_STEPS = 4  # of Newton's from a first guess; later one in each M step, EM goes on with them
HALVINGS = 8  # of a Newton step before it is given up
ROUNDING = 1e-11  # of an objective; sums of factorials cancel to some of its digits
LONGEST_STEP = 3.0  # in logarithms; the likelihood is flat towards Poisson and binomial
SIZE_RANGE = (1e-3, 1e5)  # at the upper end a Poisson or a binomial to five digits
SHARE_RANGE = (1e-7, 1 - 1e-7)
SHARE_LIMITS = np.column_stack([logit(SHARE_RANGE), np.log(SIZE_RANGE)])  # of a Newton step
MEAN_FLOOR = 1e-9  # of a count that is zero in every row
FIRST_CONCENTRATION = 5.0  # a guess that Newton's steps leave
MOST_NODES = 500  # of a sum over whole numbers; beyond, gamma functions are cheaper

Law = TypeVar("Law", bound="_Law")
Sums = tuple[np.ndarray, np.ndarray, np.ndarray]  # value and two derivatives, (K,) each
Evaluated = tuple[np.ndarray, np.ndarray, np.ndarray]  # value (K,), gradient (K, m), Hessian


class _Law(Protocol):
    """What an M step gives anew."""

    def updated(self, histogram: np.ndarray) -> Self: ...


@dataclass(frozen=True, eq=False)
class Cells:
    """The sorted distinct cells (V,) of a column in the rows at hand.

    A share's cell is the complex number successes + trials i. pseudo: rows per distinct cell (V,)
    by which the prior weighs.
    """

    distinct: np.ndarray
    pseudo: np.ndarray

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        """Of counts; or of successes, failures and trials. Of the same cells in every M step."""
        if not np.iscomplexobj(self.distinct):
            return (Fold.of(self.distinct),)
        s, t = self.distinct.real, self.distinct.imag
        return Fold.of(s), Fold.of(t - s), Fold.of(t)


@dataclass(frozen=True, eq=False)
class Block(ABC):
    """One column under K components, on the distinct cells of the rows at hand; immutable."""

    LAW: ClassVar[tuple[str, ...]]  # the fields that hold one entry per component

    column: int
    cells: Cells

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Free parameters of all components together."""

    @abstractmethod
    def log_table(self) -> np.ndarray:
        """Log probability in nats of each distinct cell under each component, (K, V)."""

    @abstractmethod
    def guessed(self, histogram: np.ndarray) -> Self:
        """A first law of a partition: rows (K, V) per component and distinct cell."""

    def begun(self, histogram: np.ndarray) -> Self:
        """The law of a partition: some steps from the guess."""
        return _stepped(self.guessed(histogram), histogram)

    @abstractmethod
    def updated(self, histogram: np.ndarray) -> Self:
        """The M step for posterior mass (K, V): the penalised likelihood does not fall."""

    @abstractmethod
    def sample(
        self, labels: np.ndarray, trials: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """The column (n,) drawn for rows of components `labels` (n,); `trials` are a share's."""

    @abstractmethod
    def coordinates(self) -> np.ndarray:
        """The distinct cells as points (V, m) in which groups of rows may be looked for."""

    def log_prior(self) -> np.ndarray:
        """Log density of the prior at each component's law, (K,), up to a constant."""
        return self.log_table() @ self.cells.pseudo

    def of(self, components: slice) -> Self:
        """The law of some of the components alone."""
        return replace(self, **{name: getattr(self, name)[components] for name in self.LAW})

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The law; the cells belong to the rows."""
        return {name: getattr(self, name) for name in self.LAW}

    @classmethod
    def from_arrays(cls, column: int, arrays: Mapping[str, np.ndarray]) -> Self:
        nowhere = Cells(np.zeros(0), np.zeros(0))
        return cls(column, nowhere, **{name: arrays[name] for name in cls.LAW})


@dataclass(frozen=True, eq=False)
class CountBlock(Block):
    """Negative binomial counts: mean (K,) and size (K,), variance mean + mean^2 / size."""

    LAW = ("mean", "size")

    mean: np.ndarray = field(default_factory=lambda: np.ones(1))
    size: np.ndarray = field(default_factory=lambda: np.ones(1))

    @property
    def n_parameters(self) -> int:
        return 2 * len(self.mean)

    def log_table(self) -> np.ndarray:
        ratio, x = (self.mean / self.size)[:, None], self.cells.distinct
        odds = np.log(ratio) - np.log1p(ratio)
        terms = _rising(self.size, x) + odds * x - self.size[:, None] * np.log1p(ratio)
        return np.asarray(terms - gammaln(x + 1))

    def guessed(self, histogram: np.ndarray) -> Self:
        """Sizes by the method of moments."""
        x, mass = self.cells.distinct, histogram + self.cells.pseudo
        total = mass.sum(axis=1)
        mean = np.maximum(mass @ x / total, MEAN_FLOOR)
        excess = mass @ x**2 / total - mean**2 - mean
        size = np.clip(mean**2 / np.maximum(excess, 1e-2 * mean), *SIZE_RANGE)
        return replace(self, mean=mean, size=size)

    def updated(self, histogram: np.ndarray) -> Self:
        """The mean is the histogram's whatever the size is; a Newton step on the log size."""
        x, mass = self.cells.distinct, histogram + self.cells.pseudo
        total = mass.sum(axis=1)
        mean = np.maximum(mass @ x / total, MEAN_FLOOR)
        rising = self.cells.folds[0].rising(mass)

        def evaluated(theta: np.ndarray) -> Evaluated:
            size = np.exp(theta[:, 0])
            value, first, second = rising(size)
            ratio = mean / size
            # beside the factorials a cell counts by its value, which adds up to total * mean
            value = value + total * (mean * np.log(ratio) - (size + mean) * np.log1p(ratio))
            gradient = size * (first - total * np.log1p(ratio))
            second = second + total * mean / (size * (size + mean))
            return value, gradient[:, None], (size**2 * second + gradient)[:, None, None]

        begun = np.log(np.broadcast_to(self.size, mean.shape))[:, None]
        theta = _ascend(begun, evaluated, np.log(SIZE_RANGE)[:, None])
        return replace(self, mean=mean, size=np.exp(theta[:, 0]))

    def sample(
        self, labels: np.ndarray, trials: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        rate = generator.gamma(self.size[labels], (self.mean / self.size)[labels])
        return generator.poisson(rate).astype(float)

    def coordinates(self) -> np.ndarray:
        """log(1 + count)."""
        return np.log1p(self.cells.distinct)[:, None]


@dataclass(frozen=True, eq=False)
class ShareBlock(Block):
    """Beta-binomial shares: mean (K,) and concentration (K,); the number of trials is given.

    Successes need not be whole: gamma functions stand for the factorials.
    """

    LAW = ("mean", "concentration")

    mean: np.ndarray = field(default_factory=lambda: np.full(1, 0.5))
    concentration: np.ndarray = field(default_factory=lambda: np.full(1, FIRST_CONCENTRATION))

    @property
    def n_parameters(self) -> int:
        return 2 * len(self.mean)

    def log_table(self) -> np.ndarray:
        s, t = self.cells.distinct.real, self.cells.distinct.imag
        a, b = self.mean * self.concentration, (1 - self.mean) * self.concentration
        terms = _rising(a, s) + _rising(b, t - s) - _rising(a + b, t)
        return np.asarray(terms + gammaln(t + 1) - gammaln(s + 1) - gammaln(t - s + 1))

    def guessed(self, histogram: np.ndarray) -> Self:
        """Means of the pooled trials."""
        mass = histogram + self.cells.pseudo
        total = np.maximum(mass @ self.cells.distinct.imag, 1e-300)
        mean = np.clip(mass @ self.cells.distinct.real / total, *SHARE_RANGE)
        first = np.full(len(mean), FIRST_CONCENTRATION)
        return replace(self, mean=mean, concentration=first)

    def updated(self, histogram: np.ndarray) -> Self:
        """A Newton step on the logit of the mean and the log concentration together.

        The likelihood needs the histogram only per number of successes, failures and trials
        (Minka 2000, "Estimating a Dirichlet distribution", section 3).
        """
        mass = histogram + self.cells.pseudo
        rising = [fold.rising(mass) for fold in self.cells.folds]

        def evaluated(theta: np.ndarray) -> Evaluated:
            a, b = _beta(theta)
            won, lost, tried = (
                sums(shape) for shape, sums in zip((a, b, a + b), rising, strict=True)
            )
            slopes = _share_slopes(a, b, won[1:], lost[1:], tried[1:])
            return won[0] + lost[0] - tried[0], *slopes

        begun = np.column_stack([logit(self.mean), np.log(self.concentration)])
        begun = np.broadcast_to(begun, (len(histogram), 2))
        theta = _ascend(begun, evaluated, SHARE_LIMITS)
        return replace(self, mean=expit(theta[:, 0]), concentration=np.exp(theta[:, 1]))

    def sample(
        self, labels: np.ndarray, trials: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        a, b = self.mean * self.concentration, (1 - self.mean) * self.concentration
        chances = generator.beta(a[labels], b[labels])
        drawn = generator.binomial(np.nan_to_num(trials).round().astype(int), chances)
        return np.divide(drawn, trials, out=np.full(len(labels), np.nan), where=trials > 0)

    def coordinates(self) -> np.ndarray:
        """Logit of the posterior mean share under the first law (empirical Bayes)."""
        s, t = self.cells.distinct.real, self.cells.distinct.imag
        shrunk = (s + self.mean[0] * self.concentration[0]) / (t + self.concentration[0])
        return np.asarray(logit(np.clip(shrunk, *SHARE_RANGE)))[:, None]


@dataclass(frozen=True, eq=False)
class CategoryBlock(Block):
    """Categories: the probability (K, L + 1) of each of L sorted levels and of any other one.

    A level not seen in the fit has the same probability under every component, that of Laplace's
    rule for one more row: it makes a row unusual and says nothing of its component.
    """

    LAW = ("probability",)

    probability: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))
    levels: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def n_parameters(self) -> int:
        return len(self.probability) * (len(self.levels) - 1)

    def log_table(self) -> np.ndarray:
        place = np.searchsorted(self.levels, self.cells.distinct)
        known = np.append(self.levels, np.nan)[place] == self.cells.distinct
        return np.log(self.probability[:, np.where(known, place, len(self.levels))])

    def guessed(self, histogram: np.ndarray) -> Self:
        return self.updated(histogram)

    def updated(self, histogram: np.ndarray) -> Self:
        """Shares of the mass: the maximum in closed form."""
        mass = histogram + self.cells.pseudo
        unseen = self.probability[0, -1] or 1 / (2 + histogram.sum())
        shares = (1 - unseen) * mass / np.maximum(mass.sum(axis=1, keepdims=True), 1e-300)
        probability = np.column_stack([shares, np.full(len(mass), unseen)])
        return replace(self, levels=self.cells.distinct, probability=probability)

    def sample(
        self, labels: np.ndarray, trials: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        up_to = np.cumsum(self.probability[:, :-1], axis=1)
        drawn = generator.random(len(labels)) * up_to[labels, -1]
        return np.asarray(self.levels[(drawn[:, None] > up_to[labels]).sum(axis=1)])

    def coordinates(self) -> np.ndarray:
        """One axis per level."""
        return np.eye(len(self.cells.distinct))

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"probability": self.probability, "levels": self.levels}

    @classmethod
    def from_arrays(cls, column: int, arrays: Mapping[str, np.ndarray]) -> Self:
        return replace(super().from_arrays(column, arrays), levels=arrays["levels"])


@dataclass(frozen=True)
class Blocks:
    """The blocks of all discrete columns, their distinct cells one after another: V in all."""

    parts: tuple[Block, ...] = ()
    stack: Stack | None = field(default=None, compare=False, repr=False)  # of the same cells

    def stacked(self) -> Self:
        """The same, its shares made ready to be worked on side by side."""
        return replace(self, stack=Stack.of(self.parts))

    @property
    def n_parameters(self) -> int:
        return sum(block.n_parameters for block in self.parts)

    def log_table(self) -> np.ndarray:
        """Log probabilities (K, V) in nats."""
        known = {} if self.stack is None else self.stack.log_tables(self.parts)
        tables = (
            known[place] if place in known else block.log_table()
            for place, block in enumerate(self.parts)
        )
        return np.concatenate(list(tables), axis=1)

    def log_prior(self) -> np.ndarray:
        """(K,), or zero without blocks."""
        if not self.parts:
            return np.asarray(0.0)
        return self.log_table() @ np.concatenate([block.cells.pseudo for block in self.parts])

    def begun(self, histogram: np.ndarray) -> Self:
        """The laws of a partition, (K, V)."""
        parts = zip(self.parts, self._parted(histogram), strict=True)
        guessed = replace(self, parts=tuple(block.guessed(mass) for block, mass in parts))
        return _stepped(guessed, histogram)

    def updated(self, histogram: np.ndarray) -> Self:
        """The M step for posterior mass (K, V)."""
        masses = self._parted(histogram)
        known = {} if self.stack is None else self.stack.updated(self.parts, masses)
        parts = (
            known[place] if place in known else block.updated(mass)
            for place, (block, mass) in enumerate(zip(self.parts, masses, strict=True))
        )
        return replace(self, parts=tuple(parts))

    def _parted(self, histogram: np.ndarray) -> list[np.ndarray]:
        if not self.parts:
            return []
        flat = histogram.reshape(-1, histogram.shape[-1])
        return np.split(flat, np.cumsum([len(b.cells.distinct) for b in self.parts])[:-1], axis=1)

    def of(self, components: slice) -> Self:
        """The laws of some of the components alone."""
        return replace(self, parts=tuple(block.of(components) for block in self.parts))

    def on(self, cells: Self) -> Self:
        """The same laws, if any, on the distinct cells and the prior of others."""
        if not self.parts:
            return self
        pairs = zip(self.parts, cells.parts, strict=True)
        parts = tuple(replace(one, cells=other.cells) for one, other in pairs)
        return type(self)(parts).stacked()

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """The components of several, one after another; cells are the first one's."""
        parts = zip(*(blocks.parts for blocks in several), strict=True)
        return replace(several[0], parts=tuple(_joined(blocks) for blocks in parts))


def _stepped(law: Law, histogram: np.ndarray) -> Law:
    for _ in range(FIRST_STEPS):
        law = law.updated(histogram)
    return law


def _joined(blocks: Sequence[Block]) -> Block:
    laws: dict[str, Any] = {
        name: np.concatenate([getattr(block, name) for block in blocks]) for name in blocks[0].LAW
    }
    return replace(blocks[0], **laws)


NO_BLOCKS = Blocks()


def indicators(codes: np.ndarray, sizes: Sequence[int]) -> csc_array:
    """Which of all blocks' cells a row has: (V, n) of ones, from codes (B, n).

    sizes: distinct cells per block. A table (K, V) times these are the terms of the rows, masses
    (K, n) times their transpose the histogram (K, V); a missing cell has no entry.
    """
    offsets = np.cumsum([0, *sizes])
    block, row = np.nonzero(codes >= 0)
    places = (codes[block, row] + offsets[block], row)
    return csc_array((np.ones(len(row)), places), shape=(int(offsets[-1]), codes.shape[1]))


def _rising(shape: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Log of gamma(shape + x) / gamma(shape), (K, V), the rising factorial."""
    distinct, codes = np.unique(x, return_inverse=True)
    return (gammaln(shape[:, None] + distinct) - gammaln(shape)[:, None])[:, codes]


@dataclass(frozen=True)
class Fold:
    """Cells x (V,) made ready for sums of log rising factorials, as their shape changes.

    Of whole numbers the factorial is a product, so that its log is the sum of log(shape + j) over
    j < x, and all that counts is how much mass lies beyond each j: no gamma function is needed.
    nodes (J,) are these j, or the distinct x. order: the cells by rising x; starts: of each
    distinct one among them.
    """

    nodes: np.ndarray
    distinct: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    whole: bool

    @classmethod
    def of(cls, x: np.ndarray) -> Self:
        order = np.argsort(x, kind="stable")
        distinct, starts = np.unique(x[order], return_index=True)
        whole = bool(len(x) and x.max() <= MOST_NODES and (x == np.floor(x)).all())
        nodes = np.arange(max(int(x.max()), 1)) if whole else distinct
        return cls(nodes, distinct, order, starts, whole)

    def folded(self, mass: np.ndarray) -> np.ndarray:
        """(K, J): the mass (K, V) beyond each node, or on it where cells are not whole."""
        held = np.add.reduceat(mass[:, self.order], self.starts, axis=1)
        if not self.whole:
            return np.asarray(held)
        beyond = np.cumsum(held[:, ::-1], axis=1)[:, ::-1]
        after = np.searchsorted(self.distinct, self.nodes, side="right")
        return np.column_stack([beyond, np.zeros(len(mass))])[:, after]

    def rising(self, mass: np.ndarray) -> Callable[[np.ndarray], Sums]:
        """Of a shape (K,): the sum with mass (K, V), its first and second derivative, (K,) each."""
        folded = self.folded(mass)

        def sums(shape: np.ndarray) -> Sums:
            if self.whole:
                return _whole_sums(folded, self.nodes, shape)
            each = shape[:, None] + self.nodes
            parts = (
                gammaln(each) - gammaln(shape)[:, None],
                digamma(each) - digamma(shape)[:, None],
                zeta(2, each) - zeta(2, shape)[:, None],  # trigamma
            )
            total, first, second = ((folded * part).sum(axis=1) for part in parts)
            return total, first, second

        return sums


def _whole_sums(folded: np.ndarray, nodes: np.ndarray, shape: np.ndarray) -> Sums:
    """Of shapes (K,): sums of log(shape + node) with the folded mass (K, J), and derivatives."""
    each = shape[:, None] + nodes
    first = folded / each
    second = -(first / each).sum(axis=1)
    return (folded * np.log(each)).sum(axis=1), first.sum(axis=1), second


@dataclass(frozen=True, eq=False)
class Stack:
    """Shares of whole successes side by side: one Newton step serves all B columns, and small
    arrays, whose cost is in the calls, become one.

    places: which of the blocks they are. counts: successes, failures and trials of their V cells;
    owner: the column of each. folds: for each count a matrix (V, B * J) that folds masses as `Fold`
    does, on the nodes (J,) that all have in common.
    """

    places: tuple[int, ...]
    counts: tuple[np.ndarray, np.ndarray, np.ndarray]
    owner: np.ndarray
    nodes: np.ndarray
    folds: tuple[csr_array, csr_array, csr_array]
    pseudo: np.ndarray
    constant: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[Block]) -> Self | None:
        """None where there are not two such columns."""
        places = tuple(
            place
            for place, block in enumerate(parts)
            if isinstance(block, ShareBlock) and all(fold.whole for fold in block.cells.folds)
        )
        if len(places) < 2:
            return None
        blocks = [parts[place] for place in places]
        cells = np.concatenate([block.cells.distinct for block in blocks])
        s, t = cells.real.astype(int), cells.imag.astype(int)
        counts = (s, t - s, t)
        owner = np.repeat(np.arange(len(blocks)), [len(b.cells.distinct) for b in blocks])
        nodes = np.arange(max(int(t.max()), 1))
        one, other, third = (_folding(x, owner, len(blocks), len(nodes)) for x in counts)
        return cls(
            places,
            counts,
            owner,
            nodes,
            (one, other, third),
            np.concatenate([block.cells.pseudo for block in blocks]),
            gammaln(t + 1) - gammaln(s + 1) - gammaln(t - s + 1),
        )

    def log_tables(self, parts: Sequence[Block]) -> dict[int, np.ndarray]:
        """The table (K, V) of each of the columns, by its place."""
        mean, concentration = self._laws(parts)
        a, b = mean * concentration, (1 - mean) * concentration
        won, lost, tried = (
            self._rising(shape)[:, self.owner, count]
            for shape, count in zip((a, b, a + b), self.counts, strict=True)
        )
        table = won + lost - tried + self.constant
        return dict(zip(self.places, self._split(table), strict=True))

    def _rising(self, shape: np.ndarray) -> np.ndarray:
        """Log rising factorials (K, B, J + 1) of shapes (K, B)."""
        logs = np.log(shape[:, :, None] + self.nodes)
        return np.concatenate([np.zeros((*shape.shape, 1)), np.cumsum(logs, axis=2)], axis=2)

    def updated(self, parts: Sequence[Block], masses: Sequence[np.ndarray]) -> dict[int, Block]:
        """The M step of each of the columns, by its place: as `ShareBlock.updated`."""
        mass = np.concatenate([masses[place] for place in self.places], axis=1) + self.pseudo
        folded = [(mass @ fold).reshape(-1, len(self.nodes)) for fold in self.folds]  # (K * B, J)

        def evaluated(theta: np.ndarray) -> Evaluated:
            a, b = _beta(theta)
            won, lost, tried = (
                _whole_sums(held, self.nodes, shape)
                for held, shape in zip(folded, (a, b, a + b), strict=True)
            )
            slopes = _share_slopes(a, b, won[1:], lost[1:], tried[1:])
            return won[0] + lost[0] - tried[0], *slopes

        mean, concentration = self._laws(parts)  # of one component where there is no law yet
        begun = np.stack([logit(mean), np.log(concentration)], axis=2)
        begun = np.broadcast_to(begun, (len(mass), *begun.shape[1:])).reshape(-1, 2)
        theta = _ascend(begun, evaluated, SHARE_LIMITS).reshape(len(mass), -1, 2)
        means, concentrations = expit(theta[:, :, 0]), np.exp(theta[:, :, 1])
        found = {}
        for at, place in enumerate(self.places):
            laws: dict[str, Any] = {"mean": means[:, at], "concentration": concentrations[:, at]}
            found[place] = replace(parts[place], **laws)
        return found

    def _laws(self, parts: Sequence[Block]) -> tuple[np.ndarray, np.ndarray]:
        """Means and concentrations, (K, B) each."""
        mean, concentration = (
            np.stack([getattr(parts[place], name) for place in self.places], axis=1)
            for name in ShareBlock.LAW
        )
        return mean, concentration

    def _split(self, table: np.ndarray) -> list[np.ndarray]:
        return np.split(table, np.flatnonzero(np.diff(self.owner)) + 1, axis=1)


def _folding(x: np.ndarray, owner: np.ndarray, columns: int, nodes: int) -> csr_array:
    """(V, columns * nodes) of ones at each node below a cell's whole number x (V,)."""
    row = np.repeat(np.arange(len(x)), x)
    node = np.arange(len(row)) - np.repeat(np.cumsum(x) - x, x)
    places = (row, owner[row] * nodes + node)
    return csr_array((np.ones(len(row)), places), shape=(len(x), columns * nodes))


def _beta(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both shapes (K,) of the beta law with (logit mean, log concentration) = theta (K, 2)."""
    concentration = np.exp(theta[:, 1])
    return expit(theta[:, 0]) * concentration, expit(-theta[:, 0]) * concentration


def _share_slopes(
    a: np.ndarray,
    b: np.ndarray,
    won: tuple[np.ndarray, np.ndarray],
    lost: tuple[np.ndarray, np.ndarray],
    tried: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (K, 2) and Hessian (K, 2, 2) by theta from the slopes by a, b and a + b.

    The chain rule with da = -db = turn by the logit, da = a, db = b by the log concentration.
    """
    c = a + b
    turn = a * b / c
    lean = turn * (won[0] - lost[0])
    grow = a * won[0] + b * lost[0] - c * tried[0]
    bend = turn**2 * (won[1] + lost[1]) + (b - a) / c * lean
    cross = turn * (a * won[1] - b * lost[1]) + lean
    stretch = a**2 * won[1] + b**2 * lost[1] - c**2 * tried[1] + grow
    hessian = np.array([[bend, cross], [cross, stretch]]).transpose(2, 0, 1)
    return np.column_stack([lean, grow]), hessian


def _ascend(
    theta: np.ndarray, evaluated: Callable[[np.ndarray], Evaluated], limits: np.ndarray
) -> np.ndarray:
    """A Newton step up from theta (K, m), each component by itself; no objective falls.

    limits: (2, m). A step that would fall is halved, and given up after HALVINGS.
    """
    value, gradient, hessian = evaluated(theta)
    step = _newton_step(gradient, hessian)
    for _ in range(HALVINGS):
        trial = np.clip(theta + step, *limits)
        better = evaluated(trial)[0] >= value - ROUNDING * np.abs(value)
        if better.all():
            return trial
        step = np.where(better[:, None], step, step / 2)
    return np.where(better[:, None], trial, theta)


def _newton_step(gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Upward steps (K, m): curvatures taken as downward ones, none longer than LONGEST_STEP."""
    curvature, axes = np.linalg.eigh(hessian)
    along = np.einsum("kij,ki->kj", axes, gradient)
    along = along / np.maximum(np.abs(curvature), np.abs(along) / LONGEST_STEP + 1e-300)
    return np.einsum("kij,kj->ki", axes, along)
