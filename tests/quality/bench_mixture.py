"""CPU seconds of the mixture beside scikit-learn: `python -m tests.quality.bench_mixture --full`.

Set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1, else the processor time of idle threads counts.
Every figure is the least of several turns, taken in alternation.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from segmenter import SegmentMixture
from segmenter.em import Parameters, Prior, Rows, run_em

Line = tuple[str, float, float, str]
FEW, MANY = 2, 12  # passes whose difference is ten passes without the start and the end


def planted(n: int, d: int, k: int, seed: int, apart: float = 2.2) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, d) of k Gaussians of their own shapes, and their groups (n,)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, k, n)
    means = apart * generator.standard_normal((k, d))
    turns = np.linalg.qr(generator.standard_normal((k, d, d)))[0]
    roots = turns * generator.uniform(0.4, 1.6, (k, 1, d))
    noise = generator.standard_normal((n, d))
    return means[labels] + np.einsum("nij,nj->ni", roots[labels], noise), labels


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def one_pass(n: int, d: int, k: int, turns: int) -> Line:
    """A full-covariance pass from the same start, by the difference of two numbers of passes."""
    x, labels = planted(n, d, k, seed=0)
    weights = np.bincount(labels) / n
    means = np.array([x[labels == g].mean(axis=0) for g in range(k)]) + 0.1
    covariances = np.array([np.cov(x[labels == g].T) for g in range(k)])
    start = Parameters("VVV", weights, means, covariances)
    precisions = np.linalg.inv(covariances)
    rows, nothing = Rows(x, x.mean(axis=0), True), Prior(np.eye(d), 0.0)

    def theirs(passes: int) -> GaussianMixture:
        peer = GaussianMixture(k, tol=0, reg_covar=0, max_iter=passes, weights_init=weights)
        return peer.set_params(means_init=means, precisions_init=precisions).fit(x)

    gains = []
    for _ in range(turns):
        ours = seconds(lambda: run_em(rows, start, nothing, MANY, -1.0)) - seconds(
            lambda: run_em(rows, start, nothing, FEW, -1.0)
        )
        peers = seconds(lambda: theirs(MANY)) - seconds(lambda: theirs(FEW))
        gains.append((ours / (MANY - FEW), peers / (MANY - FEW)))
    gap = run_em(rows, start, nothing, MANY, -1.0).log_likelihood / n - theirs(MANY).score(x)
    least = np.min(gains, axis=0)
    return f"one pass, n={n:,} d={d} K={k}", least[0], least[1], f"log-likelihood {gap:+.1e}"


def from_nothing(n: int, d: int, k: int, turns: int) -> Line:
    """A fit of K full covariances, each with its defaults."""
    x, labels = planted(n, d, k, seed=1)
    ours = SegmentMixture(k, "full", "gaussian", random_state=0)
    peer = GaussianMixture(k, random_state=0)
    spent = [(seconds(lambda: ours.fit(x)), seconds(lambda: peer.fit(x))) for _ in range(turns)]
    least = np.min(spent, axis=0)
    found = [adjusted_rand_score(labels, fitted.predict(x)) for fitted in (ours, peer)]
    gap = ours.score(x) - peer.score(x)
    note = f"log-likelihood {gap:+.1e}, ARI {found[0]:.3f} / {found[1]:.3f}"
    return f"fit from nothing, n={n:,} d={d} K={k}", least[0], least[1], note


def scan(
    n: int, d: int, k: int, families: tuple[str, ...] = ("full", "tied", "diag", "spherical")
) -> Line:
    """K = 1..12 by scikit-learn's four families; ours is asked for all fourteen and both tails."""
    x, labels = planted(n, d, k, seed=2)
    ours = SegmentMixture(random_state=0)
    own = seconds(lambda: ours.fit(x))
    best: list[GaussianMixture] = []

    def grid() -> None:
        fits = [
            GaussianMixture(size, covariance_type=family, n_init=5, random_state=0).fit(x)
            for family in families
            for size in range(1, 13)
        ]
        best.append(min(fits, key=lambda fit: fit.bic(x)))

    theirs = seconds(grid)
    gap = ours.bic(x) - best[0].bic(x)
    note = (
        f"BIC {gap:+.1f}, K {ours.n_components_} / {best[0].n_components}, ARI "
        f"{adjusted_rand_score(labels, ours.predict(x)):.3f} / "
        f"{adjusted_rand_score(labels, best[0].predict(x)):.3f}"
    )
    return f"scan K=1..12, n={n:,} d={d} K={k}", own, theirs, note


def memory(n: int, d: int, k: int, batch: int = 100_000) -> str:
    """Peak memory of `fit_batches`, whose batches are drawn anew in every pass."""

    class Drawn:
        def __iter__(self) -> Iterator[np.ndarray]:
            return (planted(batch, d, k, seed=seed)[0] for seed in range(n // batch))

    tracemalloc.start()
    mixture = SegmentMixture(k, "full", "gaussian", max_iter=2, random_state=0)
    mixture.fit_batches(Drawn())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return f"fit_batches, n={n:,} d={d} K={k}: at most {peak / 2**20:.0f} MB of arrays"


def main(full: bool) -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    print("| work | ours, CPU s | scikit-learn, CPU s | times less | beside it |")
    print("|---|---|---|---|---|")
    lines = [
        lambda: one_pass(100_000, 8, 8, turns=3),
        lambda: one_pass(100_000, 16, 8, turns=3),
        lambda: from_nothing(1_000_000 if full else 200_000, 8, 8, turns=2),
        lambda: scan(100_000 if full else 10_000, 8, 6),
    ]
    for line in lines:
        name, ours, theirs, note = line()
        print(f"| {name} | {ours:.4f} | {theirs:.4f} | {theirs / ours:.1f} | {note} |", flush=True)
    for n in (1_000_000, 10_000_000) if full else (200_000, 400_000):
        print(memory(n, 8, 8), flush=True)


if __name__ == "__main__":
    main("--full" in sys.argv)
