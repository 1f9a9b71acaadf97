"""What is known of each transaction, fraud or genuine, and since when.

A mapped label is known from its `label_time`, else `label_delay_days` after the transaction; a
null says nothing, and neither does a younger zero, for its fraud may yet be reported. A verdict
beats a label from its `decided_at` until it is taken back. Nothing is known of a transaction before
it happens: a day without a time of day is its midnight, which lies before the day's payments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from shared.frames import MICROSECONDS_PER_DAY

NEVER = 2**62  # a moment after all others
FRAUD, GENUINE, UNKNOWN = 1, 0, -1
SAYS = {  # of two verdicts of one moment the later one here stands
    "in_review": UNKNOWN,
    "reopened": UNKNOWN,
    "inconclusive": UNKNOWN,
    "genuine_unusual": GENUINE,
    "false_positive": GENUINE,
    "confirmed_fraud": FRAUD,
}


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of n rows: the k-th thing known of row i holds in (since, until].

    since, until: (n, m) int64 microseconds, `NEVER` in the unused places, and as the end of what
    still holds. fraud: (n, m) bool. A row's intervals are apart and in order of time.
    """

    since: np.ndarray
    until: np.ndarray
    fraud: np.ndarray

    def known(self, moment: int) -> np.ndarray:
        """(n,) int8: 1 fraud, 0 genuine, -1 unknown, by what was known before the moment."""
        holds = (self.since < moment) & (moment <= self.until)
        said = holds.any(1)
        return np.where(said, (holds & self.fraud).any(1), UNKNOWN).astype(np.int8)


def labels_of(rows: pd.DataFrame, verdicts: pd.DataFrame, delay_days: int) -> Labels:
    """What labels and verdicts say of each row, in the rows' order.

    rows: transaction_id (one row each), occurred_at (microseconds), label (NaN where null; above
    zero is fraud), and label_time (nullable microseconds) where it is mapped; without `label`
    only verdicts are known. verdicts: transaction_id, verdict, decided_at (microseconds), in any
    order; those of other transactions are passed over.
    """
    row, moment, said, rank = _events(rows, verdicts, delay_days)
    order = np.lexsort((rank, moment, row))
    row, said, rank = row[order], said[order], rank[order]
    moment = np.maximum(moment[order], rows["occurred_at"].to_numpy(np.int64)[row])
    verdict = _latest(row, np.where(rank > 0, said, np.int8(-2)))
    label = _latest(row, np.where(rank > 0, np.int8(-2), said))
    state = np.where(verdict >= 0, verdict, label)
    same = row[1:] == row[:-1]
    until = np.full(len(row), NEVER)
    until[:-1][same] = moment[1:][same]
    kept = (state >= 0) & (moment < until)
    return _joined(row[kept], moment[kept], until[kept], state[kept] == FRAUD, len(rows))


def _events(
    rows: pd.DataFrame, verdicts: pd.DataFrame, delay_days: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(row, moment, what it says, rank) of each label and verdict; a label's rank is 0."""
    there, moments, fraud = _mapped(rows, delay_days)
    place = pd.Index(rows["transaction_id"]).get_indexer(verdicts["transaction_id"])
    given = verdicts[place >= 0]
    ranks = {verdict: rank for rank, verdict in enumerate(SAYS, start=1)}
    return (
        np.concatenate([there, place[place >= 0]]),
        np.concatenate([moments, given["decided_at"].to_numpy(np.int64)]),
        np.concatenate([fraud, given["verdict"].map(SAYS).to_numpy(np.int8)]),
        np.concatenate([np.zeros(len(there), np.int8), given["verdict"].map(ranks).to_numpy(int)]),
    )


def _mapped(rows: pd.DataFrame, delay_days: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(place, known since, fraud) of the rows whose label is not null."""
    if "label" not in rows:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8)
    label = rows["label"].to_numpy(np.float64, na_value=np.nan)
    there = np.flatnonzero(~np.isnan(label))
    fraud = label[there] > 0
    ripe = rows["occurred_at"].to_numpy(np.int64)[there] + delay_days * MICROSECONDS_PER_DAY
    if "label_time" not in rows:
        return there, ripe, fraud.astype(np.int8)
    given = rows["label_time"].iloc[there]
    told = given.astype("Int64").to_numpy(np.int64, na_value=-NEVER)
    since = np.where(fraud & given.notna().to_numpy(), told, np.maximum(told, ripe))
    return there, since, fraud.astype(np.int8)


def _latest(row: np.ndarray, said: np.ndarray) -> np.ndarray:
    """(events,) the last thing said of the same row so far; -2 stands for nothing said here."""
    places = np.where(said > -2, np.arange(len(row)), -1)
    last = np.maximum.accumulate(places) if len(places) else places
    of_row = (last >= 0) & (row[np.maximum(last, 0)] == row)
    return np.where(of_row, said[np.maximum(last, 0)], UNKNOWN)


def _joined(
    row: np.ndarray, since: np.ndarray, until: np.ndarray, fraud: np.ndarray, size: int
) -> Labels:
    """The intervals by row; one that goes on saying what the one before it said is one with it."""
    goes_on = np.zeros(len(row), dtype=bool)
    goes_on[1:] = (row[1:] == row[:-1]) & (since[1:] == until[:-1]) & (fraud[1:] == fraud[:-1])
    first = np.flatnonzero(~goes_on)
    last = np.append(first[1:], len(row))[: len(first)] - 1
    row, since, until, fraud = row[first], since[first], until[last], fraud[first]
    slot = np.arange(len(row)) - np.searchsorted(row, row)
    shape = (size, int(slot.max(initial=0)) + 1)
    table = Labels(np.full(shape, NEVER), np.full(shape, NEVER), np.zeros(shape, dtype=bool))
    table.since[row, slot], table.until[row, slot], table.fraud[row, slot] = since, until, fraud
    return table
