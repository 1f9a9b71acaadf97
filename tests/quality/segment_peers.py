"""The other makers of segments, each as its manual proposes it for a number of groups not known.

scikit-learn, stepmix and pomegranate run here; mclust runs in R, one process for many data sets,
where `Rscript` and the package are installed. "told" names a method that is given the true number.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (makes the next importable)
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

SCRIPT = Path(__file__).with_name("mclust.R")
STRUCTURES = ("full", "tied", "diag", "spherical")
CRITERIA = ("BIC", "ICL")


@dataclass(frozen=True)
class Task:
    """Rows to group: the sizes to look at, and the true one, for the methods that must be told."""

    rows: np.ndarray
    sizes: range
    n_groups: int
    seed: int


@dataclass(frozen=True)
class Answer:
    """labels (n,); n_groups: how many there are in the model; family: its name for their shape."""

    labels: np.ndarray
    n_groups: int
    family: str
    seconds: float  # of CPU time


Fitted = tuple[np.ndarray, int, str]  # labels, groups, family
Method = Callable[[Task], Fitted]


def answer(method: Method, task: Task) -> Answer:
    """The method's answer and what it cost, its warnings unheard."""
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ends not reached and spikes: part of the result
        labels, n_groups, family = method(task)
    return Answer(labels, n_groups, family, time.process_time() - begun)


def mixture(
    task: Task, structures: Sequence[str] = STRUCTURES, n_init: int = 1, told: bool = False
) -> Fitted:
    """scikit-learn: the least BIC over structures and sizes; `told`: the true size alone."""
    sizes = (task.n_groups,) if told else task.sizes
    fits = [
        GaussianMixture(k, covariance_type=s, n_init=n_init, random_state=task.seed).fit(task.rows)
        for s in structures
        for k in sizes
    ]
    best = min(fits, key=lambda fit: fit.bic(task.rows))
    return best.predict(task.rows), best.n_components, best.covariance_type


def dirichlet(task: Task) -> Fitted:
    """scikit-learn's Dirichlet process: the groups that hold a row."""
    most = task.sizes[-1]
    fit = BayesianGaussianMixture(n_components=most, random_state=task.seed, max_iter=1_000)
    labels = fit.fit_predict(task.rows)
    return labels, len(np.unique(labels)), "full"


def k_means(task: Task) -> Fitted:
    fit = KMeans(task.n_groups, n_init=10, random_state=task.seed).fit(task.rows)
    return fit.labels_, task.n_groups, "sphere"


def filled(task: Task, imputer: Any) -> Fitted:
    """Gaps filled first, then scikit-learn's scan."""
    rows = imputer.fit_transform(task.rows)
    return mixture(Task(rows, task.sizes, task.n_groups, task.seed), structures=("full",))


def stepmix(task: Task) -> Fitted:
    """stepmix with independent columns, gaps integrated out: the least BIC over the sizes."""
    from stepmix.stepmix import StepMix

    fits = [
        StepMix(
            k,
            measurement="gaussian_diag_nan",
            n_init=3,
            random_state=task.seed,
            abs_tol=1e-5,
            progress_bar=0,
        ).fit(task.rows)
        for k in task.sizes
    ]
    best = min(fits, key=lambda fit: fit.bic(task.rows))
    return np.asarray(best.predict(task.rows)), best.n_components, "diagonal"


def pomegranate(task: Task) -> Fitted:
    """pomegranate's mixture; it has no criterion, so it is told the number.

    Where a covariance becomes singular it gives up; that counts as one group of all rows.
    """
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    rows = torch.tensor(task.rows, dtype=torch.float32)
    parts = [Normal() for _ in range(task.n_groups)]
    model = GeneralMixtureModel(parts, random_state=task.seed, max_iter=200, tol=1e-3)
    try:
        fit = model.fit(rows)
    except torch.linalg.LinAlgError:
        return np.zeros(len(rows), dtype=int), 1, "gave up"
    return fit.predict(rows).numpy(), task.n_groups, "full"


PEERS: Mapping[str, Method] = {
    "scikit-learn BIC": mixture,
    "scikit-learn BIC, n_init 5": functools.partial(mixture, n_init=5),
    "scikit-learn BIC, full": functools.partial(mixture, structures=("full",)),
    "scikit-learn BIC, full, n_init 3": functools.partial(mixture, structures=("full",), n_init=3),
    "scikit-learn told K": functools.partial(mixture, structures=("full",), told=True),
    "scikit-learn Dirichlet process": dirichlet,
    "k-means told K": k_means,
    "mean + scikit-learn": functools.partial(filled, imputer=SimpleImputer()),
    "neighbours + scikit-learn": functools.partial(filled, imputer=KNNImputer()),
    "regressions + scikit-learn": functools.partial(
        filled, imputer=IterativeImputer(random_state=0)
    ),
    "stepmix BIC": stepmix,
    "pomegranate told K": pomegranate,
}
PACKAGES = {"stepmix BIC": "stepmix", "pomegranate told K": "pomegranate"}


def absent(method: str) -> str:
    """Why a peer cannot run here, or ""."""
    package = PACKAGES.get(method)
    if package and importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    return without_mclust() if method.startswith("mclust") else ""


@functools.cache
def without_mclust() -> str:
    """Why mclust cannot run here, or ""."""
    command = shutil.which("Rscript")
    if command is None:
        return "there is no Rscript"
    asked = [command, "-e", "library(mclust)"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else "R has no package mclust"


def mclust(tasks: Mapping[str, Task], icl: bool) -> Iterable[tuple[str, str, Answer]]:
    """Name, criterion and answer for each task and criterion, from one process of R."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        pd.DataFrame(
            [
                {"name": name, "least": t.sizes[0], "most": t.sizes[-1], "icl": int(icl)}
                for name, t in tasks.items()
            ]
        ).to_csv(folder / "tasks.csv", index=False)
        for name, task in tasks.items():
            np.savetxt(folder / f"{name}.csv", task.rows, delimiter=",", fmt="%.17g")
        command = ["Rscript", str(SCRIPT), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            for line in running.stdout or ():
                name, criterion, groups, family, seconds = line.strip().split(",")
                labels = np.loadtxt(folder / f"{name}.{criterion}.labels.csv", dtype=int)
                yield name, criterion, Answer(labels, int(groups), family, float(seconds))
        if running.returncode:
            raise RuntimeError(f"mclust ended with {running.returncode}")
