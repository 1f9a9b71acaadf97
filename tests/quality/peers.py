"""The detectors beside peerwatch, at their defaults and at a small grid that is stated here.

All get the same standardised columns. PyOD's names are kept; mixtures are scikit-learn's with full
covariances; LightGBM learns from labels and is the mark of what supervised learning reaches. Where
work grows with the square of the rows, a net takes a step every 32 rows or a mixture needs minutes,
training rows are drawn at random up to a cap: a table says how many rows a detector was trained on.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

DAYS = 7  # the book trains on a week
LONGER = 28
LONGEST = 90  # as peerwatch itself
NEIGHBOUR_ROWS, MOST_ROWS, KERNEL_ROWS = 70_000, 20_000, 10_000  # the first holds a week
NARROW = 4  # columns: so few cost little, and nothing is left out
PYOD = {
    "AutoEncoder": "auto_encoder",
    "COPOD": "copod",
    "DeepSVDD": "deep_svdd",
    "ECOD": "ecod",
    "HBOS": "hbos",
    "IForest": "iforest",
    "KNN": "knn",
    "LODA": "loda",
    "LOF": "lof",
    "MCD": "mcd",
    "OCSVM": "ocsvm",
    "PCA": "pca",
    "VAE": "vae",
}

Parameters = dict[str, Any]
Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Split:
    """Rows to train on with their labels, and rows to score."""

    train: np.ndarray  # (n, d)
    fraud: np.ndarray  # (n,) 0 or 1; only a detector that learns from labels may look
    test: np.ndarray  # (m, d)


@dataclass(frozen=True)
class Setting:
    """A detector with the parameters that differ from its defaults, and its training window."""

    detector: str
    parameters: Parameters = field(default_factory=dict)
    days: int = DAYS

    @property
    def text(self) -> str:
        """As it stands in a table."""
        changes = [f"{name}={value}" for name, value in self.parameters.items()]
        changes += [f"{self.days} days"] if self.days != DAYS else []
        return ", ".join(changes) or "default"


@dataclass(frozen=True)
class Detector:
    """How a detector is made, and what is tried beside its defaults."""

    make: Callable[[Parameters, int, int], Any]  # parameters, columns, seed
    grid: tuple[tuple[Parameters, int], ...] = ()  # and days of training
    most_rows: int | None = None  # training rows beyond these are left out at random
    narrow_too: bool = False  # whether the cap holds for few columns as well
    seeded: bool = True  # whether another seed gives other scores
    cost: int = 1  # 1 seconds a week, 2 some more, 3 a minute or more: the order of a run
    supervised: bool = False
    library: str = "pyod"

    @property
    def source(self) -> str:
        """The library's version, and the cap: another one gives other scores."""
        cap = f", at most {self.most_rows} rows" if self.most_rows else ""
        return f"{self.library} {version(self.library)}{cap}"


def settings(name: str) -> tuple[Setting, ...]:
    """The default setting, then the grid."""
    tried = (Setting(name, parameters, days) for parameters, days in DETECTORS[name].grid)
    return (Setting(name), *tried)


def fit(setting: Setting, split: Split, seed: int) -> Score:
    """The trained detector as a function from rows to scores, higher for the more anomalous."""
    detector = DETECTORS[setting.detector]
    kept = drawn(detector, split.train.shape, seed)
    scaler = StandardScaler().fit(split.train[kept])
    model = detector.make(setting.parameters, split.train.shape[1], seed)
    labels = (split.fraud[kept],) if detector.supervised else ()
    with _silence():
        model.fit(scaler.transform(split.train[kept]), *labels)

    def score(rows: np.ndarray) -> np.ndarray:
        with _silence():
            return finite(_scores(model, scaler.transform(rows)))

    return score


@contextmanager
def _silence() -> Iterator[None]:
    """Without the warnings of other people's code: of a flat column, of a fit that needs longer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def finite(scores: np.ndarray) -> np.ndarray:
    """(n,) float64; what is not finite becomes the highest that is."""
    values = np.asarray(scores, dtype=np.float64)
    good = np.isfinite(values)
    return np.where(good, values, values[good].max(initial=0.0))


def drawn(detector: Detector, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Positions of the rows that a detector is trained on, of (rows, columns), in order."""
    rows, columns = shape
    most = detector.most_rows
    if most is None or rows <= most or (columns <= NARROW and not detector.narrow_too):
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _scores(model: Any, rows: np.ndarray) -> np.ndarray:
    if isinstance(model, GaussianMixture):
        return -model.score_samples(rows)
    if hasattr(model, "predict_proba") and not hasattr(model, "decision_scores_"):
        return model.predict_proba(rows)[:, 1]
    return model.decision_function(rows)


def _pyod(name: str, *seed: str, **fixed: Any) -> Callable[[Parameters, int, int], Any]:
    """A detector of PyOD; `seed` names its parameter for one."""

    def make(parameters: Parameters, columns: int, random: int) -> Any:
        module = importlib.import_module(f"pyod.models.{PYOD[name]}")
        given = {**dict.fromkeys(seed, random), **fixed, **parameters}
        if name == "DeepSVDD":
            given["n_features"] = columns
        return getattr(module, name)(**given)

    return make


def _mixture(components: int) -> Detector:
    def make(parameters: Parameters, columns: int, seed: int) -> GaussianMixture:
        given = {"reg_covar": 1e-4, **parameters}
        return GaussianMixture(components, random_state=seed, **given)

    return Detector(
        make,
        (({"covariance_type": "diag"}, DAYS), ({"reg_covar": 1e-2}, DAYS), ({}, LONGER)),
        most_rows=None if components == 1 else MOST_ROWS,
        seeded=components > 1,
        cost=1 if components == 1 else 2,
        library="scikit-learn",
    )


def _net(name: str, *grid: Parameters) -> Detector:
    fixed = {} if name == "DeepSVDD" else {"device": "cpu"}
    return Detector(
        _pyod(name, "random_state", verbose=0, **fixed),
        tuple((parameters, DAYS) for parameters in grid),
        most_rows=MOST_ROWS,
        narrow_too=True,
        cost=3,
    )


def _boosting(parameters: Parameters, columns: int, seed: int) -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(**{"random_state": seed, "n_jobs": 1, "verbose": -1, **parameters})


_LONG: tuple[tuple[Parameters, int], ...] = (({}, LONGER),)
_CAREFUL = {
    **{"learning_rate": 0.02, "n_estimators": 400, "num_leaves": 15},
    **{"colsample_bytree": 0.5, "reg_lambda": 10.0},
}
DETECTORS: Mapping[str, Detector] = {
    "IForest": Detector(
        _pyod("IForest", "random_state"),
        (
            ({"n_estimators": 300}, DAYS),
            ({"n_estimators": 300, "max_samples": 4096}, DAYS),
            ({"max_features": 0.5}, DAYS),
            *_LONG,
        ),
    ),
    "ECOD": Detector(_pyod("ECOD"), _LONG, seeded=False),
    "COPOD": Detector(_pyod("COPOD"), _LONG, seeded=False),
    "HBOS": Detector(
        _pyod("HBOS"),
        (({"n_bins": 50}, DAYS), ({"n_bins": "auto"}, DAYS), *_LONG),
        seeded=False,
    ),
    "PCA": Detector(
        _pyod("PCA"),
        (({"weighted": False}, DAYS), ({"n_components": 0.9}, DAYS), *_LONG),
        seeded=False,
    ),
    "LODA": Detector(
        _pyod("LODA", "random_state"),
        (({"n_bins": 50}, DAYS), ({"n_bins": 50, "n_random_cuts": 500}, DAYS), *_LONG),
    ),
    "MCD": Detector(
        _pyod("MCD", "random_state"), (({"support_fraction": 0.95}, DAYS), *_LONG), cost=2
    ),
    "GMM1": _mixture(1),
    "GMM10": _mixture(10),
    "GMM30": _mixture(30),
    "LightGBM": Detector(
        _boosting,
        (
            ({"num_leaves": 15, "min_child_samples": 50}, DAYS),
            (_CAREFUL, DAYS),
            ({}, LONGER),
            (_CAREFUL, LONGER),
            (_CAREFUL, LONGEST),
        ),
        seeded=False,
        supervised=True,
        library="lightgbm",
    ),
    "KNN": Detector(
        _pyod("KNN"),
        (({"n_neighbors": 20}, DAYS), ({"n_neighbors": 20, "method": "mean"}, DAYS)),
        most_rows=NEIGHBOUR_ROWS,
        seeded=False,
        cost=3,
    ),
    "LOF": Detector(_pyod("LOF"), (({"n_neighbors": 100}, DAYS),), most_rows=MOST_ROWS, cost=3),
    "OCSVM": Detector(
        _pyod("OCSVM"), (({"nu": 0.05}, DAYS),), most_rows=KERNEL_ROWS, narrow_too=True, cost=3
    ),
    "AutoEncoder": _net("AutoEncoder", {"hidden_neuron_list": [16, 4]}, {"batch_size": 512}),
    "VAE": _net("VAE", {"latent_dim": 8}, {"batch_size": 512}),
    "DeepSVDD": _net("DeepSVDD", {"use_ae": True}, {"batch_size": 512}),
}
