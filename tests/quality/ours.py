"""peerwatch itself on the handbook's weeks, through the same functions as its commands.

Three classes: no label anywhere, by `anomaly_score`; labels as evidence, known after 7 days, by
`anomaly_score`; and with the ranker, by `priority`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from fraudwatch import judging, learning
from fraudwatch.config import Settings
from fraudwatch.detector import Scored
from fraudwatch.features import Reference, build, declared, reference
from fraudwatch.judging import Journal, Judged
from fraudwatch.learning import Learned, Window
from shared.windows import DAY
from tests.quality.fingerprints import fingerprint
from tests.quality.views import DELAY_DAYS, Payments
from tests.quality.weeks import INPUTS, LENGTH, NONE, TRAINING, Week

TRAINING_DAYS, CALIBRATION_DAYS, HISTORY_DAYS = 90, 28, 31
PACKAGE = Path(learning.__file__).parent
NO_VERDICTS = pd.DataFrame(
    {"transaction_id": np.empty(0, np.int64), "verdict": [], "decided_at": np.empty(0, np.int64)}
)


def rows_of(p: Payments, part: slice, *, amounts: np.ndarray | None = None) -> pd.DataFrame:
    """Payments as peerwatch reads them."""
    return pd.DataFrame(
        {
            "transaction_id": p.identifier[part],
            "occurred_at": p.times[part],
            "customer_id": p.customer[part],
            "counterparty_id": p.terminal[part],
            "amount": (p.amount if amounts is None else amounts)[part],
            "currency": "",
        }
    )


@dataclass(frozen=True, eq=False)
class Study:
    """A model fitted at the end of day `until` - 1 and the days before `last` that it may judge.

    labels: whether the mapped labels are known, after `DELAY_DAYS`. verdicts: what people said.
    """

    payments: Payments
    until: int
    last: int
    seed: int
    labels: bool
    verdicts: pd.DataFrame

    @cached_property
    def settings(self) -> Settings:
        return Settings(label_delay_days=DELAY_DAYS, seed=self.seed, reviews_per_day=50)

    @cached_property
    def span(self) -> slice:
        """From the features' history on to the end."""
        first = max(0, self.until - TRAINING_DAYS)
        return self._days(max(0, first - HISTORY_DAYS), self.last)

    @cached_property
    def training(self) -> slice:
        return self._days(max(0, self.until - TRAINING_DAYS), self.until)

    @cached_property
    def reference(self) -> Reference:
        return reference(rows_of(self.payments, self.training))

    @cached_property
    def learned(self) -> Learned:
        first, epoch = max(0, self.until - TRAINING_DAYS), int(self.payments.times[0] // DAY)
        split = self.until - min(CALIBRATION_DAYS, (self.until - first) // 3)
        bounds = [(epoch + day) * DAY for day in (first, split, self.until)]
        journal = self.journal(slice(self.span.start, self.training.stop))
        return learning.learn(
            self.features(self.training),
            np.arange(self.training.start, self.training.stop) - self.span.start,
            journal,
            declared(list(rows_of(self.payments, slice(0, 1)))),
            self.reference,
            Window(*bounds, self.until - split),
            self.settings,
            "UTC",
        )

    def features(self, part: slice, *, amounts: np.ndarray | None = None) -> pd.DataFrame:
        p = self.payments
        lead = np.searchsorted(p.day, p.day[part.start] - HISTORY_DAYS)
        rows = rows_of(p, slice(int(lead), part.stop), amounts=amounts)
        at = np.arange(part.start, part.stop) - lead
        return build(rows, at, self.reference, "UTC")

    def journal(self, part: slice) -> Journal:
        rows = rows_of(self.payments, part).drop(columns=["amount", "currency"])
        if self.labels:
            rows["label"] = self.payments.fraud[part].astype(np.float64)
        return Journal(rows, self.verdicts, DELAY_DAYS, np.full(len(rows), np.nan))

    def judged(
        self,
        part: slice,
        verdicts: pd.DataFrame | None = None,
        *,
        amounts: np.ndarray | None = None,
    ) -> tuple[Judged, Journal]:
        """The payments of some days after the fit, with what was said of earlier ones."""
        detector, journal = self.learned.detector, self.journal(self.span)
        if verdicts is not None:
            journal = replace(journal, verdicts=verdicts)
        new = slice(self.training.stop, part.stop)
        frame = self.features(new, amounts=amounts)
        places = np.arange(new.start, new.stop) - self.span.start
        scored, journal = continued(self.learned, journal, frame, places)
        own = np.arange(part.start, part.stop) - new.start
        at = places[own]
        return judging.judge(detector, frame.iloc[own], scored.part(own), journal, at), journal

    def _days(self, first: int, until: int) -> slice:
        return slice(*(int(x) for x in np.searchsorted(self.payments.day, (first, until))))


def continued(
    learned: Learned, journal: Journal, frame: pd.DataFrame, at: np.ndarray
) -> tuple[Scored, Journal]:
    """What the density says of later rows, and the journal with all surprises filled in."""
    detector = learned.detector
    scored = detector.score(frame)
    journal = judging.filled(journal, learned.at, detector.surprise(learned.scored))
    return scored, judging.filled(journal, at, detector.surprise(scored))


@lru_cache(2)  # the two models of a week
def study(week: Week, seed: int, *, labels: bool) -> Study:
    """The week's model: fitted at its eve, or a week before where labels are used."""
    until = week.start - (DELAY_DAYS if labels else 0)
    return Study(week.payments, until, week.start + LENGTH, seed, labels, NO_VERDICTS)


@dataclass(frozen=True)
class OwnLine:
    """What all lines of peerwatch in the benchmark have in common."""

    view: str
    labels: str = NONE
    name: str = "peerwatch"
    setting: str = "default"
    seeded: bool = True
    cost: int = 1

    @property
    def source(self) -> str:
        own = sorted({Path(__file__), Path(inspect.getfile(type(self)))})
        return fingerprint(*sorted(PACKAGE.glob("*.py")), *own)


class Ours(OwnLine):
    """A class of peerwatch's own scores."""

    def train_rows(self, case: Week) -> int:
        part = study(case, 0, labels=self.labels != NONE).training
        return int(part.stop - part.start)

    def fit(self, case: Week, seed: int) -> Callable[[], np.ndarray]:
        made = study(case, seed, labels=self.labels != NONE)
        learned = made.learned
        if self.labels != TRAINING:
            return lambda: made.judged(case.test)[0].anomaly_score
        until = int(case.payments.times[0] // DAY + made.until) * DAY
        ranked = learning.rank(learned, until, "UTC", seed)
        assert ranked is not None, "enough frauds are known"
        assert ranked.gate["passed"], ranked.gate

        def priority() -> np.ndarray:
            judged, journal = made.judged(case.test)
            table = judging.ranking_table(learned.detector, judged, journal)
            return ranked.ranker.log_odds(ranked.ranker.matrix(table))

        return priority


CLASSES = (
    Ours("anomaly_score"),
    Ours("anomaly_score, labels as evidence", INPUTS),
    Ours("priority, with the ranker", TRAINING),
)


def classes(dataset: str) -> Iterable[Ours]:
    """Peerwatch's own lines of a data set, for `scorers.SOURCES`."""
    return CLASSES if dataset == "handbook" else ()
