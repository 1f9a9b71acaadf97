"""A customers' table that keeps its history: which row was valid when, and what is amiss.

A row holds in [valid_from, valid_to), in microseconds; an open end is FOREVER. Where periods of
one customer overlap, the row that began later is the correction and counts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from shared.frames import OK, WRONG, Cells

EVER, FOREVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max
PERIOD = ["valid_from", "valid_to"]


def valid_at(rows: pd.DataFrame, moment: int) -> pd.DataFrame:
    """The rows that hold at the moment, one per customer, without the columns of the period.

    rows: as `periods` leaves them; a frame without a period holds at any moment.
    """
    if PERIOD[0] not in rows:
        return rows
    holds = (rows.valid_from <= moment) & (moment < rows.valid_to)
    latest = rows[holds].drop_duplicates("customer_id", keep="last")
    return latest.drop(columns=PERIOD).reset_index(drop=True)


def periods(rows: pd.DataFrame, begins: Cells, ends: Cells) -> pd.DataFrame:
    """The rows with their period, by customer and beginning; those of no customer are left out.

    rows: one per cell, with customer_id. A missing beginning means ever, a missing end means open;
    a period that cannot be read is empty.
    """
    unread = (begins.state == WRONG) | (ends.state == WRONG)
    dated = rows.assign(
        valid_from=np.select([unread, begins.state == OK], [FOREVER, begins.values], EVER),
        valid_to=np.select([unread, ends.state == OK], [EVER, ends.values], FOREVER),
    )
    dated = dated[dated.customer_id.notna()]
    rest = [name for name in dated if name not in ("customer_id", *PERIOD)]
    return dated.sort_values(["customer_id", *PERIOD, *rest], ignore_index=True)


def remarks(rows: pd.DataFrame) -> dict[str, int]:
    """How many rows are amiss: empty (the end not after the beginning, or unreadable), overlapping
    an earlier row of the customer, or beginning after a gap."""
    there = rows[rows.valid_to > rows.valid_from]
    own = there.customer_id == there.customer_id.shift()
    before = there.groupby("customer_id").valid_to.cummax().shift()
    return {
        "empty": len(rows) - len(there),
        "overlapping": int((own & (there.valid_from < before)).sum()),
        "gaps": int((own & (there.valid_from > before)).sum()),
    }
