"""Whether two fits show the same segments: samples, refits on them, and how far they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.metrics import adjusted_rand_score

SPLITS = 4  # pairs of halves; their agreement varies by .05 from pair to pair

Labels = np.ndarray  # (n,) a group per row
Pairs = list[tuple[Labels, Labels]]  # of the same rows by two fits, one pair per split


def halves(n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of two halves of n, SPLITS times."""
    mixed = [np.random.default_rng([seed, split]).permutation(n) for split in range(SPLITS)]
    return [(np.sort(rows[: n // 2]), np.sort(rows[n // 2 :])) for rows in mixed]


def bootstraps(n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of two samples of n with replacement, SPLITS times (Hennig 2007)."""
    drawn = [
        np.random.default_rng([seed, split]).integers(n, size=(2, n)) for split in range(SPLITS)
    ]
    return [(np.sort(first), np.sort(second)) for first, second in drawn]


def refits(
    fit: Callable[[np.ndarray], np.ndarray], samples: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Pairs:
    """What fits on both samples of each pair say of all rows."""
    return [(fit(first), fit(second)) for first, second in samples]


def agreement(pairs: Pairs, apart: int = 0) -> float:
    """Mean adjusted Rand index of the pairs (Hubert and Arabie 1985).

    apart: customers beside these whom both fits put into one group of their own.
    """
    aside = np.full(apart, -1)
    found = [
        adjusted_rand_score(np.append(first, aside), np.append(second, aside))
        for first, second in pairs
    ]
    return float(np.mean(found))


def joined(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of several strata, whose groups are different ones, as pairs of all customers."""
    together = []
    for split in zip(*parts, strict=True):
        first, second = (
            np.concatenate([1_000 * i + pair[side] for i, pair in enumerate(split)])
            for side in (0, 1)
        )
        together.append((first, second))
    return together
