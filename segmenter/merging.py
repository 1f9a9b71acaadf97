"""Components to published segments: parts of one heavy-tailed or skewed group are joined.

A mixture describes a group that is not Gaussian by several overlapping components. Two parts are
joined while customers of one would too often be taken for the other's (Hennig 2010, section 4.2,
"directly estimated misclassification probabilities"). The mixture itself keeps all its parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MERGE_OVERLAP = 0.05  # thresholds from .02 to .1 gave the same segments, .2 merged too little


@dataclass(frozen=True)
class Merge:
    """One join, of two groups of components."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    overlap: float  # the larger of the two misclassification probabilities
    reason: str  # overlap, number or share


def merge(
    log_terms: np.ndarray,
    minimum: int = 1,
    maximum: int | None = None,
    min_share: float = 0.0,
    overlap: float = MERGE_OVERLAP,
) -> tuple[list[tuple[int, ...]], list[Merge]]:
    """Groups of components, and the joins that led to them, in order.

    log_terms: (n, K) log of weight times density. Pairs that overlap by more than `overlap` are
    joined first, then the closest ones while there are more than `maximum`, then groups that
    hold less than `min_share` of the rows; never below `minimum` groups.
    """
    groups: list[tuple[int, ...]] = [(k,) for k in range(log_terms.shape[1])]
    merges: list[Merge] = []
    maximum = maximum or len(groups)
    while len(groups) > minimum:
        grouped = group_terms(log_terms, groups)
        mistaken = misclassification(grouped)
        reason, pair = _next_pair(grouped, mistaken, maximum, min_share, overlap)
        if not reason:
            break
        i, j = sorted(pair)
        probability = float(max(mistaken[i, j], mistaken[j, i]))
        merges.append(Merge(groups[i], groups[j], probability, reason))
        groups[i] = tuple(sorted((*groups[i], *groups[j])))
        del groups[j]
    return groups, merges


def group_terms(log_terms: np.ndarray, groups: list[tuple[int, ...]]) -> np.ndarray:
    """(n, G): log of the sum over each group's components."""
    return np.stack([np.logaddexp.reduce(log_terms[:, list(g)], axis=1) for g in groups], axis=1)


def posteriors(log_terms: np.ndarray) -> np.ndarray:
    """(n, G) probabilities of the groups; rows sum to one."""
    scaled = np.exp(log_terms - log_terms.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def misclassification(grouped: np.ndarray) -> np.ndarray:
    """(G, G): probability that a customer of group i is taken for one of j; zero for i = j."""
    posterior = posteriors(grouped)
    taken = np.equal.outer(grouped.argmax(axis=1), np.arange(grouped.shape[1]))
    mistaken = posterior.T @ taken / posterior.sum(axis=0)[:, None]
    np.fill_diagonal(mistaken, 0.0)
    return mistaken


def _next_pair(
    grouped: np.ndarray,
    mistaken: np.ndarray,
    maximum: int,
    min_share: float,
    overlap: float,
) -> tuple[str, tuple[int, int]]:
    """The reason and the pair of the next join; no reason where none is due."""
    if mistaken.max() > overlap:
        return "overlap", _largest(mistaken)
    nearness = _nearness(grouped)
    if grouped.shape[1] > maximum:
        return "number", _largest(nearness)
    shares = posteriors(grouped).mean(axis=0)
    smallest = int(shares.argmin())
    if shares[smallest] < min_share:
        return "share", (smallest, int(nearness[smallest].argmax()))
    return "", (0, 0)


def _nearness(grouped: np.ndarray) -> np.ndarray:
    """(G, G): mean over the customers of i of log density under j less that under i.

    Minus an estimate of the Kullback-Leibler divergence, which tells near from far where nothing
    overlaps; minus infinity for i = j.
    """
    posterior = posteriors(grouped)
    mean_terms = posterior.T @ grouped / posterior.sum(axis=0)[:, None]
    nearness = mean_terms - np.diag(mean_terms)[:, None]
    np.fill_diagonal(nearness, -np.inf)
    return nearness


def _largest(matrix: np.ndarray) -> tuple[int, int]:
    i, j = np.unravel_index(int(matrix.argmax()), matrix.shape)
    return int(i), int(j)
