"""Densities → anomaly scores, p-values, q-values, alerts and cases.

`log_likelihood` is higher for the more usual, `anomaly_score` higher for the more anomalous; the
turn is made here and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from shared.frames import MICROSECONDS_PER_DAY

TAIL_SHARE = 0.01  # of the calibration rows; beyond them the surprise goes on as an exponential
CALIBRATOR = 0.1  # the shape of the calibrator: small, for frauds lie far out
BODY_SHARE = 0.1  # from here to the tail's start its scale is taken
RAISED_PER_REVIEW = 1.5  # alerts raised per review of the budget: some cases have several
SAME = 1e-6  # nats: closer surprises are one, for a row's own differs by less between batches
DRIFT_LEVELS = (0.1, 0.2, 0.3, 0.5)  # of p-values: frauds alone move the shares below smaller ones
FALSE_DRIFT = 1e-4  # of the days of a steady feed: one in thirty years
DRIFT_DAYS = 7  # of calibration at least: fewer do not tell one weekday from another
KNOWN_SHARE = 0.5  # of the calibration's budget with an answer: frauds that hide there silence BH


@dataclass(frozen=True, eq=False)
class SurpriseScale:
    """A statistic that is higher for the more unusual → nats of calibrated surprise.

    values: (n,) the statistic of normal rows that the density never saw, sorted.
    """

    values: np.ndarray

    @classmethod
    def of(cls, statistic: np.ndarray) -> SurpriseScale:
        return cls(np.sort(statistic))

    @property
    def start(self) -> float:
        """Where the tail begins: the value that `TAIL_SHARE` of the rows reach."""
        return self._reached_by(TAIL_SHARE)

    @property
    def _scale(self) -> float:
        """The exponential tail's scale, from two shares at which a few hidden frauds are few.

        The mean excess over the start, its maximum likelihood, would be theirs alone.
        """
        steps = np.log(BODY_SHARE / TAIL_SHARE)
        scale = (self.start - self._reached_by(BODY_SHARE)) / steps
        return float(scale) if scale > 1e-9 else 1.0

    def nats(self, statistic: np.ndarray) -> np.ndarray:
        """(n,) minus the log share of normal rows as surprising.

        At the rows of the scale the share is counted, and its log runs straight from one to the
        next; beyond the start of the tail it falls exponentially, so that surprises are told apart
        where no row was ever seen.
        """
        inside = np.interp(np.minimum(statistic, self.start), *self._steps)
        return inside + np.maximum(statistic - self.start, 0) / self._scale

    @cached_property
    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Each value that there is, and minus the log share of the rows that reach it."""
        known = np.unique(self.values)
        shares = (1 + _reaching(self.values, known)) / (len(self.values) + 1)
        return known, -np.log(shares)

    def _reached_by(self, share: float) -> float:
        return float(self.values[-max(1, int(np.ceil(share * len(self.values))))])


@dataclass(frozen=True, eq=False)
class Aspect:
    """What a fraud may show in: some parts of the surprise, looked at by themselves.

    In the sum over all columns the tail of the one that tells is drowned by the chance of the
    others. at: positions of the parts; weight: how often frauds show in it, before labels tell.
    most: the nats that it can say at most; None where it may say any number.
    """

    name: str
    at: tuple[int, ...]
    weight: float
    scale: SurpriseScale
    most: float | None = None

    def nats(self, parts: np.ndarray) -> np.ndarray:
        """(n,) calibrated surprise of the rows in this aspect; parts: (n, parts) nats."""
        found = self.scale.nats(statistic_of(parts, self.at))
        return found if self.most is None else np.minimum(found, self.most)


def statistic_of(parts: np.ndarray, at: Sequence[int]) -> np.ndarray:
    """(n,) the parts of one aspect together, one after the other: the same in any batch."""
    total = np.zeros(len(parts))
    for column in at:
        total += parts[:, column]
    return total


def mixed(parts: np.ndarray, aspects: Sequence[Aspect]) -> np.ndarray:
    """(n,) log of the mean, over the aspects, of the likelihood ratios that their p-values give.

    Each is a p to the power of `CALIBRATOR` - 1, the calibrator of Vovk & Wang (2021); a mean of
    such is one again, whatever the dependence, and the largest of them rules it.
    """
    found = [np.log(aspect.weight) + (1 - CALIBRATOR) * aspect.nats(parts) for aspect in aspects]
    return np.logaddexp.reduce(found, axis=0)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What anomaly scores look like in a window that the density never saw.

    scores: (n,) sorted, of its rows without those known as fraud. frauds: (m,) of these. since,
    until: the window, microseconds. days: local days in it.
    """

    scores: np.ndarray
    frauds: np.ndarray
    since: int
    until: int
    days: int

    def p_value(self, anomaly_score: np.ndarray, occurred_at: np.ndarray) -> np.ndarray:
        """(n,) conformal p-values, (1 + #{calibration >= s}) / (n + 1) (Vovk et al. 2005, 2.2).

        A row of the calibration window is left out of its own comparison: its share is then
        #{calibration >= s} / n, for it is itself among those counted.
        """
        own = (occurred_at >= self.since) & (occurred_at < self.until)
        n, reached = len(self.scores), _reaching(self.scores, anomaly_score)
        shares = np.where(own, np.maximum(reached, 1) / max(n, 1), (1 + reached) / (n + 1))
        return np.minimum(shares, 1.0)

    def entry_level(self, reviews_per_day: int) -> float:
        """The score that the window reached 1.5 times the budget on its mean day, frauds included.

        It lies just below that row's, so that the row itself is raised in any batch.
        """
        raised = max(round(RAISED_PER_REVIEW * reviews_per_day * self.days), 1)
        every = np.sort(np.concatenate([self.scores, self.frauds]))
        return float(every[-min(raised, len(every))]) - SAME

    def header(self) -> dict[str, Any]:
        return {"since": self.since, "until": self.until, "days": self.days}


def _reaching(calibration: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) how many of the sorted calibration values are at least as high as each value."""
    return len(calibration) - np.searchsorted(calibration, values - SAME, side="left")


def raised(scores: pd.DataFrame, level: float) -> np.ndarray:
    """Positions of the scored rows that are raised as alerts, by (occurred_at, transaction_id)."""
    at = np.flatnonzero(scores.anomaly_score.to_numpy() >= level)
    order = scores.iloc[at][["occurred_at", "transaction_id"]].reset_index(drop=True)
    return at[order.sort_values(["occurred_at", "transaction_id"]).index.to_numpy()]


def benjamini_hochberg(p_values: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """(n,) q-values: the smallest false-discovery rate at which each p-value is under the cut.

    counts: how often each p-value stands; once where not given. The step-up procedure of
    Benjamini & Hochberg (1995): q of the i-th smallest is the least of p_j m / j over j >= i.
    """
    order = np.argsort(p_values, kind="stable")
    ranks = np.arange(1, len(order) + 1) if counts is None else np.cumsum(counts[order])
    if not len(order):
        return np.empty(0)
    ratios = p_values[order] * (ranks[-1] / ranks)  # in this order none is rounded below its p
    q_values = np.empty(len(order))
    q_values[order] = np.minimum(np.minimum.accumulate(ratios[::-1])[::-1], 1.0)
    return q_values


def cut_of(p_values: np.ndarray, q_values: np.ndarray, rate: float | None) -> float | None:
    """The largest p-value under the asked rate; None where no rate is asked or none is under it."""
    under = p_values[q_values <= rate] if rate is not None else p_values[:0]
    return float(under.max()) if len(under) else None


def late_q_values(
    p_values: np.ndarray,
    steps: tuple[np.ndarray, np.ndarray],
    cut: float | None,
    rate: float | None,
) -> np.ndarray:
    """(n,) q-values of rows that came after their day was closed: the day's own step function.

    steps: p-values and q-values that the day's alerts stored. The q of a p-value is that of the
    next stored one at or above it; beyond them all it is the asked rate up to the cut, else 1.
    """
    known, order = np.append(steps[0], np.inf), np.argsort(steps[0])
    known[:-1] = steps[0][order]
    q_values = np.append(steps[1][order], 1.0)
    found = q_values[np.searchsorted(known, p_values, side="left")]
    if cut is None or rate is None:
        return found
    return np.where(p_values <= cut, np.minimum(found, rate), found)


@dataclass(frozen=True)
class Footing:
    """What a promised rate rests on: how well the calibration is known, and how steady it was.

    known_share: of the calibration rows that the budget shows, those with a label or verdict.
    frauds_removed: confirmed frauds that were taken out. shares: mean share of a calibration
    day's p-values at or below each of `DRIFT_LEVELS`, the removed frauds among them, as a new day
    has its own; spread: its standard deviation from day to day. days: how many days those are.
    """

    known_share: float
    frauds_removed: int
    shares: tuple[float, ...]
    spread: tuple[float, ...]
    days: int

    @property
    def drift_limit(self) -> float:
        """What a day's drift stays below but once in `1 / FALSE_DRIFT` days of a steady feed.

        Student's quantile (a mean and a spread of few days are guesses), shared between the levels.
        """
        tail = FALSE_DRIFT / len(DRIFT_LEVELS) / 2
        return -float(stdtrit(max(self.days - 1, 1), tail))

    def drift(self, p_values: np.ndarray, counts: np.ndarray) -> float | None:
        """How far a day's shares of small p-values lie from calibration, in its daily deviations.

        The largest over the levels, either way; None where nothing can be told: no row, or fewer
        than `DRIFT_DAYS` days of calibration. A day of few rows is given what chance alone does
        to it (the binomial variance), the guessed mean its own error.
        """
        rows = counts.sum()
        if not rows or self.days < DRIFT_DAYS:
            return None
        found = np.array([counts[p_values <= level].sum() for level in DRIFT_LEVELS]) / rows
        mean = np.array(self.shares)
        variance = np.maximum(np.square(self.spread), mean * (1 - mean) / rows)
        return float((np.abs(found - mean) / np.sqrt(variance * (1 + 1 / self.days))).max())

    def weakness(self) -> str | None:
        """Why no rate can be promised on it; None where one can."""
        if self.known_share < KNOWN_SHARE:
            return (
                f"of what a day's budget shows in the calibration window only "
                f"{self.known_share:.0%} has a verdict or label; {KNOWN_SHARE:.0%} are needed"
            )
        if self.days < DRIFT_DAYS:
            return (
                f"the calibration window has {self.days} days; {DRIFT_DAYS} are needed to tell "
                "drift"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Footing:
        lists = {name: tuple(value[name]) for name in ("shares", "spread")}
        return cls(**{**value, **lists})


def answered(
    scores: np.ndarray, days: np.ndarray, known: np.ndarray, reviews_per_day: int
) -> np.ndarray:
    """(n,) whether a row's day has its answers: labels or verdicts for most of what it shows.

    All rows where fewer than `DRIFT_DAYS` days have. scores, days, known: as in `footing`.
    """
    each, at = np.unique(days, return_inverse=True)
    shown = _shown(-scores, at, reviews_per_day)
    known_there = np.bincount(at[shown], known[shown] >= 0, len(each))
    enough = known_there >= KNOWN_SHARE * np.bincount(at[shown], minlength=len(each))
    return enough[at] if enough.sum() >= DRIFT_DAYS else np.ones(len(days), dtype=bool)


def _shown(p_values: np.ndarray, day: np.ndarray, reviews_per_day: int) -> np.ndarray:
    """Positions of the rows that a day's budget shows; day: (n,) from 0 on without gaps."""
    order = np.lexsort((p_values, day))
    rows = np.bincount(day)
    place = np.arange(len(day)) - (np.cumsum(rows) - rows)[day[order]]
    return order[place < reviews_per_day]


def footing(
    p_values: np.ndarray, days: np.ndarray, known: np.ndarray, reviews_per_day: int
) -> Footing:
    """The footing of a calibration.

    p_values: (n,) of all its rows, also of those taken out as confirmed frauds. days: (n,) their
    local days. known: (n,) 1 fraud, 0 genuine, -1 unknown, as of the fit.
    """
    each, at = np.unique(days, return_inverse=True)
    rows = np.bincount(at, minlength=len(each))
    below = np.array([np.bincount(at[p_values <= level], minlength=len(each))
                      for level in DRIFT_LEVELS])  # fmt: skip
    shares = below / rows  # (levels, days)
    shown = _shown(p_values, at, reviews_per_day)
    spread = shares.std(axis=1, ddof=1) if len(each) > 1 else np.zeros(len(DRIFT_LEVELS))
    return Footing(
        known_share=float(np.mean(known[shown] >= 0)),
        frauds_removed=int((known == 1).sum()),
        shares=tuple(shares.mean(axis=1).tolist()),
        spread=tuple(spread.tolist()),
        days=len(each),
    )


def natural_id(kind: str, *parts: object) -> str:
    """An id that is a function of natural keys: the same row has it in every run."""
    text = "\x1f".join(str(part) for part in parts)
    return f"{kind}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"


def cases(alerts: pd.DataFrame, earlier: pd.DataFrame, case_days: int) -> pd.Series:
    """The case of each alert: alerts of one customer, each within `case_days` of the one before.

    alerts: customer_id, counterparty_id, occurred_at (microseconds), transaction_id, in order.
    earlier: alerts already raised, with case_id beside the same columns. Without a customer the
    counterparty stands for it; without both an alert is a case of its own. A late row joins the
    case before it, else the one after.
    """
    known: dict[str, list[tuple[int, str]]] = {}
    for row in earlier.itertuples():
        known.setdefault(_owner(row), []).append((row.occurred_at, row.case_id))
    found = []
    for row in alerts.itertuples():
        others = known.setdefault(_owner(row), [])
        near = _near(others, row.occurred_at, case_days * MICROSECONDS_PER_DAY)
        case = near or natural_id("case", _owner(row), row.transaction_id)
        others.append((row.occurred_at, case))
        found.append(case)
    return pd.Series(found, index=alerts.index, dtype="object")


def _near(others: list[tuple[int, str]], moment: int, reach: int) -> str | None:
    """The case of the last alert at or before the moment, else of the first after, in reach."""
    before = max((item for item in others if moment - reach <= item[0] <= moment), default=None)
    after = min((item for item in others if moment < item[0] <= moment + reach), default=None)
    found = before or after
    return None if found is None else found[1]


def _owner(row: Any) -> str:
    """Whose case it is."""
    if not pd.isna(row.customer_id):
        return f"customer {row.customer_id}"
    if not pd.isna(row.counterparty_id):
        return f"counterparty {row.counterparty_id}"
    return f"transaction {row.transaction_id}"


def gate(candidate: Mapping[str, Any], champion: Mapping[str, Any] | None) -> dict[str, Any]:
    """Whether a candidate may replace the champion, with each check and its reason.

    candidate: finite (all scores), held_out_share (of newest calibration rows above the entry
    level fixed on the older ones), expected_share, common_log_likelihood. champion: the last of
    these of the present champion on the same rows and columns; None where there is none.
    """
    found, expected = candidate["held_out_share"], candidate["expected_share"]
    slack = 0.5 * expected + 3 * np.sqrt(expected / max(candidate["held_out_rows"], 1))
    checks = {
        "scores are finite": bool(candidate["finite"]),
        f"calibration holds on the newest days: {found:.4%} raised, {expected:.4%} expected": bool(
            abs(found - expected) <= slack
        ),
    }
    if champion is not None:
        ours, theirs = candidate["common_log_likelihood"], champion["common_log_likelihood"]
        checks[f"held-out likelihood {ours:.4f} is not below the champion's {theirs:.4f}"] = bool(
            ours >= theirs - 0.01  # nats per row; less is the noise of training
        )
    return {"passed": all(checks.values()), "checks": checks}
