"""Ids that last: which segment of a new model is which of the champion's, and what became of each.

Both models are asked about the same customers at the same moment. A segment is then a fuzzy set,
each customer's posterior being the degree of membership, so that a customer who is torn between
two segments counts for both and none is decided twice. Two such sets meet in the smaller of the
two degrees and join in the larger (Zadeh 1965); hard assignments give the ordinary intersection
and union.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

MIN_OVERLAP = 0.3  # intersection over union from which a segment inherits the other's id
MIN_SHARE = 0.3  # of a segment's mass, from which a part of it is worth a link
KINDS = ("kept", "split", "merged", "new", "retired")


@dataclass(frozen=True)
class Match:
    """Ids of a new model's segments: `ids[position]`; which of the old were kept or retired.

    links: one row per link, the columns of `linked`.
    """

    ids: tuple[int, ...]
    kept: tuple[int, ...]
    new: tuple[int, ...]
    retired: tuple[int, ...]
    links: pd.DataFrame


def match(previous: pd.DataFrame, current: pd.DataFrame, next_id: int) -> Match:
    """Ids for the new model's segments, inherited where a segment keeps its customers.

    previous: posteriors under the champion, customers as index and segment ids as columns;
    current: those under the new model, the columns in the order of its positions. Only customers
    whom both assign count. Pairs are chosen together so that intersection over union, summed, is
    largest (Hungarian method); a pair under MIN_OVERLAP is no heir. New ids count up from
    next_id, which is above every id ever given, so that a retired id never returns.
    """
    old, new = shared(previous, current)
    names = [int(i) for i in previous.columns]
    heirs = _heirs(overlap(old, new))
    ids, following = [], max([next_id, *(name + 1 for name in names)])
    for position in range(new.shape[1]):
        if position in heirs:
            ids.append(names[heirs[position]])
        else:
            ids.append(following)
            following += 1
    mass = coupled_mass(old, new, [(row, column) for column, row in heirs.items()])
    return Match(
        tuple(ids),
        kept=tuple(name for name in names if name in ids),
        new=tuple(i for i in ids if i not in names),
        retired=tuple(name for name in names if name not in ids),
        links=linked(mass, names, ids),
    )


def shared(previous: pd.DataFrame, current: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The posteriors (n, old) and (n, new) of the customers whom both models assign."""
    both = previous.index.intersection(current.index)
    return previous.loc[both].to_numpy(np.float64), current.loc[both].to_numpy(np.float64)


def overlap(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(old, new) intersection over union of posterior mass; zero where there is no mass.

    A model has overlap one with itself, however uncertain its posteriors are.
    """
    common = np.array([np.minimum(column[:, None], new).sum(axis=0) for column in old.T])
    common = common.reshape(old.shape[1], new.shape[1])
    union = old.sum(axis=0)[:, None] + new.sum(axis=0) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _heirs(overlaps: np.ndarray) -> dict[int, int]:
    """The old row of each new column that inherits."""
    rows, columns = linear_sum_assignment(-overlaps)
    pairs = zip(rows, columns, strict=True)
    return {int(c): int(r) for r, c in pairs if overlaps[r, c] >= MIN_OVERLAP}


def coupled_mass(
    old: np.ndarray, new: np.ndarray, pairs: Sequence[tuple[int, int]] = ()
) -> np.ndarray:
    """(old, new) posterior mass that goes from each old segment to each new one.

    Of each customer as much as can stays in the matched `pairs` (the maximal coupling of the two
    posteriors); the rest is spread in proportion. Rows sum to the old segments' mass and columns
    to the new ones', where both posteriors of a customer sum to one.
    """
    mass = np.zeros((old.shape[1], new.shape[1]))
    left, right = old.copy(), new.copy()
    for row, column in pairs:
        stays = np.minimum(old[:, row], new[:, column])
        mass[row, column] = stays.sum()
        left[:, row] -= stays
        right[:, column] -= stays
    rest = np.maximum(left.sum(axis=1), right.sum(axis=1))[:, None]
    spread = np.divide(left, rest, out=np.zeros_like(left), where=rest > 0)
    return mass + spread.T @ right


def linked(mass: np.ndarray, old: Sequence[int], new: Sequence[int]) -> pd.DataFrame:
    """The links between two models' segments: from_segment_id, to_segment_id, kind, overlap.

    mass: (old, new), of the ids `old` and `new`. kept: the id goes on. split: an old segment's
    mass goes to several new ones, this being a part of it under another id. merged: several old
    ones went into one, this being all or most of one of them. new and retired: a segment that no
    link reaches, with null at its other end. overlap is the share of the old segment's mass that
    went to the new one, null where an end is. A pair is linked from MIN_SHARE of either's mass on.
    """
    sizes = mass.sum(axis=1, keepdims=True), mass.sum(axis=0, keepdims=True)
    given, taken = (
        np.divide(mass, size, out=np.zeros_like(mass), where=size > 0) for size in sizes
    )
    rows: list[tuple[int | None, int | None, str, float | None]] = []
    for i, j in np.ndindex(*mass.shape):
        if old[i] == new[j]:
            rows.append((old[i], new[j], "kept", float(given[i, j])))
        elif max(given[i, j], taken[i, j]) >= MIN_SHARE:
            kind = "split" if taken[i, j] > given[i, j] else "merged"
            rows.append((old[i], new[j], kind, float(given[i, j])))
    linked_old, linked_new = {row[0] for row in rows}, {row[1] for row in rows}
    rows += [(None, i, "new", None) for i in new if i not in linked_new]
    rows += [(i, None, "retired", None) for i in old if i not in linked_old]
    columns = ["from_segment_id", "to_segment_id", "kind", "overlap"]
    types = {"from_segment_id": "Int64", "to_segment_id": "Int64", "overlap": "float64"}
    return pd.DataFrame(rows, columns=columns).astype(types)
