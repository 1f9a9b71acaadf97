"""From a density to published segments that a second fit would find again.

Where customers fall apart, segments are groups of the mixture's parts, if fits on halves of the
customers find as many and the same. Where they form one continuum, the parts describe its shape and
wander from fit to fit; segments are then a cut of the basis that marketing knows (recency,
frequency, money) into round cells of nearest centres. Its number is a convention, left only where
halves do not agree on it: what a number costs that changes from fit to fit is more than what fewer
cells bring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from segmenter.agreement import SPLITS, Labels, Pairs, agreement, bootstraps, halves, refits
from segmenter.cuts import Cut, cut
from segmenter.em import SingularFitError
from segmenter.merging import MERGE_OVERLAP, Merge, group_terms, merge, posteriors
from segmenter.model import SegmentMixture

BASIS = ("recency_days", "purchase_days", "net_amount")  # said more of the future than with more
CUT_SEGMENTS = 6  # of a continuum, which has no number of its own; RFM tools show five to eleven
RESAMPLED = 4_000  # customers looked at; agreement no longer grows with more
STABLE = 0.8  # adjusted Rand index from which two fits show the same segments
FOUND = 0.93  # from which parts are segments; on continua halves came to .91 by chance
CUT_KEPT = 0.7  # from which a cut keeps the conventional number of cells
CUT_AT_ALL = 0.5  # of two cells; below, the rows have no such shape
MERGE_ROWS = 500  # below, overlap is estimated too roughly and real groups get joined
MAX_JOINED_SHARE = 0.5  # of all customers, in one group of overlapping parts: a continuum
FEWER_PARTS = 3  # than the mixture has, that a fit on half of the rows may have

Grouped = tuple[list[tuple[int, ...]], list[Merge]]
Grouping = Callable[[np.ndarray], Grouped]  # of the terms (n, K) of parts


@dataclass(frozen=True)
class Task:
    """What is asked of one stratum's segments.

    wanted, limit: their number where a person named it, and the most. least: smallest share of
    the stratum's rows. cells: of a cut, where nobody named a number. share: of the stratum among
    all customers. columns: of the matrix, for a cut.
    """

    wanted: int | None
    limit: int
    least: float
    cells: int
    share: float
    columns: Sequence[int]
    seed: int


@dataclass(frozen=True)
class Published:
    """The segments of one stratum: groups of parts, or a cut; `pairs` show how they last.

    tried: agreement by kind and number, in the order looked at.
    """

    groups: list[tuple[int, ...]]
    cut: Cut | None
    merges: list[Merge]
    pairs: Pairs
    agreement: float
    tried: list[dict[str, Any]]

    @property
    def n_segments(self) -> int:
        return len(self.groups) if self.cut is None else len(self.cut.means)

    def record(self) -> dict[str, Any]:
        """For the model card, as JSON."""
        return {
            "by": "parts" if self.cut is None else "cut",
            "segments": self.n_segments,
            "agreement": self.agreement,
            "stable": self.agreement >= STABLE,
            "tried": self.tried,
        }


def publish(
    mixture: SegmentMixture, matrix: np.ndarray, plain: np.ndarray, task: Task
) -> Published:
    """The segments that halves of the customers agree on, of parts or else of a cut.

    matrix, plain: (n, d) ordinary rows as the density sees them, and with counts as they are.
    Where they agree on none, the coarsest cut, unless they do not agree on that at all; where a
    person named the number, that many.
    """
    terms = part_terms(mixture, matrix)
    seen: list[Published] = []
    for looked_at in _candidates(mixture, matrix, plain, terms, task):
        seen.append(looked_at)
        if looked_at.agreement >= _enough(looked_at, task):
            return replace(looked_at, tried=_told(seen))
    if not seen or (task.cells == 1 and not task.wanted):
        return replace(_everybody(terms, task), tried=_told(seen))
    return replace(_least_unstable(seen, task), tried=_told(seen))


def _enough(published: Published, task: Task) -> float:
    """The agreement from which it is published."""
    if not task.wanted and published.cut is None:
        return FOUND
    by_convention = not task.wanted and published.n_segments == min(task.cells, task.limit)
    return CUT_KEPT if by_convention else STABLE


def _least_unstable(seen: Sequence[Published], task: Task) -> Published:
    """Of what halves do not agree on: the coarsest cut, if it is anything to them."""
    if not task.wanted:
        if seen[-1].agreement >= CUT_AT_ALL:
            return seen[-1]
        seen = [one for one in seen if one.cut is None or one is seen[-1]]
    return max(seen, key=lambda one: one.agreement)


def _told(seen: Sequence[Published]) -> list[dict[str, Any]]:
    return [{k: v for k, v in one.record().items() if k != "tried"} for one in seen]


def part_terms(mixture: SegmentMixture, matrix: np.ndarray) -> np.ndarray:
    """(n, K) log of weight times density of the mixture's parts, without its noise."""
    return mixture.log_terms(matrix)[:, : mixture.n_components_]


def _grouping(task: Task, overlap: float) -> Grouping:
    """From the terms of parts to groups that lie apart: one where they are a continuum."""

    def apart(terms: np.ndarray) -> Grouped:
        groups, _ = merge(terms, overlap=overlap)
        shares = posteriors(group_terms(terms, groups)).mean(axis=0)
        if any(len(g) > 1 and s > MAX_JOINED_SHARE for g, s in zip(groups, shares, strict=True)):
            return merge(terms, maximum=1)
        return merge(terms, overlap=overlap, min_share=task.least, maximum=task.limit)

    if task.wanted:
        return partial(merge, minimum=task.wanted, maximum=task.wanted, overlap=overlap)
    return apart


def _candidates(
    mixture: SegmentMixture,
    matrix: np.ndarray,
    plain: np.ndarray,
    terms: np.ndarray,
    task: Task,
) -> Iterator[Published]:
    """Groups of parts, then cuts from fine to coarse."""
    if task.wanted != 1:
        yield from _of_parts(mixture, matrix, terms, task)
        if task.cells > 1 or task.wanted:
            yield from _of_cuts(plain, task)


def _everybody(terms: np.ndarray, task: Task) -> Published:
    groups, merges = merge(terms, maximum=1, overlap=np.inf)
    same = np.zeros(len(_sample(len(terms), task)), dtype=int)
    return Published(groups, None, merges, [(same, same)] * SPLITS, 1.0, [])


def _of_parts(
    mixture: SegmentMixture, matrix: np.ndarray, terms: np.ndarray, task: Task
) -> Iterator[Published]:
    """Groups of the parts, as far as refits agree on them and on their number.

    Each refit groups its own parts, into as many as it finds and into as many as these are; the
    lower agreement counts.
    """
    overlap = np.inf if task.wanted or len(terms) < MERGE_ROWS else MERGE_OVERLAP
    grouping = _grouping(task, overlap)
    groups, merges = grouping(terms)
    if len(groups) < (task.wanted or 2):
        return
    rows = _sample(len(matrix), task)
    try:
        again = _parts_again(mixture, matrix[rows], task)
    except SingularFitError:
        return  # nothing describes samples of these rows: parts are no segments that last
    as_many = partial(merge, minimum=len(groups), maximum=len(groups), overlap=overlap)
    found = [_grouped(again, by, _apart(rows, task)) for by in (grouping, as_many)]
    agreed, pairs = min(found, key=lambda one: one[0])
    yield Published(groups, None, merges, pairs, agreed, [])


def _grouped(again: Pairs, grouping: Grouping, apart: int) -> tuple[float, Pairs]:
    """How far pairs of refits agree, given their terms, whose parts are grouped so."""

    def labels(terms: np.ndarray) -> Labels:
        groups, _ = grouping(terms)
        return np.asarray(group_terms(terms, groups).argmax(axis=1))

    pairs = [(labels(one), labels(other)) for one, other in again]
    return agreement(pairs, apart), pairs


def _parts_again(mixture: SegmentMixture, matrix: np.ndarray, task: Task) -> Pairs:
    """Terms of all rows by pairs of mixtures of the same kind, fitted from nothing.

    They are fitted on halves, with about as many parts; where a half is too small for them, on
    bootstrap samples, which bear as many parts as all rows do.
    """

    def fit(rows: np.ndarray, fewest: int) -> np.ndarray:
        again = SegmentMixture(
            covariance_type=mixture.covariance_type_,
            tails=mixture.tails_,
            kinds=mixture.kinds,
            trials=mixture.trials,
            min_components=fewest,
            max_components=mixture.n_components_,
            n_init=1,
            max_iter=100,
            tol=1e-4 if mixture.kinds is None else 1e-3,  # with shares a pass costs tenfold
            random_state=task.seed,
        )
        return part_terms(again.fit(matrix[rows]), matrix)

    fewest = max(task.wanted or 1, mixture.n_components_ - FEWER_PARTS)
    try:
        return refits(lambda rows: fit(rows, fewest), halves(len(matrix), task.seed))
    except SingularFitError:
        return refits(lambda rows: fit(rows, 1), bootstraps(len(matrix), task.seed))


def _of_cuts(plain: np.ndarray, task: Task) -> Iterator[Published]:
    rows = _sample(len(plain), task)
    some = plain[rows]
    most = min(task.cells, task.limit)
    for number in [task.wanted] if task.wanted else range(most, 1, -1):
        made = cut(plain, task.columns, number, task.seed)
        if made.shares.min() < task.least and not task.wanted:
            continue

        def fit(half: np.ndarray, k: int = number) -> Labels:
            return cut(some[half], task.columns, k, task.seed).labels(some)

        pairs = refits(fit, halves(len(some), task.seed))
        yield Published([], made, [], pairs, agreement(pairs, _apart(rows, task)), [])


def _sample(n: int, task: Task) -> np.ndarray:
    """Rows at which agreement is looked at: RESAMPLED of all customers, in proportion."""
    size = max(round(RESAMPLED * task.share), 1)
    if n <= size:
        return np.arange(n)
    return np.sort(np.random.default_rng(task.seed).permutation(n)[:size])


def _apart(rows: np.ndarray, task: Task) -> int:
    """How many customers of other strata belong to so many rows."""
    return round(len(rows) * (1 - task.share) / task.share)
