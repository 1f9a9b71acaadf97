"""How many alarms are false where 5, 10 or 20 % is asked, with 50 reviews a day fed back.

On each of the handbook's test weeks: a first model without labels ranks the four weeks before; the
first 50 of each day are reviewed, the answers come after 0 or 7 days. The week's model is fitted at
its eve with the answers known by then; on each day of the week Benjamini-Hochberg is asked, and 50
more are reviewed. No label is mapped: all that is known are these verdicts.

The false share of a day is the share of false alarms among its alarms, 0 on a day without any.
Also: the day's drift on ordinary days, and with every amount 15 % higher from the week's first day.

Run: python -m pytest tests/quality/test_false_discoveries.py -s
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from fraudwatch import decisions
from shared.windows import DAY
from tests.quality import datasets
from tests.quality.ours import NO_VERDICTS, Study
from tests.quality.views import Payments
from tests.quality.weeks import LENGTH, STARTS

RATES = (0.05, 0.1, 0.2)
DELAYS = (0, 7)
REVIEWS, REVIEWED_DAYS = 50, 28
SHIFT = 1.15
WITHDRAWN_WITHIN = 3  # days


@dataclass(frozen=True, eq=False)
class Day:
    """One day of a test week as its model saw it."""

    week: int
    delay: int
    q_values: np.ndarray
    fraud: np.ndarray
    drift: float
    limit: float
    weakness: str | None

    def outcome(self, rate: float) -> tuple[int, int, float]:
        """(alarms, frauds among them, false share)."""
        alarms = self.q_values <= rate
        found = int((alarms & self.fraud).sum())
        return int(alarms.sum()), found, (alarms.sum() - found) / max(alarms.sum(), 1)


def reviews(p: Payments, part: slice, scores: np.ndarray, delay: int) -> pd.DataFrame:
    """What people say of the first `REVIEWS` of each day, so many days after its end."""
    rows = pd.DataFrame({"at": np.arange(part.start, part.stop), "score": scores})
    rows["day"] = p.day[part]
    first = rows.sort_values("score", ascending=False, kind="stable").groupby("day").head(REVIEWS)
    at = first["at"].to_numpy()
    return pd.DataFrame(
        {
            "transaction_id": p.identifier[at],
            "verdict": np.where(p.fraud[at] == 1, "confirmed_fraud", "false_positive"),
            "decided_at": (p.times[at] // DAY + 1 + delay) * DAY,
        }
    )


def week_of(p: Payments, start: int, delay: int) -> list[Day]:
    """The days of a test week."""
    before = slice(*np.searchsorted(p.day, (start - REVIEWED_DAYS, start)))
    first = Study(p, start - REVIEWED_DAYS, start, 0, False, NO_VERDICTS)
    said = reviews(p, before, first.judged(before)[0].anomaly_score, delay)
    model = Study(p, start, start + LENGTH, 0, False, said)
    footing = model.learned.detector.footing
    assert footing is not None
    days = []
    for day in range(start, start + LENGTH):
        part = slice(*np.searchsorted(p.day, (day, day + 1)))
        judged, _ = model.judged(part, said)
        p_values = judged.p_value
        days.append(
            Day(
                start,
                delay,
                decisions.benjamini_hochberg(p_values),
                p.fraud[part] == 1,
                footing.drift(p_values, np.ones(len(p_values), np.int64)) or 0.0,
                footing.drift_limit,
                footing.weakness(),
            )
        )
        said = pd.concat([said, reviews(p, part, judged.anomaly_score, delay)], ignore_index=True)
    return days


def drifts(p: Payments, start: int) -> list[float]:
    """The drift of each day of a week whose amounts are all higher, over its limit."""
    shifted = np.where(p.day >= start, p.amount * SHIFT, p.amount)
    model = Study(p, start, start + LENGTH, 0, False, NO_VERDICTS)
    footing = model.learned.detector.footing
    assert footing is not None
    found = []
    for day in range(start, start + LENGTH):
        part = slice(*np.searchsorted(p.day, (day, day + 1)))
        p_values = model.judged(part, amounts=shifted)[0].p_value
        drift = footing.drift(p_values, np.ones(len(p_values), np.int64))
        found.append((drift or 0.0) / footing.drift_limit)
    return found


@pytest.fixture(scope="module")
def payments() -> Payments:
    try:
        return Payments.read()
    except datasets.DataAbsent as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="module")
def days(payments: Payments) -> list[Day]:
    return [day for start in STARTS for delay in DELAYS for day in week_of(payments, start, delay)]


@pytest.fixture(scope="module")
def outcomes(days: list[Day]) -> pd.DataFrame:
    """One row per delay and asked rate, printed."""
    table = []
    for delay in DELAYS:
        of_delay = [day for day in days if day.delay == delay]
        for rate in RATES:
            alarms, found, shares = map(
                np.array, zip(*(day.outcome(rate) for day in of_delay), strict=True)
            )
            table.append(
                {
                    "verdicts after": delay,
                    "asked": rate,
                    "daily false share": shares.mean(),
                    "standard error": shares.std(ddof=1) / np.sqrt(len(shares)),
                    "pooled false share": 1 - found.sum() / max(alarms.sum(), 1),
                    "alarms a week": alarms.sum() / len(STARTS),
                    "frauds a week": found.sum() / len(STARTS),
                }
            )
    made = pd.DataFrame(table)
    print(f"\n{made.round(3).to_string(index=False)}")
    return made


def test_the_daily_false_share_is_at_most_what_was_asked(outcomes: pd.DataFrame) -> None:
    over = outcomes["daily false share"] - 2 * outcomes["standard error"] - outcomes["asked"]

    assert (over <= 0).all(), outcomes[over > 0]


def test_the_alarms_are_not_silent(outcomes: pd.DataFrame) -> None:
    asked = outcomes[outcomes["asked"] >= 0.1]

    assert (asked["alarms a week"] >= 100).all(), asked


def test_a_rate_could_be_promised_on_every_ordinary_day(days: list[Day]) -> None:
    worst = max(day.drift / day.limit for day in days)
    print(f"\nlargest drift of an ordinary day: {worst:.2f} of its limit")

    assert worst < 1
    assert all(day.weakness is None for day in days)


def test_the_promise_is_withdrawn_when_amounts_shift(payments: Payments) -> None:
    table = {start: drifts(payments, start) for start in STARTS}
    print("\ndrift over its limit, day by day, with every amount 15 % higher:")
    for start, found in table.items():
        print(np.datetime64("2018-04-01") + start, " ".join(f"{x:.1f}" for x in found))

    for found in table.values():
        assert max(found[:WITHDRAWN_WITHIN]) > 1
