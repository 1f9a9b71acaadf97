"""Densities → anomaly scores, p-values, alerts and cases.

`log_likelihood` is higher for the more usual, `anomaly_score` higher for the more anomalous; the
turn is made here and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from shared.frames import MICROSECONDS_PER_DAY

TAIL_SHARE = 0.01  # of the calibration rows; beyond them the surprise goes on as an exponential
RAISED_PER_REVIEW = 1.5  # alerts raised per review of the budget: some cases have several
SAME = 1e-6  # nats: closer surprises are one, for a row's own differs by less between batches


@dataclass(frozen=True)
class Calibration:
    """What the surprise of normal rows looks like, from rows that the density never saw.

    surprise: (n,) sorted -log_likelihood, nats. baseline: median of each part of it, by feature.
    since, until: the window of those rows, microseconds. days: local days in it.
    """

    surprise: np.ndarray
    baseline: Mapping[str, float]
    since: int
    until: int
    days: int

    @property
    def start(self) -> float:
        """Where the tail begins: the surprise that `TAIL_SHARE` of the rows reach."""
        return float(self.surprise[-self._beyond])

    @property
    def _beyond(self) -> int:
        return max(1, int(np.ceil(TAIL_SHARE * len(self.surprise))))

    @property
    def _mean_excess(self) -> float:
        """The exponential tail's scale: the mean excess over its start (its maximum likelihood)."""
        excess = float(np.mean(self.surprise[-self._beyond :]) - self.start)
        return excess if excess > 1e-9 else 1.0

    def anomaly_score(self, log_likelihood: np.ndarray) -> np.ndarray:
        """(n,) calibrated surprise in nats: minus the log share of normal rows as surprising.

        At the calibration rows the share is counted, and its log runs straight from one to the
        next; beyond the start of the tail it falls exponentially, so that the score tells extremes
        apart where no row was ever seen.
        """
        surprise = -log_likelihood
        known = np.unique(self.surprise)
        shares = (1 + self._reached(known)) / (len(self.surprise) + 1)
        inside = np.interp(np.minimum(surprise, self.start), known, -np.log(shares))
        return inside + np.maximum(surprise - self.start, 0) / self._mean_excess

    def p_value(self, log_likelihood: np.ndarray, occurred_at: np.ndarray) -> np.ndarray:
        """(n,) conformal p-values, (1 + #{calibration >= s}) / (n + 1) (Vovk et al. 2005, 2.2).

        A row of the calibration window is left out of its own comparison: its share is then
        #{calibration >= s} / n, for it is itself among those counted.
        """
        own = (occurred_at >= self.since) & (occurred_at < self.until)
        n, reached = len(self.surprise), self._reached(-log_likelihood)
        shares = np.where(own, np.maximum(reached, 1) / max(n, 1), (1 + reached) / (n + 1))
        return np.minimum(shares, 1.0)

    def entry_level(self, reviews_per_day: int) -> float:
        """The score that the calibration rows reached 1.5 times the budget on their mean day.

        It lies just below that row's, so that the row itself is raised in any batch.
        """
        raised = round(RAISED_PER_REVIEW * reviews_per_day * self.days)
        at = self.surprise[-min(max(raised, 1), len(self.surprise))] - SAME
        return float(self.anomaly_score(np.array([-at]))[0])

    def _reached(self, surprise: np.ndarray) -> np.ndarray:
        """(n,) how many calibration rows are at least as surprising."""
        return len(self.surprise) - np.searchsorted(self.surprise, surprise - SAME, side="left")

    def header(self) -> dict[str, Any]:
        return {
            "baseline": dict(self.baseline),
            "since": self.since,
            "until": self.until,
            "days": self.days,
        }


def decide(scores: pd.DataFrame, level: float) -> pd.DataFrame:
    """The scored rows that are raised as alerts, in order of (occurred_at, transaction_id)."""
    raised = scores[scores.anomaly_score >= level]
    return raised.sort_values(["occurred_at", "transaction_id"], ignore_index=True)


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
