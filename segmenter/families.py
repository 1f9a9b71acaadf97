"""The fourteen covariance structures of mclust: their M-steps and their numbers of parameters.

A covariance is volume times orientation times shape, S_k = v_k D_k A_k D_k' with |A_k| = 1
(Banfield and Raftery 1993; Celeux and Govaert 1995). The letters of a family say of volume, shape
and orientation, in this order, whether it is Equal over the components, Varies, or is the Identity.
Every function is vectorised over components and over any leading axes (several starts at once).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

FAMILIES = (
    "EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE",
    "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV",
)  # fmt: skip
ALIASES = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}  # of scikit-learn
ROUNDS = 5  # of volume against shape within one M-step: EM itself goes on with them
TURNS = 1  # of every plane of the common axes within one M-step


def is_crossed(family: str) -> bool:
    """Whether the family's log density needs the products of different columns."""
    return family[2] != "I"


def parameter_count(family: str, k: int, d: int) -> int:
    """Free parameters of a Gaussian mixture of k components in d columns, as mclust counts."""
    volume = {"E": 1, "V": k}[family[0]]
    shape = {"I": 0, "E": d - 1, "V": k * (d - 1)}[family[1]]
    orientation = {"I": 0, "E": d * (d - 1) // 2, "V": k * (d * (d - 1) // 2)}[family[2]]
    return volume + shape + orientation + k * d + k - 1


def structured(family: str, matrices: np.ndarray) -> np.ndarray:
    """The matrices (..., d, d) without what the family's covariances cannot hold."""
    identity = np.eye(matrices.shape[-1])
    if family[1] == "I":
        return np.trace(matrices, axis1=-2, axis2=-1)[..., None, None] / len(identity) * identity
    return matrices if is_crossed(family) else matrices * identity


def estimate(
    family: str, scatter: np.ndarray, counts: np.ndarray, previous: np.ndarray | None = None
) -> np.ndarray:
    """Covariances (..., K, d, d) of the largest sum of -(n_k log|S_k| + tr(W_k S_k^-1)) / 2.

    scatter: W (..., K, d, d), positive definite. counts: n (..., K). Five families have no closed
    form (VEI, VEE, VEV, EVE, VVE): there the covariances are better than `previous` (..., K, d, d),
    those of the pass before, and repeated calls reach the maximum.
    """
    return MAXIMA[family](scatter, counts, previous)


def _diagonal(matrices: np.ndarray) -> np.ndarray:
    """The diagonals (..., d), as a copy."""
    return np.einsum("...ii->...i", matrices).copy()


def _matrices(diagonals: np.ndarray) -> np.ndarray:
    """Diagonal matrices (..., d, d) of diagonals (..., d)."""
    return diagonals[..., None] * np.eye(diagonals.shape[-1])


def _rows(counts: np.ndarray, axes: int = 2) -> np.ndarray:
    """Counts (..., K) with `axes` more axes, to divide matrices or diagonals."""
    return counts.reshape(counts.shape + (1,) * axes)


def _pooled(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums over the components divided by all rows, the same for each of them."""
    axes = values.ndim - counts.ndim
    axis = -1 - axes
    mean = values.sum(axis=axis, keepdims=True) / _rows(counts.sum(axis=-1, keepdims=True), axes)
    return np.broadcast_to(mean, values.shape).copy()


def _geometric_mean(diagonals: np.ndarray) -> np.ndarray:
    """Volume (...) of diagonals (..., d): the d-th root of their product."""
    return np.exp(np.log(diagonals).mean(axis=-1))


def _volume(matrices: np.ndarray) -> np.ndarray:
    """The d-th root of the determinant of positive definite matrices (..., d, d)."""
    return np.exp(np.linalg.slogdet(matrices)[1] / matrices.shape[-1])


def _equal_volume(values: np.ndarray, volumes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The values (..., K, .) of the given volumes (..., K) rescaled to their pooled one."""
    axes = values.ndim - volumes.ndim
    return values * _rows(_pooled(volumes, counts) / volumes, axes)


def _varying_volume(
    values: np.ndarray, counts: np.ndarray, volumes: np.ndarray, d: int
) -> np.ndarray:
    """Volumes v_k times a common C of volume one, fitted in turn to values (..., K, .).

    The values are diagonals (..., K, d) or matrices (..., K, d, d); with v fixed the best C is
    proportional to the sum of values over v, with C fixed v_k is the trace of value k over C.
    """
    matrix = values.ndim > counts.ndim + 1
    for _ in range(ROUNDS):
        common = (values / _rows(volumes, values.ndim - counts.ndim)).sum(
            axis=-3 if matrix else -2, keepdims=True
        )
        common /= _volume(common)[..., None, None] if matrix else _geometric_mean(common)[..., None]
        if matrix:
            trace = np.einsum("...ij,...ji->...", values, np.linalg.inv(common))
        else:
            trace = (values / common).sum(axis=-1)
        volumes = trace / (d * counts)
    return common * _rows(volumes, values.ndim - counts.ndim)


def _start_volumes(
    scatter: np.ndarray, counts: np.ndarray, previous: np.ndarray | None
) -> np.ndarray:
    """Volumes (..., K) to begin with: those of the pass before, or of the scatters."""
    if previous is not None:
        return _volume(previous)
    return np.einsum("...ii->...", scatter) / (scatter.shape[-1] * counts)


def _eii(scatter: np.ndarray, counts: np.ndarray, _: np.ndarray | None) -> np.ndarray:
    return structured("EII", _pooled(scatter, counts))


def _vii(scatter: np.ndarray, counts: np.ndarray, _: np.ndarray | None) -> np.ndarray:
    return structured("VII", scatter / _rows(counts))


def _eei(scatter: np.ndarray, counts: np.ndarray, _: np.ndarray | None) -> np.ndarray:
    return structured("EEI", _pooled(scatter, counts))


def _vei(scatter: np.ndarray, counts: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
    volumes = _start_volumes(scatter, counts, previous)
    return _matrices(_varying_volume(_diagonal(scatter), counts, volumes, scatter.shape[-1]))


def _evi(scatter: np.ndarray, counts: np.ndarray, _: np.ndarray | None) -> np.ndarray:
    own = _diagonal(scatter)
    return _matrices(_equal_volume(own, _geometric_mean(own), counts))


def _vvi(scatter: np.ndarray, counts: np.ndarray, _: np.ndarray | None) -> np.ndarray:
    return structured("VVI", scatter / _rows(counts))


def _eee(scatter: np.ndarray, counts: np.ndarray, _: np.ndarray | None) -> np.ndarray:
    return _pooled(scatter, counts)


def _vee(scatter: np.ndarray, counts: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
    volumes = _start_volumes(scatter, counts, previous)
    return _varying_volume(scatter, counts, volumes, scatter.shape[-1])


def _eve(scatter: np.ndarray, counts: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
    return _common_orientation(scatter, counts, previous, _equal_spread)


def _vve(scatter: np.ndarray, counts: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
    return _common_orientation(scatter, counts, previous, _own_spread)


def _eev(scatter: np.ndarray, counts: np.ndarray, _: np.ndarray | None) -> np.ndarray:
    values, vectors = np.linalg.eigh(scatter)
    return _turned(vectors, _pooled(values, counts))


def _vev(scatter: np.ndarray, counts: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
    values, vectors = np.linalg.eigh(scatter)
    volumes = _start_volumes(scatter, counts, previous)
    return _turned(vectors, _varying_volume(values, counts, volumes, scatter.shape[-1]))


def _evv(scatter: np.ndarray, counts: np.ndarray, _: np.ndarray | None) -> np.ndarray:
    return _equal_volume(scatter, _volume(scatter), counts)


def _vvv(scatter: np.ndarray, counts: np.ndarray, _: np.ndarray | None) -> np.ndarray:
    return scatter / _rows(counts)


MAXIMA: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]] = {
    "EII": _eii, "VII": _vii, "EEI": _eei, "VEI": _vei, "EVI": _evi, "VVI": _vvi, "EEE": _eee,
    "VEE": _vee, "EVE": _eve, "VVE": _vve, "EEV": _eev, "VEV": _vev, "EVV": _evv, "VVV": _vvv,
}  # fmt: skip


def _turned(vectors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Matrices (..., d, d) of eigenvectors (columns) and eigenvalues (..., d)."""
    return (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def _equal_spread(own: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Eigenvalues (..., K, d) of EVE for scatters `own` along the common axes."""
    return _equal_volume(own, _geometric_mean(own), counts)


def _own_spread(own: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Eigenvalues (..., K, d) of VVE for scatters `own` along the common axes."""
    return own / counts[..., None]


def _common_orientation(
    scatter: np.ndarray,
    counts: np.ndarray,
    previous: np.ndarray | None,
    spread: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Covariances with eigenvalues of their own along common axes D, (..., K, d, d).

    For fixed eigenvalues E_k the sum of tr(W_k D E_k^-1 D') over k has no closed minimum in D,
    but it has one in the angle of each plane of two axes (Flury and Gautschi 1986 turn the same
    planes). Planes without a common axis are turned at once, then the eigenvalues renewed; the
    majoriser of Browne and McNicholas 2014 needs hundreds of steps where this needs five.
    """
    axes = _axes(scatter if previous is None else previous)
    for _ in range(TURNS):
        for first, second in _planes(scatter.shape[-1]):
            turned = np.swapaxes(axes, -1, -2)[..., None, :, :] @ scatter @ axes[..., None, :, :]
            own = _diagonal(turned)
            inverse = 1.0 / spread(own, counts)
            gap = inverse[..., first] - inverse[..., second]
            along = (gap * (own[..., first] - own[..., second])).sum(axis=-2)
            across = (gap * turned[..., first, second]).sum(axis=-2)
            angle = 0.5 * np.arctan2(-2 * across, -along)
            cosine, sine = np.cos(angle)[..., None, :], np.sin(angle)[..., None, :]
            left, right = axes[..., first], axes[..., second]
            axes[..., first] = cosine * left + sine * right
            axes[..., second] = cosine * right - sine * left
    return _turned(axes[..., None, :, :], spread(_along(scatter, axes), counts))


@cache
def _planes(d: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Every pair of axes once, in rounds of disjoint pairs (the circle method of tournaments)."""
    size = d + d % 2
    rounds = []
    for turn in range(size - 1):
        circle = [0, *((np.arange(size - 1) + turn) % (size - 1) + 1)]
        pairs = [(circle[i], circle[-1 - i]) for i in range(size // 2)]
        kept = np.array([(p, q) for p, q in pairs if max(p, q) < d], dtype=np.intp)
        if len(kept):
            rounds.append((kept[:, 0], kept[:, 1]))
    return tuple(rounds)


def _axes(matrices: np.ndarray) -> np.ndarray:
    """Common eigenvectors (..., d, d) of matrices (..., K, d, d) that share them.

    A sum with unequal weights keeps axes apart along which the plain sum would be round.
    """
    k = matrices.shape[-3]
    weights = 1.0 / (_volume(matrices) * np.arange(1, k + 1) ** 0.5)
    return np.linalg.eigh((weights[..., None, None] * matrices).sum(axis=-3))[1]


def _along(scatter: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Diagonals (..., K, d) of D'W_kD: the scatters along the axes."""
    turned = scatter @ axes[..., None, :, :]
    return np.einsum("...kij,...ij->...kj", turned, axes)
