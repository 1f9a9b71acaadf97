"""The seven test weeks of the handbook's payments: windows, the book's filter, rules, oracles.

On the first four a setting is chosen, the last three are reported apart; 2018-08-08 is the week of
the book itself. A detector that uses labels is trained on days that end a week before the test week
(labels are `DELAY_DAYS` late), any other on days that end at its eve. The book's filter leaves out
customers who are known as defrauded on a test day; a second table holds all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fraudwatch.evaluation import auc, average_precision, card_precision, per_kind, value_found
from shared.windows import DAY
from tests.quality.peers import Split
from tests.quality.protocol import known_compromised
from tests.quality.views import DELAY_DAYS, Payments

CHOICE = (59, 73, 87, 101)  # days since 2018-04-01: 05-30, 06-13, 06-27, 07-11
REPORT = (115, 129, 157)  # 07-25, 08-08 (the book's own), 09-05
STARTS = CHOICE + REPORT
LENGTH = 7
BUDGET = 100  # cards or payments looked at a day
RELAPSE_DAYS = 28  # how long a terminal stays compromised: an older label says nothing
CERTAIN = 220  # the simulator's own threshold: only rules that say so may use it
USUAL_RATIO = 3.5  # of an amount over the customer's mean, by eye

Figures = dict[str, float]
Scores = Callable[["Week"], np.ndarray]


@dataclass(frozen=True)
class Week:
    """A test week; `payments` are in order of time, so that every span of days is a slice."""

    payments: Payments
    start: int  # its first day

    @property
    def name(self) -> str:
        return str(np.datetime64("2018-04-01") + self.start)

    @cached_property
    def test(self) -> slice:
        return self.days(self.start, self.start + LENGTH)

    def days(self, first: int, until: int) -> slice:
        """The payments of the days [first, until)."""
        return slice(*np.searchsorted(self.payments.day, (first, until)))

    def training(self, days: int, *, labels: bool) -> slice:
        """At most `days` days, up to a week before the test week where labels are used."""
        until = self.start - (DELAY_DAYS if labels else 0)
        return self.days(until - days, until)

    def split(self, view: str, days: int, *, labels: bool) -> Split:
        """The training and test rows of a view of the payments."""
        rows, p = self.training(days, labels=labels), self.payments
        return Split(p.matrix(view, rows), p.fraud[rows], p.matrix(view, self.test))

    @cached_property
    def kept(self) -> np.ndarray:
        """(test,) the rows of the main table: customers not known as defrauded on the day."""
        part = self.days(self.start - 2 * DELAY_DAYS, self.start + LENGTH)
        p = self.payments
        known = known_compromised(
            p.day[part],
            p.customer[part],
            p.fraud[part],
            since=self.start - 2 * DELAY_DAYS,
            delay_days=DELAY_DAYS,
        )
        return ~known[self.test.start - part.start :]

    def figures(self, scores: np.ndarray) -> dict[str, Figures]:
        """The figures of the scores of the test rows, of both tables."""
        if scores.shape != (self.test.stop - self.test.start,) or not np.isfinite(scores).all():
            raise ValueError(f"week {self.name}: scores are to be finite, one for each test row")
        everything = np.ones(len(scores), dtype=bool)
        return {"main": self._of(scores, self.kept), "all rows": self._of(scores, everything)}

    def _of(self, scores: np.ndarray, kept: np.ndarray) -> Figures:
        p = self.payments
        day, customer, amount, fraud, scenario = (
            values[self.test][kept] for values in (p.day, p.customer, p.amount, p.fraud, p.scenario)
        )
        score = scores[kept]
        figures = {
            "AUC": auc(fraud, score),
            "AP": average_precision(fraud, score),
            f"CP@{BUDGET}": card_precision(day, customer, score, fraud, BUDGET),
            f"value@{BUDGET}": value_found(day, amount, score, fraud, BUDGET),
        }
        for kind in per_kind(fraud, scenario, score).itertuples():
            figures |= {f"AUC s{kind.kind}": kind.auc, f"AP s{kind.kind}": kind.average_precision}
        return figures


# --- rules and oracles ---------------------------------------------------------------------------


def _column(name: str) -> Scores:
    return lambda week: week.payments.column(name)[week.test].astype(np.float64)


_amount, _ratio = _column("amount"), _column("ratio_to_mean")


def _two_factor(week: Week) -> np.ndarray:
    return _column("weight_of_risk")(week) + _ratio(week) / USUAL_RATIO


def _two_factor_informed(week: Week) -> np.ndarray:
    certain = np.where(_amount(week) > CERTAIN, 4.0, 0.0)
    return _column("weight_of_risk")(week) + np.maximum(_ratio(week) / USUAL_RATIO, certain)


def _visible(week: Week) -> np.ndarray:
    return np.isin(week.payments.scenario[week.test], (1, 3)).astype(np.float64)


def _visible_or_known(week: Week) -> np.ndarray:
    """And frauds at a terminal with a fraud known since, of the compromise that still lasts."""
    p = week.payments
    known = p.of_terminal.window((RELAPSE_DAYS - DELAY_DAYS) * DAY, DELAY_DAYS * DAY)
    seen = known.total(p.fraud)[week.test] > 0
    return np.maximum(_visible(week), (p.scenario[week.test] == 2) & seen)


def _perfect(week: Week) -> np.ndarray:
    return week.payments.fraud[week.test].astype(np.float64)


NONE, INPUTS, TRAINING, TRUTH = "none", "inputs, 7 days old", "training", "the truth"
RULES: Mapping[str, tuple[str, Scores]] = {
    "oracle: perfect": (TRUTH, _perfect),
    "oracle: scenarios 1 and 3": (TRUTH, _visible),
    "oracle: and scenario 2 at known terminals": (TRUTH, _visible_or_known),
    "rule: amount": (NONE, _amount),
    "rule: amount over own mean": (NONE, _ratio),
    "rule: terminal risk over 7 days": (INPUTS, _column("terminal_risk_7d")),
    "rule: two factors": (INPUTS, _two_factor),
    f"rule: two factors and {CERTAIN}": (INPUTS, _two_factor_informed),
}
