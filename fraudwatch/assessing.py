"""Source rows → judged rows, and what is said of those that are raised.

Between the pure judgement and the database: reads who paid before, what is known of it, and the
surprises that the model stored; what it has not stored is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fraudwatch import explanations, features, judging, store
from fraudwatch.detector import Detector
from fraudwatch.explanations import Beside, Suspicion
from fraudwatch.judging import Journal, Judged
from fraudwatch.ranker import Ranker
from fraudwatch.scope import KIND, RANKER, SCORE_COLUMNS, with_all_columns
from fraudwatch.segments import Segments
from shared import frames, registry
from shared.errors import ConfigurationError
from shared.frames import MICROSECONDS_PER_DAY
from shared.runs import Run
from shared.windows import DAY


@dataclass(frozen=True, eq=False)
class Assessed:
    """Judged rows with the rows themselves and the journal they were judged by."""

    rows: pd.DataFrame
    judged: Judged
    journal: Journal

    def part(self, at: np.ndarray) -> Assessed:
        """Some of the rows, by position."""
        return Assessed(self.rows.iloc[at], self.judged.part(at), self.journal)


class Assessor:
    """Judges rows with one model; what it has computed of one slice serves the next."""

    def __init__(self, run: Run, model: registry.Stored) -> None:
        self.run, self.model, self.settings = run, model, run.settings(KIND)
        self.detector = Detector.from_arrays(model.header, model.arrays)
        self.level = self.detector.calibration.entry_level(self.settings.reviews_per_day)
        with run.results.transaction() as connection:
            self.verdicts = store.verdicts(connection, run.tables)
            self.ranker_id, self.ranker = _ranker_of(connection, run, model)
        self.segments = segments_of(run, self.detector.segmenter)
        self._known = pd.Series(np.empty(0))

    @property
    def lead(self) -> int:
        """Microseconds of rows that must be at hand before those asked about.

        The surprises of the evidence's window may have to be computed, from features of their own.
        """
        return self.settings.history_days * MICROSECONDS_PER_DAY + self._window

    @property
    def _window(self) -> int:
        return (self.detector.evidence.days + 1) * DAY  # its days are whole ones

    def assess(self, rows: pd.DataFrame, targets: np.ndarray) -> Assessed:
        """Judges the target rows; rows: with `lead` before the first of them."""
        if len(targets) == 0:
            return Assessed(rows.iloc[:0], judging.nothing(self.detector), _empty(rows))
        if self.segments is not None:
            rows = self.segments.joined(rows, self.run.source.settings.timezone)
        frame = self.features(rows, targets)
        scored = self.detector.score(frame)
        asked = rows.iloc[targets]
        journal = self._journal(rows, asked)
        at = journal.places(asked.transaction_id)
        journal = judging.filled(journal, at, self.detector.surprise(scored))
        self._known = pd.Series(journal.surprise, pd.Index(journal.rows.transaction_id)).dropna()
        return Assessed(asked, judging.judge(self.detector, frame, scored, journal, at), journal)

    def features(self, rows: pd.DataFrame, targets: np.ndarray) -> pd.DataFrame:
        zone = self.run.source.settings.timezone
        frame = features.build(
            rows, targets, self.detector.reference, zone, self.settings.history_days
        )
        absent = [name for name in self.detector.encoder.names if name not in frame]
        if absent:
            raise ConfigurationError(
                f"{self.run.command} found no {', '.join(absent)}, which "
                f"{self.model.model_version_id} was fitted with: the mapping has changed. Map "
                "again what it lacks, or fit anew: peerwatch fraudwatch fit"
            )
        return frame

    def _journal(self, rows: pd.DataFrame, asked: pd.DataFrame) -> Journal:
        """What came before the asked rows, with the surprises of rows that share a key."""
        first, last = int(asked.occurred_at.min()), int(asked.occurred_at.max())
        before = max(self._window, judging.horizon(self.settings.label_delay_days))
        journal = journal_of(self.run, first - before, last + 1, self.verdicts)
        read = journal.rows
        at = journal.places(asked.transaction_id)
        recent = np.flatnonzero(journal.times >= first - self._window)
        needed = judging.sharing_a_key(journal.keys, at, np.setdiff1d(recent, at))
        values = self._stored(read.transaction_id.iloc[needed])
        places = pd.Index(rows.transaction_id).get_indexer(read.transaction_id.iloc[needed])
        # A row that has come between the two reads of the source has no features: it says nothing.
        missing = np.isnan(values) & (places >= 0)
        if missing.any():
            scored = self.detector.score(self.features(rows, places[missing]))
            values[missing] = self.detector.surprise(scored)
        journal.surprise[needed] = values
        return journal

    def _stored(self, ids: pd.Series) -> np.ndarray:
        """(n,) surprises that this model computed or stored before; NaN where it has not."""
        at = self._known.index.get_indexer(ids)
        values = np.where(at >= 0, self._known.to_numpy()[at] if len(self._known) else 0.0, np.nan)
        open_ = np.flatnonzero(np.isnan(values))
        with self.run.results.transaction() as connection:
            values[open_] = store.surprises(
                connection, self.run.tables, self.model.model_version_id, ids.iloc[open_]
            )
        return values

    # --- what is said of what is raised ---------------------------------------------------------

    def raised(self, assessed: Assessed) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(what an alert says beside its scores, reasons) of rows that are raised.

        The first has one row for each: summary, priority, expected_loss, ranker_version_id.
        `row` of the reasons is their position.
        """
        judged, matrix = assessed.judged, None
        priority, probability = judged.anomaly_score, self._probability(judged)
        if self.ranker is not None:
            table = judging.ranking_table(self.detector, judged, assessed.journal)
            matrix = self.ranker.matrix(table)
            priority = self.ranker.log_odds(matrix)
            probability = 1 / (1 + np.exp(-priority))
        reasons, summaries = self._explained(assessed, matrix)
        amount = assessed.rows["amount"].abs() if "amount" in assessed.rows else np.nan
        said = pd.DataFrame(
            {
                "summary": pd.Series(summaries, dtype="object"),
                "priority": priority,
                "expected_loss": np.asarray(amount) * probability,
                "ranker_version_id": self.ranker_id,
            }
        )
        return said, reasons

    def explored(
        self, window: tuple[int, int], ids: Sequence[Any]
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(alerts as far as the model knows, reasons) of rows of a window that were drawn."""
        rows = self.read(*window)
        at = np.flatnonzero(rows.transaction_id.isin(ids))
        assessed = self.assess(rows, at)
        said, reasons = self.raised(assessed)
        picked = with_all_columns(assessed.rows)[list(SCORE_COLUMNS)].reset_index(drop=True)
        return picked.assign(**{name: said[name] for name in said}), reasons

    def read(self, since: int, until: int) -> pd.DataFrame:
        """The rows of a window with their lead."""
        return self.run.source.read(since - self.lead, until, frames.micros(self.run.clock)).rows

    def turning_points(self, assessed: Assessed) -> np.ndarray:
        """(n, 2) shares of each amount between which the row would not have been raised; or NaN."""
        judged, evidence = assessed.judged, self.detector.evidence

        def score(changed: pd.DataFrame, at: np.ndarray) -> np.ndarray:
            surprise = self.detector.surprise(self.detector.score(changed))
            return evidence.anomaly_score(surprise, judged.weighed.posterior[at])

        return explanations.turning_point(judged.frame, score, self.level)

    def _probability(self, judged: Judged) -> np.ndarray:
        """(n,) P(fraud) by evidence that labels taught; NaN where it was only assumed."""
        if not self.detector.learnt:
            return np.full(len(judged.surprise), np.nan)
        return self.detector.evidence.probability(judged.surprise, judged.weighed.posterior)

    def _explained(
        self, assessed: Assessed, matrix: np.ndarray | None
    ) -> tuple[pd.DataFrame, list[str]]:
        judged, detector = assessed.judged, self.detector
        surprise = explanations.Surprise(
            names=detector.names,
            focal=detector.focal,
            parts=judged.scored.surprise,
            baseline=detector.baseline,
            expected=detector.expected(judged.frame, explanations.QUANTILES),
            levels=detector.levels(judged.frame),
        )
        ranked = None
        if self.ranker is not None and matrix is not None:
            ranked = pd.DataFrame(
                self.ranker.contributions(matrix), columns=list(self.ranker.columns)
            )
        beside = Beside(judged.surprise, self._suspicions(assessed), ranked)
        return explanations.explain(
            assessed.rows,
            judged.frame,
            surprise,
            detector.reference,
            beside,
            self.turning_points(assessed),
        )

    def _suspicions(self, assessed: Assessed) -> Sequence[Suspicion]:
        judged, evidence = assessed.judged, self.detector.evidence
        nats = evidence.parts(judged.surprise, judged.weighed.posterior)
        return [
            Suspicion(
                key.kind,
                np.where(assessed.journal.keys[key.kind][judged.at] >= 0, nats[:, at], np.nan),
                judged.weighed.posterior[:, at],
                judged.weighed.confirmed[:, at],
                judged.weighed.unusual[:, at],
                evidence.days,
            )
            for at, key in enumerate(evidence.keys)
        ]


def _empty(rows: pd.DataFrame) -> Journal:
    verdicts = pd.DataFrame({"transaction_id": [], "verdict": [], "decided_at": []})
    return Journal(rows.iloc[:0], verdicts, 0, np.empty(0))


def _ranker_of(
    connection: Any, run: Run, model: registry.Stored
) -> tuple[str | None, Ranker | None]:
    """The champion ranker, where it learned from this density, which a recalibration keeps."""
    stored = registry.champion(connection, run.tables, RANKER)
    if stored is None or stored.header["density"] != model.header["density_id"]:
        return None, None
    return stored.model_version_id, Ranker.from_arrays(stored.header, stored.arrays)


def journal_of(run: Run, since: int, until: int, verdicts: pd.DataFrame) -> Journal:
    """Who paid when in a window, and what is known of it; surprises are still to be filled in."""
    rows = run.source.read_keys(since, until, frames.micros(run.clock))
    delay = run.settings(KIND).label_delay_days
    return Journal(rows, verdicts, delay, np.full(len(rows), np.nan))


def segments_of(run: Run, version: str | None) -> Segments | None:
    """The segments of a model whose context they are; None where they are not."""
    if version is None:
        return None
    with run.results.transaction() as connection:
        return Segments(version, store.segment_periods(connection, run.tables))
