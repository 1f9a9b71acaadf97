"""The order in which alerts are read, learned from what people said of earlier transactions.

Gradient-boosted trees (LightGBM; Ke et al. 2017) over what the density and the evidence saw. They
set `priority` and nothing else: which transactions become alerts is the density's decision, so
that a fraud of a new kind is raised although nobody ever confirmed one like it. A ranker starts
when enough frauds are known, and replaces the density's own order only where it was better on
later days.

It has no twin: nobody passes verdicts on segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lightgbm
import numpy as np

from fraudwatch.features import ALWAYS
from fraudwatch.labels import NEVER, Labels
from shared.windows import DAY, Ledger

RISK_DAYS = (1, 7, 30)
LEAST_FRAUDS = 50  # known, to learn from: fewer are learned by heart
LEAST_LATER = 20  # known on the later days, to be compared on
GENUINE_PER_FRAUD = 30  # more genuine rows change the order little and cost as much as they are
RESAMPLES, CONFIDENCE = 500, 0.99  # of the later days; so sure must the better order be
ROUNDS = 200
SETTINGS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "deterministic": True,
    "force_row_wise": True,  # the other way of counting would be chosen by timing
    "num_threads": 1,
    "verbosity": -1,
}
TEXT = "text"


@dataclass(frozen=True, eq=False)
class Ranker:
    """Named columns → log odds of fraud, in nats."""

    columns: tuple[str, ...]
    offset: float  # nats: undoes that only some of the genuine rows were learned from
    text: str  # LightGBM's own text of the trees

    @cached_property
    def _trees(self) -> lightgbm.Booster:
        return lightgbm.Booster(model_str=self.text)

    def matrix(self, table: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n, columns) of a table of named columns, (n,) each; NaN where missing."""
        return np.column_stack([np.asarray(table[name], np.float64) for name in self.columns])

    def log_odds(self, matrix: np.ndarray) -> np.ndarray:
        """(n,) log odds of fraud of the rows of a `matrix`."""
        if len(matrix) == 0:
            return np.empty(0)
        return self._trees.predict(matrix, raw_score=True, num_threads=1) + self.offset

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """(n, columns) what each column adds to the log odds (TreeSHAP; Lundberg et al. 2020).

        With the trees' expected value and the offset they sum to `log_odds`.
        """
        if len(matrix) == 0:
            return np.empty((0, len(self.columns)))
        return self._trees.predict(matrix, pred_contrib=True, num_threads=1)[:, :-1]

    def header(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "offset": self.offset}

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {TEXT: np.frombuffer(self.text.encode(), dtype=np.uint8)}

    @classmethod
    def from_arrays(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Ranker:
        """The ranker as it was stored; the same log odds to the last bit."""
        text = arrays[TEXT].tobytes().decode()
        return cls(tuple(header["columns"]), float(header["offset"]), text)


def train(
    table: Mapping[str, np.ndarray],
    fraud: np.ndarray,
    share: float,
    generator: np.random.Generator,
) -> Ranker:
    """Learns the order of rows whose answer is known; fraud: (n,) booleans.

    share: of the genuine rows there were, those that are here, for which the log odds are set
    right.
    """
    columns = tuple(table)
    matrix = np.column_stack([np.asarray(table[name], np.float64) for name in columns])
    rows = lightgbm.Dataset(matrix, fraud.astype(np.float64), feature_name=_plain(columns))
    seed = int(generator.integers(2**31))
    trees = lightgbm.train({**SETTINGS, "seed": seed}, rows, ROUNDS)
    return Ranker(columns, float(np.log(share)), trees.model_to_string())


def sampled(fraud: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """Positions of all frauds and of enough genuine rows, and the share of these that it is."""
    genuine = np.flatnonzero(~fraud)
    most = GENUINE_PER_FRAUD * int(fraud.sum())
    if len(genuine) <= most:
        return np.arange(len(fraud)), 1.0
    drawn = generator.choice(genuine, most, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(fraud), drawn])), most / len(genuine)


def _plain(columns: Sequence[str]) -> list[str]:
    """LightGBM refuses signs of JSON in names; ours are kept beside the text, in their order."""
    return [f"column_{at}" for at in range(len(columns))]


def enough(fraud: np.ndarray, later: np.ndarray) -> bool:
    """Whether there is something to learn from and to be compared on; later: (n,) booleans."""
    return bool(
        (fraud & ~later).sum() >= LEAST_FRAUDS
        and (fraud & later).sum() >= LEAST_LATER
        and (~fraud & ~later).any()
        and (~fraud & later).any()
    )


def gate(
    day: np.ndarray,
    fraud: np.ndarray,
    density: np.ndarray,
    ranked: np.ndarray,
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Whether the ranked order of later days beats the density's own, by average precision.

    All (n,) of rows that the ranker did not learn from. Days are drawn again and again, for frauds
    of one day are not independent; the difference must be above zero in 99 of 100 draws.
    """
    days, place = np.unique(day, return_inverse=True)
    draws = generator.multinomial(len(days), np.full(len(days), 1 / len(days)), RESAMPLES)
    ours, theirs = (_Ordered.of(fraud, score, place) for score in (ranked, density))
    once = np.ones(len(days), dtype=np.int64)
    gains = np.array([ours.precision(draw) - theirs.precision(draw) for draw in draws])
    low = float(np.nanquantile(gains, 1 - CONFIDENCE))
    found, before = ours.precision(once), theirs.precision(once)
    check = (
        f"average precision {found:.4f} on {len(days)} later days is above the density's "
        f"{before:.4f} (difference at least {low:.4f})"
    )
    return {
        "passed": bool(low > 0),
        "checks": {check: bool(low > 0)},
        "average_precision": found,
        "average_precision_of_density": before,
    }


@dataclass(frozen=True, eq=False)
class _Ordered:
    """Rows from the highest score down: whether each is a fraud, and the place of its day."""

    fraud: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, fraud: np.ndarray, score: np.ndarray, place: np.ndarray) -> _Ordered:
        order = np.argsort(-score, kind="stable")
        return cls(fraud[order].astype(np.int64), place[order])

    def precision(self, weights: np.ndarray) -> float:
        """Average precision where each row counts as often as its day; NaN without a fraud."""
        weight = weights[self.place]
        hits = np.cumsum(self.fraud * weight)
        if hits[-1] == 0:
            return float("nan")
        rows = np.maximum(np.cumsum(weight), 1)
        return float((self.fraud * weight * hits / rows).sum() / hits[-1])


def risks(
    keys: Mapping[str, np.ndarray],
    times: np.ndarray,
    labels: Labels,
    targets: np.ndarray,
    horizon: int,
) -> dict[str, np.ndarray]:
    """Delayed risk: what became known of each target's keys in the 1, 7 and 30 days before it.

    keys: per kind of key, (n,) codes, negative where unknown. times: (n,) microseconds. horizon:
    microseconds before a target in which a transaction has to lie to be counted, however late its
    answer came. Per kind and window: how many transactions became known (as fraud or genuine), how
    many of them as fraud, and the share of these. A mapped label that becomes known after a fixed
    delay makes the window [t − delay − width, t − delay). What was taken back since is taken off
    again.
    """
    row, moment, known, fraud = _became_known(labels)
    asked, none = times[targets], np.zeros(len(targets), np.int64)
    positions = np.arange(2 * len(moment), 2 * len(moment) + len(asked))
    changes = [np.concatenate([v, -v, none]) for v in (known, fraud)]
    found: dict[str, np.ndarray] = {}
    for kind, codes in keys.items():
        of = np.concatenate([codes[row], codes[row], codes[targets]])
        for days in RISK_DAYS:
            ends = np.minimum(moment + days * DAY, times[row] + horizon)  # the last target it tells
            at = np.concatenate([moment, np.maximum(moment, ends), asked])
            window = Ledger(of, at, positions).window(ALWAYS)
            seen, frauds = (np.maximum(window.total(values), 0) for values in changes)
            share = np.where(seen > 0, frauds / np.maximum(seen, 1), np.nan)
            named = {"known": seen, "frauds": frauds, "fraud_share": share}
            found |= {f"{kind}_{what}_{days}d": np.asarray(v) for what, v in named.items()}
    return found


def _became_known(labels: Labels) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(row, moment, known, fraud) of each change: 1 where something became known, -1 where it was
    taken back."""
    changes = []
    for moments, sign in ((labels.since, 1), (labels.until, -1)):
        row, slot = np.nonzero(moments < NEVER)
        fraud = labels.fraud[row, slot].astype(np.int64)
        changes.append((row, moments[row, slot], np.full(len(row), sign), sign * fraud))
    row, moment, known, fraud = (np.concatenate(parts) for parts in zip(*changes, strict=True))
    return row, moment, known, fraud
