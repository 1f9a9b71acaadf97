"""A window's rows → a detector, calibrated, and a ranker: the composition of a fit, pure.

What is known of the rows by the end of the window, labels and verdicts, has three uses: confirmed
frauds are neither trained on nor taken for normal in the calibration; they say how long keys stay
compromised; and the ranker learns from them. The density itself sees no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fraudwatch import decisions, detector, evidence, ranker
from fraudwatch.config import Settings
from fraudwatch.decisions import Calibration
from fraudwatch.detector import Detector, Scored
from fraudwatch.features import Reference
from fraudwatch.judging import Journal, Judged, filled, judge, ranking_table
from fraudwatch.labels import FRAUD, UNKNOWN
from fraudwatch.ranker import Ranker
from shared import frames
from shared.encoding import Feature

LATER_SHARE, LATER_DAYS = 0.25, 28  # of the days with known answers: what a ranker is judged on


@dataclass(frozen=True)
class Window:
    """Training until `split`, calibration from it on; microseconds. days: of the calibration."""

    since: int
    split: int
    until: int
    days: int


@dataclass(frozen=True, eq=False)
class Learned:
    """A detector and how its rows look to it; `at` are their places in the journal."""

    detector: Detector
    frame: pd.DataFrame
    scored: Scored
    journal: Journal
    at: np.ndarray
    diagnostics: dict[str, Any]


def learn(
    frame: pd.DataFrame,
    at: np.ndarray,
    journal: Journal,
    features: Sequence[Feature],
    reference: Reference,
    window: Window,
    settings: Settings,
    timezone: str,
) -> Learned:
    """Trains the density, learns the evidence and calibrates both.

    frame: features of the window's rows; at: their places in the journal, which holds what came
    before as well and whose surprises are filled in here.
    """
    known = journal.labels.known(window.until)[at]
    training = journal.times[at] < window.split
    usable = known != FRAUD
    fitted, diagnostics = detector.fit(
        frame[training & usable],
        frame[~training & usable],
        features,
        reference,
        (window.split, window.until, window.days),
        np.random.default_rng(settings.seed),
    )
    scored = fitted.score(frame)
    journal = filled(journal, at, fitted.surprise(scored))
    chains, found = evidence.fit(
        journal.keys, journal.times, journal.surprise, journal.labels, window.until
    )
    fitted = calibrated(
        replace(fitted, evidence=chains), frame, scored, journal, at, window, settings, timezone
    )
    return Learned(fitted, frame, scored, journal, at, {**diagnostics, **found})


def calibrated(
    fitted: Detector,
    frame: pd.DataFrame,
    scored: Scored,
    journal: Journal,
    at: np.ndarray,
    window: Window,
    settings: Settings,
    timezone: str,
) -> Detector:
    """The detector calibrated on the rows from `window.split` on, judged like any others.

    Confirmed frauds are no normal rows; the level from which alerts are raised counts them, for a
    new day has its own. Where enough days have their answers the others are left out: the frauds
    that hide in them would silence the alarms.
    """
    rows = np.flatnonzero(journal.times[at] >= window.split)
    judged = judge(fitted, frame.iloc[rows], scored.part(rows), journal, at[rows])
    moments, scores = journal.times[at[rows]], judged.anomaly_score
    known = journal.labels.known(window.until)[at[rows]]
    days = frames.local_days(moments, timezone)
    used = decisions.answered(scores, days, known, settings.reviews_per_day)
    moments, scores, known, days = moments[used], scores[used], known[used], days[used]
    calibration = Calibration(
        np.sort(scores[known != FRAUD]),
        np.sort(scores[known == FRAUD]),
        int(moments.min()),
        int(moments.max()) + 1,
        window.days if used.all() else len(np.unique(days)),
    )
    footing = decisions.footing(
        calibration.p_value(scores, moments), days, known, settings.reviews_per_day
    )
    return replace(fitted, calibration=calibration, footing=footing)


@dataclass(frozen=True, eq=False)
class Ranked:
    """A ranker, how it did on days it did not learn from, and how many frauds taught it."""

    ranker: Ranker
    gate: dict[str, Any]
    frauds: int
    rows: int


def rank(learned: Learned, until: int, timezone: str, seed: int) -> Ranked | None:
    """Learns to rank from what is known by `until`; None where too little is.

    The gate's figures are of a ranker that saw the earlier days alone; the one that is kept saw
    all of them.
    """
    known = learned.journal.labels.known(until)[learned.at]
    rows = np.flatnonzero(known != UNKNOWN)
    fraud = known[rows] == FRAUD
    day = frames.local_days(learned.journal.times[learned.at[rows]], timezone).astype(np.int64)
    later = _later(day)
    if not ranker.enough(fraud, later):
        return None
    generator = np.random.default_rng(seed)
    kept, share = ranker.sampled(fraud, generator)
    needed = np.union1d(kept, np.flatnonzero(later))  # the later days are judged whole
    table, judged = _table(learned, rows[needed])
    fraud, day, later = fraud[needed], day[needed], later[needed]
    learnt = np.isin(needed, kept)
    before = learnt & ~later
    rehearsed = ranker.train(_some(table, before), fraud[before], share, generator)
    ranked = rehearsed.log_odds(rehearsed.matrix(_some(table, later)))
    gate = ranker.gate(day[later], fraud[later], judged.anomaly_score[later], ranked, generator)
    final = ranker.train(_some(table, learnt), fraud[learnt], share, generator)
    return Ranked(final, gate, int(fraud.sum()), int(learnt.sum()))


def _later(day: np.ndarray) -> np.ndarray:
    """(n,) whether a row is of the newest days; day: (n,) whole numbers."""
    days = np.unique(day)
    if not len(days):
        return np.zeros(0, dtype=bool)
    return day >= days[-min(max(int(LATER_SHARE * len(days)), 1), LATER_DAYS)]


def _table(learned: Learned, rows: np.ndarray) -> tuple[dict[str, np.ndarray], Judged]:
    """What the ranker sees of some of the rows, and how they were judged."""
    judged = judge(
        learned.detector,
        learned.frame.iloc[rows],
        learned.scored.part(rows),
        learned.journal,
        learned.at[rows],
    )
    return ranking_table(learned.detector, judged, learned.journal), judged


def _some(table: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in table.items()}
