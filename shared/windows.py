"""Point-in-time window statistics over sorted keys, for both domains.

A window of a row at time t is [t − delay − width, t − delay), over the rows of the same key: rows
of one moment never see each other, and a later row never matters. Answers come in the caller's
order and depend only on the rows inside the window: not on the order of the rows, nor on how many
older rows are present.

The method: sort by (key, time) once, find both ends of every window by binary search, and answer
counts and sums as differences of two places in the sorted order.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

SECOND = 1_000_000  # times are int64 microseconds
HOUR = 3600 * SECOND
DAY = 24 * HOUR

UNKNOWN = -1  # the key of a row that stands alone
_NEVER = np.int64(2**62)  # gap before the first row of a key; |time| stays below 2**61
_CHUNK = 1 << 14  # rows searched at a time: they stay in the cache, so cost grows linearly


class Ledger:
    """Rows sorted by key and time, asked about the past of `targets` (default: of every row).

    keys: (n,) integers, negative where unknown: such a row stands alone, it has no past.
    times: (n,) int64 microseconds, absolute value below 2**61.
    targets: distinct positions of the rows asked about; answers follow their order.
    """

    def __init__(
        self, keys: np.ndarray, times: np.ndarray, targets: np.ndarray | None = None
    ) -> None:
        self._order = _by_key_and_time(keys, times)
        self._times = times[self._order]
        self._gaps = _gaps(keys[self._order], self._times)
        begins = np.where(self._gaps > 0, np.arange(len(self._gaps)), 0)
        self._moments = np.maximum.accumulate(begins)  # place of the first row of the same moment
        self._slots, self._places = self._asked(targets)

    def asked_at(self, targets: np.ndarray) -> Ledger:
        """The same ledger asked about other rows; the sorted rows are shared, not copied."""
        other = copy.copy(self)
        other._slots, other._places = other._asked(targets)
        return other

    def window(self, width: int, delay: int = 0) -> Window:
        """The window [t − delay − width, t − delay) of each target, in microseconds."""
        return Window(
            ledger=self, start=self._first_within(delay + width), stop=self._first_within(delay)
        )

    def _asked(self, targets: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Answer slots and sorted places of the targets, by rising place (the cache likes it)."""
        if targets is None:
            return self._order, np.arange(len(self._order))
        slot_of = np.full(len(self._order), -1)
        slot_of[targets] = np.arange(len(targets))
        slots = slot_of[self._order]
        places = np.flatnonzero(slots >= 0)
        if len(places) != len(targets):
            raise ValueError(f"{len(targets)} targets name {len(places)} rows, expected as many")
        return slots[places], places

    def _first_within(self, reach: int) -> np.ndarray:
        """Place of the first row at most `reach` microseconds before each target.

        A clock that runs through all keys makes it one search in a sorted array: it advances by
        the gap to the row before, but never by more than reach + 1, so that the rows within reach
        are at their true distance and all others, of whatever key, lie further away. The clock
        starts anew in each chunk, so it cannot overflow.
        """
        if reach == 0:
            return self._moments[self._places]
        if len(self._times):
            reach = min(reach, int(self._times.max()) - int(self._times.min()) + 1)
        rows = min(_CHUNK, 2**61 // (reach + 1))
        first = np.empty(len(self._places), dtype=np.int64)
        low = 0  # windows start in the order of the rows, so none starts below the last one's start
        for begin in range(0, len(self._gaps), rows):
            end = min(begin + rows, len(self._gaps))
            clock = np.cumsum(np.minimum(self._gaps[low:end], reach + 1))
            asked = slice(*np.searchsorted(self._places, (begin, end)))
            ends = clock[self._places[asked] - low]
            first[asked] = low + np.searchsorted(clock, ends - reach)
            low += int(np.searchsorted(clock, clock[-1] - reach))
        return first


@dataclass(frozen=True, eq=False)
class Window:
    """One window per target, as places [start, stop) in the ledger's sorted order."""

    ledger: Ledger
    start: np.ndarray
    stop: np.ndarray

    def count(self) -> np.ndarray:
        """Rows in the window, int64."""
        return self._answer(self.stop - self.start)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum of the integer `values`, one per row of the ledger, int64.

        Exact whatever precedes the window: the running sum may wrap at 2**64, the difference of
        two of its places is right as long as the answer itself fits into 63 bits.
        """
        if values.dtype.kind not in "biu":
            raise TypeError(f"sums are exact on integers only, found {values.dtype} values")
        running = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(values[self.ledger._order], out=running[1:])
        return self._answer(running[self.stop] - running[self.start])

    def since_last(self) -> np.ndarray:
        """Microseconds since the last row in the window, float64; NaN if there is none."""
        times = self.ledger._times
        passed = times[self.ledger._places] - times[np.maximum(self.stop - 1, 0)]
        return self._answer(np.where(self.stop > self.start, passed, np.nan))

    def recent(self, values: np.ndarray, n: int) -> np.ndarray:
        """The last n `values` in the window, (targets, n) float64, oldest first, NaN in front.

        Rows of one moment are taken in the order of their values, so the rows' order is of no
        account.
        """
        return self._answer(self._last(self._by_moment(values), n, slice(None)))

    def quantiles(self, values: np.ndarray, n: int, probabilities: tuple[float, ...]) -> np.ndarray:
        """Quantiles of the last n `values` in the window, (targets, probabilities) float64.

        Linear between order statistics (numpy's default); NaN where the window is empty.
        values: (rows,), without NaN.
        """
        ordered = self._by_moment(values)
        answers = np.empty((len(self.start), len(probabilities)))
        for begin in range(0, len(self.start), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            sample = np.sort(self._last(ordered, n, part), axis=1)  # NaN goes last
            size = np.minimum(self.stop[part] - self.start[part], n)
            for column, probability in enumerate(probabilities):
                answers[part, column] = _quantile(sample, size, probability)
        return self._answer(answers)

    def _last(self, ordered: np.ndarray, n: int, part: slice) -> np.ndarray:
        """(targets of the part, n): the values before each stop, NaN before its start."""
        places = self.stop[part, None] + np.arange(-n, 0)
        within = places >= self.start[part, None]
        return np.where(within, ordered[np.where(within, places, 0)], np.nan)

    def _by_moment(self, values: np.ndarray) -> np.ndarray:
        """The values by key, time and value, float64."""
        ordered = values[self.ledger._order].astype(np.float64)
        same_as_before = self.ledger._gaps == 0
        tied = same_as_before.copy()
        tied[:-1] |= same_as_before[1:]
        moment = np.cumsum(~same_as_before)[tied]
        ordered[tied] = ordered[tied][np.lexsort((ordered[tied], moment))]
        return ordered

    def _answer(self, sorted_answers: np.ndarray) -> np.ndarray:
        """From the ledger's order to the order of the targets."""
        answers = np.empty_like(sorted_answers)
        answers[self.ledger._slots] = sorted_answers
        return answers


def _by_key_and_time(keys: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Positions by (key, time): rows by time, then stably by each 16 bits of the key.

    numpy sorts 16-bit numbers by radix, so the cost is linear in the rows.
    """
    if len(times) and np.any(times[1:] < times[:-1]):
        order = np.argsort(times, kind="stable")
    else:
        order = np.arange(len(times))
    digits = np.maximum(keys.astype(np.int64), UNKNOWN) + 1
    highest = int(digits.max()) if len(digits) else 0
    for shift in range(0, highest.bit_length(), 16):
        digit = ((digits >> shift) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def _gaps(keys: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Microseconds since the row before of the same known key; `_NEVER` where there is none."""
    gaps = np.full(len(keys), _NEVER)
    follows = (keys[1:] == keys[:-1]) & (keys[1:] >= 0)
    gaps[1:][follows] = (times[1:] - times[:-1])[follows]
    return gaps


def _quantile(sample: np.ndarray, size: np.ndarray, probability: float) -> np.ndarray:
    """The quantile of the first `size` entries of each sorted row; NaN where there are none."""
    position = np.maximum(size - 1, 0) * probability
    below = np.floor(position).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(size - 1, 0))
    row = np.arange(len(sample))
    low, high = sample[row, below], sample[row, above]
    return low + (high - low) * (position - below)
