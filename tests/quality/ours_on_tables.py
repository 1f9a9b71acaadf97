"""peerwatch itself on the benchmark's other data: the density alone on tables of numbers, and the
functions of its commands on payments that are no handbook's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from fraudwatch import TransactionVAE, judging, learning
from fraudwatch.config import Settings
from fraudwatch.features import build, declared, reference
from fraudwatch.judging import Journal
from fraudwatch.learning import Window
from shared.windows import DAY
from tests.quality import cases
from tests.quality.ours import CALIBRATION_DAYS, NO_VERDICTS, OwnLine, continued

NOT_KEYS = ("amount", "currency")


class Density(OwnLine):
    """`TransactionVAE` as it is without any setting."""

    def fit(self, case: cases.Case, seed: int) -> Callable[[], np.ndarray]:
        split = case.split(self.view, 0, labels=False)
        density = TransactionVAE(random_state=seed).fit(split.train)
        return lambda: -density.score_samples(split.test)

    def train_rows(self, case: cases.Case) -> int:
        return len(case.split(self.view, 0, labels=False).train)


class FitAndScore(OwnLine):
    """What `fraudwatch fit` and `fraudwatch score` do, without labels, by `anomaly_score`."""

    def fit(self, case: cases.Table, seed: int) -> Callable[[], np.ndarray]:
        assert case.rows is not None, "a table of payments"
        rows, before = case.rows, np.flatnonzero(case.training)
        typical = reference(rows.iloc[before])
        frame = build(rows, np.arange(len(rows)), typical, "UTC")
        keys = [name for name in rows if name not in NOT_KEYS]
        silent = np.full(len(rows), np.nan)
        journal = Journal(rows[keys], NO_VERDICTS, 0, silent)
        past = Journal(rows[keys].iloc[before], NO_VERDICTS, 0, silent[before])
        learned = learning.learn(
            frame.iloc[before],
            before,
            past,
            declared(list(rows)),
            typical,
            _window(past.times),
            Settings(seed=seed),
            "UTC",
        )

        def score() -> np.ndarray:
            after = np.flatnonzero(~case.training)
            new = frame.iloc[after]
            scored, told = continued(learned, journal, new, after)
            return judging.judge(learned.detector, new, scored, told, after).anomaly_score

        return score

    def train_rows(self, case: cases.Table) -> int:
        return int(case.training.sum())


def _window(times: np.ndarray) -> Window:
    """All days of the times; the last ones calibrate."""
    first, until = int(times.min() // DAY), int(times.max() // DAY) + 1
    days = min(CALIBRATION_DAYS, (until - first) // 3)
    return Window(first * DAY, (until - days) * DAY, until * DAY, days)


def classes(dataset: str) -> Iterable[OwnLine]:
    """Peerwatch's own lines of a data set, for `scorers.SOURCES`."""
    if dataset in ("demo", "anz"):
        return (FitAndScore("anomaly_score"),)
    return () if dataset == "handbook" else (Density("TransactionVAE"),)
