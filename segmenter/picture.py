"""The customers in two dimensions: the directions in which the segments lie farthest apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import eigh

from shared.encoding import Encoder, Feature

CLIP = 4.0  # standard deviations; one great customer should not shrink the picture of all others
RIDGE = 1e-3  # of the total scatter: columns may repeat one another within a segment
ELLIPSE = 1.79  # deviations: four of five customers, were they Gaussian
NAMED = 2  # features that an axis is named after
LOADING = 0.3  # correlation below which a feature names no axis


@dataclass(frozen=True)
class Picture:
    """points: x, y, segment_id in random order; ellipses: segment_id, cx, cy, a, b, angle;
    axes: what grows along x and along y, as text."""

    points: pd.DataFrame
    ellipses: pd.DataFrame
    axes: tuple[str, str]


def draw(
    frame: pd.DataFrame,
    segments: pd.Series,
    features: Sequence[Feature],
    generator: np.random.Generator,
) -> Picture | None:
    """Fisher's discriminants of the customers; None where no segment or feature is left.

    frame: features in real units; segments: segment_id per row, null where not assigned.
    """
    ids = segments.to_numpy(dtype=np.float64, na_value=np.nan)
    there = np.isfinite(ids)
    if there.sum() < 3 or not features:
        return None
    encoder = Encoder.fit(frame[there], features, clip=CLIP)
    matrix = np.nan_to_num(encoder.transform(frame))
    directions = _directions(matrix[there], ids[there])
    plane = (matrix - matrix[there].mean(axis=0)) @ directions
    order = generator.permutation(len(plane))
    points = pd.DataFrame({"x": plane[:, 0], "y": plane[:, 1], "segment_id": segments.to_numpy()})
    return Picture(
        points.iloc[order].reset_index(drop=True),
        _ellipses(plane[there], ids[there]),
        (_axis(matrix, plane[:, 0], features), _axis(matrix, plane[:, 1], features)),
    )


def _directions(matrix: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(d, 2) the directions of largest scatter between segments over that within (Fisher 1936);
    a second column of zeros where there is one feature only."""
    centred = matrix - matrix.mean(axis=0)
    total = centred.T @ centred / len(centred)
    means = pd.DataFrame(centred).groupby(ids).transform("mean").to_numpy()
    between = means.T @ means / len(means)
    within = total - between + RIDGE * (np.trace(total) + 1) * np.eye(len(total))
    _, vectors = eigh(between, within)
    vectors = vectors[:, ::-1][:, :2]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return np.pad(vectors, ((0, 0), (0, 2 - vectors.shape[1])))


def _ellipses(plane: np.ndarray, ids: np.ndarray) -> pd.DataFrame:
    rows = []
    for segment_id in np.unique(ids):
        own = plane[ids == segment_id]
        if len(own) < 3:
            continue
        widths, axes = np.linalg.eigh(np.cov(own.T))
        a, b = ELLIPSE * np.sqrt(np.maximum(widths[::-1], 0.0))
        angle = float(np.arctan2(axes[1, 1], axes[0, 1]))
        rows.append((int(segment_id), *own.mean(axis=0), a, b, angle))
    return pd.DataFrame(rows, columns=["segment_id", "cx", "cy", "a", "b", "angle"])


def _axis(matrix: np.ndarray, coordinate: np.ndarray, features: Sequence[Feature]) -> str:
    """ "purchase days ↑, days since the last purchase ↓": what goes along with it."""
    spread = matrix.std(axis=0) * coordinate.std()
    covariance = ((matrix - matrix.mean(axis=0)) * coordinate[:, None]).mean(axis=0)
    loading = np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 0)
    strongest = np.argsort(-np.abs(loading), kind="stable")[:NAMED]
    return ", ".join(
        f"{features[i].description} {'↑' if loading[i] > 0 else '↓'}"
        for i in strongest
        if abs(loading[i]) >= LOADING
    )
