"""The customer's segment as it stood before the day of a transaction: context for the density.

The two domains meet in a table alone: periods that the segmenter wrote. The ids of segments are
never used twice; one that a fraud model has not seen in its training is one of its rare levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fraudwatch.features import SEGMENT
from shared import frames

SEGMENTER = "segmenter"  # the kind of the models whose segments these are
LEAST_KNOWN = 0.8  # of the training rows; a context that is mostly missing says nothing


@dataclass(frozen=True)
class Segments:
    """Segments as context: the segmenter that was champion at the fit, and the periods."""

    version: str
    periods: pd.DataFrame

    def joined(self, rows: pd.DataFrame, timezone: str) -> pd.DataFrame:
        """The rows with the column of segments that features are made of."""
        known = segments_before(rows, self.periods, timezone)
        return rows.assign(**{SEGMENT: known})


def segments_before(rows: pd.DataFrame, periods: pd.DataFrame, timezone: str) -> np.ndarray:
    """(n,) the segment of each row's customer as text, "" where none was recorded.

    rows: customer_id, occurred_at (microseconds). periods: customer_id, segment_id, valid_from,
    valid_to (microseconds; null where current). What counts is what was recorded before the local
    day of the row began, so that no run of the same day matters.
    """
    empty = np.full(len(rows), "", dtype=object)
    if periods.empty or rows.empty:
        return empty
    codes, customers = pd.factorize(periods.customer_id)
    asked = pd.Index(customers).get_indexer(rows.customer_id)
    order = np.lexsort((periods.valid_from, codes))
    begun = periods.valid_from.to_numpy(np.int64)[order]
    ended = periods.valid_to.astype("Int64").to_numpy(np.int64, na_value=2**62)[order]
    dawns = _dawns(rows.occurred_at.to_numpy(np.int64), timezone)
    # Places are sorted by customer and then by beginning: the last one that begins in time.
    firsts = np.searchsorted(codes[order], asked)
    place = _last_before(codes[order], begun, asked, dawns)
    there = (asked >= 0) & (place >= firsts)
    there[there] = dawns[there] <= ended[place[there]]
    segments = periods.segment_id.to_numpy()[order]
    empty[there] = [str(int(segments[at])) for at in place[there]]
    return empty


def _dawns(moments: np.ndarray, timezone: str) -> np.ndarray:
    """(n,) the first moment of each row's local day."""
    days, at = np.unique(frames.local_days(moments, timezone), return_inverse=True)
    starts = np.array([frames.day_start(day, timezone) for day in days], dtype=np.int64)
    return starts[at] if len(starts) else np.empty(0, np.int64)


def _last_before(
    codes: np.ndarray, begun: np.ndarray, asked: np.ndarray, dawns: np.ndarray
) -> np.ndarray:
    """(n,) place of the last period of the asked customer, or of one before, begun before dawn."""
    moments = np.unique(np.concatenate([begun, dawns]))
    span = len(moments) + 1
    keys = codes * span + np.searchsorted(moments, begun)
    return np.searchsorted(keys, asked * span + np.searchsorted(moments, dawns)) - 1
