"""What the columns of a matrix are, and the cells of those that are not continuous.

A column that is continuous but for an atom (zero spent) is semicontinuous: a category, at the
atom or not, and a continuous cell that is missing at the atom (Olsen and Schafer 2001).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from segmenter.blocks import PRIOR_ROWS, Block, Blocks, CategoryBlock, Cells, CountBlock, ShareBlock

QUARTERS = 4.0  # of a success: a share of amounts over few trials is not of whole ones

BLOCKS: Mapping[str, type[Block]] = {
    "count": CountBlock,
    "share": ShareBlock,
    "category": CategoryBlock,
    "semicontinuous": CategoryBlock,
}
KINDS = ("continuous", *BLOCKS, "trials")


@dataclass(frozen=True)
class Layout:
    """What each column of X (n, d) is.

    kinds: d of KINDS; a column of trials is read for its shares and has no law of its own, while
    one declared a count has both. trials: per share column the column of its trials. atoms: the
    most frequent value of each semicontinuous column. drawn: numbers of trials, per column of
    them, from which `SegmentMixture.sample` draws.
    """

    kinds: tuple[str, ...]
    trials: Mapping[int, int]
    atoms: Mapping[int, float] = field(default_factory=dict)
    drawn: Mapping[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def declared(
        cls, kinds: Sequence[str] | None, trials: Mapping[int, int] | None, d: int
    ) -> Self:
        """Raises ValueError where the declaration does not fit d columns."""
        told = tuple(kinds) if kinds is not None else ("continuous",) * d
        number = dict(trials or {})
        unknown = sorted(set(told) - set(KINDS))
        if unknown or len(told) != d:
            raise ValueError(f"kinds is {told}; expected {d} of {KINDS}, one per column")
        shares = {column for column, kind in enumerate(told) if kind == "share"}
        if shares != set(number) or not set(number.values()) <= set(range(d)):
            raise ValueError(
                f"trials is {number}; expected a column of 0 to {d - 1} for each of the share "
                f"columns {sorted(shares)}"
            )
        if not any(kind in ("continuous", "semicontinuous") for kind in told):
            raise ValueError(f"kinds is {told}; expected a continuous column among them")
        return cls(told, number)

    @property
    def continuous(self) -> list[int]:
        """The columns of the Gaussian or t part, in order."""
        return self._of(("continuous", "semicontinuous"))

    @property
    def discrete(self) -> list[int]:
        """The columns that have a block, in order."""
        return self._of(tuple(BLOCKS))

    def _of(self, kinds: Sequence[str]) -> list[int]:
        return [column for column, kind in enumerate(self.kinds) if kind in kinds]

    def observed(self, x: np.ndarray) -> Self:
        """With the atoms and the numbers of trials that rows x (n, d) show."""
        atoms = {column: _mode(x[:, column]) for column in self._of(("semicontinuous",))}
        drawn = {column: _spread(x[:, column]) for column in self._of(("trials",))}
        return replace(self, atoms=atoms, drawn=drawn)

    def continuous_part(self, x: np.ndarray) -> np.ndarray:
        """The continuous cells (n, c) of rows x (n, d), NaN at an atom."""
        if not self.discrete and "trials" not in self.kinds:
            return x
        part = x[:, self.continuous]
        for place, column in enumerate(self.continuous):
            if column in self.atoms:
                part[part[:, place] == self.atoms[column], place] = np.nan
        return part

    def cells(self, x: np.ndarray, column: int) -> np.ndarray:
        """The cells (n,) of one discrete column in rows x (n, d); NaN where missing.

        Raises ValueError where a cell is none of the column's kind.
        """
        kind, values = self.kinds[column], x[:, column]
        if kind == "count":
            _refuse(column, values < 0, "negative; a count is not")
        if kind == "semicontinuous":
            return np.where(np.isnan(values), np.nan, values == self.atoms[column])
        return self._shares(x, column) if kind == "share" else values

    def _shares(self, x: np.ndarray, column: int) -> np.ndarray:
        share, trials = x[:, column], x[:, self.trials[column]]
        _refuse(column, (share < 0) | (share > 1), "outside 0 to 1; a share is not")
        _refuse(self.trials[column], trials < 0, "negative; a number of trials is not")
        cells = np.round(QUARTERS * share * trials) / QUARTERS + 1j * trials
        return np.where(trials == 0, np.nan, cells)

    def pooled(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Blocks:
        """The law of all rows, per discrete column: blocks of one component, on all their cells.

        batches: rows (m, d) with their weights (m,); read once.
        """
        found: list[np.ndarray] = [np.zeros(0) for _ in self.discrete]
        masses: list[np.ndarray] = [np.zeros(0) for _ in self.discrete]
        for x, weights in batches:
            for place, column in enumerate(self.discrete):
                cells = self.cells(x, column)
                seen = ~np.isnan(cells)
                every = np.concatenate([found[place], cells[seen]])
                mass = np.concatenate([masses[place], weights[seen]])
                found[place], codes = np.unique(every, return_inverse=True)
                masses[place] = np.bincount(codes, mass, len(found[place]))
        return Blocks(
            tuple(
                _pooled(self.kinds[column], column, distinct, mass)
                for column, distinct, mass in zip(self.discrete, found, masses, strict=True)
            )
        ).stacked()

    def cells_of(self, x: np.ndarray) -> Blocks:
        """Blocks without a law, on the distinct cells of rows x (n, d)."""
        parts = []
        for column in self.discrete:
            cells = np.unique(self.cells(x, column))
            known = cells[~np.isnan(cells)]
            nothing = Cells(known, np.zeros(len(known)))
            parts.append(BLOCKS[self.kinds[column]](column, nothing))
        return Blocks(tuple(parts))

    def encoded(self, x: np.ndarray, blocks: Blocks) -> np.ndarray:
        """Rows (n, c + B): the continuous cells, then each block's codes, -1 where missing."""
        part = self.continuous_part(x)
        if not blocks.parts:
            return part
        codes = [code(self.cells(x, block.column), block.cells.distinct) for block in blocks.parts]
        return np.column_stack([part, *codes])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The declaration, and what the rows showed."""
        arrays = {
            "kinds": np.array([KINDS.index(kind) for kind in self.kinds]),
            "trials": np.array(list(self.trials.items()), dtype=int).reshape(-1, 2),
            "atoms": np.array(list(self.atoms.items()), dtype=float).reshape(-1, 2),
        }
        return arrays | {f"trials.{column}": self.drawn[column] for column in self.drawn}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        kinds = tuple(KINDS[number] for number in arrays["kinds"])
        drawn = {
            column: arrays[f"trials.{column}"]
            for column, kind in enumerate(kinds)
            if kind == "trials"
        }
        atoms = {int(column): float(value) for column, value in arrays["atoms"]}
        return cls(kinds, {int(a): int(b) for a, b in arrays["trials"]}, atoms, drawn)

    def blocks(self, arrays: Mapping[str, np.ndarray], name: str) -> Blocks:
        """The blocks whose arrays are kept as "name.column.field"."""
        return Blocks(
            tuple(
                BLOCKS[self.kinds[column]].from_arrays(column, _under(arrays, f"{name}.{column}."))
                for column in self.discrete
            )
        )


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}


def _pooled(kind: str, column: int, distinct: np.ndarray, mass: np.ndarray) -> Block:
    if len(distinct) == 0:
        raise ValueError(f"column {column} has no known cell; leave it out")
    cells = Cells(distinct, PRIOR_ROWS * mass / mass.sum())
    return BLOCKS[kind](column, cells).begun(mass[None])


def code(cells: np.ndarray, distinct: np.ndarray) -> np.ndarray:
    """The place (n,) of each cell among sorted distinct ones that hold it; -1 where missing."""
    return np.where(np.isnan(cells), -1, np.searchsorted(distinct, cells))


def _mode(values: np.ndarray) -> float:
    found, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    return float(found[counts.argmax()]) if len(found) else np.nan


def _spread(values: np.ndarray) -> np.ndarray:
    """At most 1,000 of the values, evenly over their order."""
    known = np.sort(values[~np.isnan(values)])
    return known[np.linspace(0, len(known) - 1, min(len(known), 1_000)).round().astype(int)]


def _refuse(column: int, wrong: np.ndarray, said: str) -> None:
    if wrong.any():
        raise ValueError(f"column {column} has {int(wrong.sum())} cells that are {said}")
