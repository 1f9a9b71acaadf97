"""Rows → judged rows: the density's surprise, the evidence of what came before, the p-value.

Two passes. The surprise of a row is the density's alone, so it may be had in any partition of the
rows, or read where it is stored; the evidence of a row is made of the surprises and labels of the
rows before it. Both are pure functions of model and rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from fraudwatch.detector import Detector, Scored
from fraudwatch.evidence import COUNTERPARTY, CUSTOMER, Weighed
from fraudwatch.features import ENTITY
from fraudwatch.labels import Labels, labels_of
from fraudwatch.ranker import RISK_DAYS, risks
from shared.errors import TemporaryError
from shared.windows import DAY


@dataclass(frozen=True, eq=False)
class Journal:
    """Who paid when, how surprising it was, and what is known of it.

    rows: transaction_id, occurred_at (microseconds), the keys, and label, label_time where they
    are mapped. surprise: (n,) nats, by one density; NaN where it is not needed.
    """

    rows: pd.DataFrame
    verdicts: pd.DataFrame
    delay_days: int
    surprise: np.ndarray

    @cached_property
    def keys(self) -> dict[str, np.ndarray]:
        """Codes of the keys by their kind, negative where a row has none."""
        return keys_of(self.rows)

    @cached_property
    def times(self) -> np.ndarray:
        return self.rows.occurred_at.to_numpy(np.int64)

    @cached_property
    def labels(self) -> Labels:
        return labels_of(self.rows, self.verdicts, self.delay_days)

    def places(self, ids: pd.Series) -> np.ndarray:
        """Where the transactions stand in the journal, which is read after them."""
        found = pd.Index(self.rows.transaction_id).get_indexer(ids)
        if (found < 0).any():
            raise TemporaryError(
                f"{int((found < 0).sum())} transactions were removed from the source, or changed "
                "their time, while they were read. Nothing was written of them; run it again."
            )
        return found


@dataclass(frozen=True, eq=False)
class Judged:
    """What is said of n rows; `at` are their places in the journal."""

    frame: pd.DataFrame
    scored: Scored
    surprise: np.ndarray  # (n,) nats, calibrated
    weighed: Weighed
    anomaly_score: np.ndarray
    p_value: np.ndarray
    at: np.ndarray

    def part(self, rows: np.ndarray) -> Judged:
        """Some of the rows, by position."""
        return Judged(
            self.frame.iloc[rows],
            self.scored.part(rows),
            self.surprise[rows],
            self.weighed.part(rows),
            self.anomaly_score[rows],
            self.p_value[rows],
            self.at[rows],
        )


def horizon(delay_days: int) -> int:
    """Microseconds before a row in which there may be others whose labels tell of it."""
    return (max(RISK_DAYS) + delay_days) * DAY


def nothing(detector: Detector) -> Judged:
    """What is said of no rows."""
    none, kinds = np.empty(0), (0, len(detector.evidence.keys))
    scored = Scored(none, np.empty((0, len(detector.names))))
    weighed = Weighed(np.empty(kinds), np.empty(kinds), np.empty(kinds))
    return Judged(pd.DataFrame(), scored, none, weighed, none, none, np.empty(0, np.intp))


def filled(journal: Journal, at: np.ndarray, surprise: np.ndarray) -> Journal:
    """The journal with the surprises of the rows at these places."""
    values = journal.surprise.copy()
    values[at] = surprise
    return replace(journal, surprise=values)


def keys_of(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Codes of the keys that rows have: customer, counterparty and entities, by their kind."""
    named = {"customer_id": CUSTOMER, "counterparty_id": COUNTERPARTY}
    named |= {name: name.removeprefix(ENTITY) for name in rows if str(name).startswith(ENTITY)}
    return {
        kind: pd.factorize(rows[column])[0].astype(np.int64)
        for column, kind in named.items()
        if column in rows
    }


def sharing_a_key(
    keys: Mapping[str, np.ndarray], asked: np.ndarray, among: np.ndarray
) -> np.ndarray:
    """Those of the places `among` that have a key in common with one of the places `asked`."""
    shared = np.zeros(len(among), dtype=bool)
    for codes in keys.values():
        present = np.zeros(int(codes.max(initial=-1)) + 2, dtype=bool)
        present[codes[asked]] = True
        present[-1] = False  # the code of an unknown key
        shared |= present[codes[among]]
    return among[shared]


def judge(
    detector: Detector, frame: pd.DataFrame, scored: Scored, journal: Journal, at: np.ndarray
) -> Judged:
    """Judges rows by their features and what came before them.

    frame, scored: features and density of the rows; at: their places in the journal, which holds
    all rows of the evidence's window before them, with the surprises of those that share a key.
    """
    surprise = detector.surprise(scored)
    weighed = detector.evidence.weigh(
        journal.keys, journal.times, journal.surprise, journal.labels, at
    )
    score = detector.evidence.anomaly_score(surprise, weighed.posterior)
    p_value = detector.calibration.p_value(score, journal.times[at])
    return Judged(frame, scored, surprise, weighed, score, p_value, at)


def ranking_table(detector: Detector, judged: Judged, journal: Journal) -> dict[str, np.ndarray]:
    """What the ranker sees of judged rows: features, the density's parts, evidence and risks."""
    encoded = detector.encoder.transform(judged.frame)
    names = detector.encoder.names
    table = {name: encoded[:, place] for place, name in enumerate(names)}
    beside = [n for n, v in judged.frame.items() if n not in names and v.dtype.kind in "biuf"]
    table |= {name: judged.frame[name].to_numpy(np.float64, na_value=np.nan) for name in beside}
    parts = judged.scored.surprise.T
    table |= {f"surprise.{n}": part for n, part in zip(detector.names, parts, strict=True)}
    table |= {"surprise": judged.surprise, "anomaly_score": judged.anomaly_score}
    for place, key in enumerate(detector.evidence.keys):
        table[f"posterior.{key.kind}"] = judged.weighed.posterior[:, place]
        table[f"confirmed.{key.kind}"] = judged.weighed.confirmed[:, place]
        table[f"unusual.{key.kind}"] = judged.weighed.unusual[:, place]
    reach = horizon(journal.delay_days)
    known = risks(journal.keys, journal.times, journal.labels, judged.at, reach)
    return table | {f"risk.{name}": values for name, values in known.items()}
