"""What a frame of transactions must look like: typed cells, moments, days, and the quality gate.

Moments are whole microseconds since 1970-01-01 UTC. A row that fails the gate is refused with a
code and never enters a feature; nothing is dropped without one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

MICROSECONDS_PER_DAY = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = -2_208_988_800_000_000  # 1900-01-01: older is a default value, not a payment
LARGEST_AMOUNT = 1e12  # ten-thousandths of it, summed over a window, still fit 64 bits
OK, NULL, WRONG = 0, 1, 2  # state of a cell
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # how one begins (OWASP)

CODES = {
    "id_null": "the row has no id",
    "id_wrong_type": "the id is not of the kind that the mapping records",
    "id_duplicate": "the id stands in more than one row",
    "time_null": "the row has no time",
    "time_unparsable": "the time cannot be read",
    "time_out_of_range": "the time is before 1900",
    "time_in_future": "the time is more than a day ahead of the clock",
    "customer_wrong_type": "the customer is not of the kind that the mapping records",
    "counterparty_wrong_type": "the counterparty is not of the kind that the mapping records",
    "entity_wrong_type": "an entity's key is not of the kind that the mapping records",
    "amount_null": "the row has no amount",
    "amount_text": "the amount is text",
    "amount_nan": "the amount is not a number",
    "amount_infinite": "the amount is infinite",
    "amount_overflow": "the amount is a trillion or more",
    "number_text": "a mapped number is text",
    "number_nan": "a mapped number is not a number",
    "number_infinite": "a mapped number is infinite or beyond 1e30",
}
REFUSED = ["row_key", "code", "column_name", "masked_value", "day", "source_rows"]


def micros(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970, exact."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """Microseconds since 1970 as an aware datetime."""
    return EPOCH + timedelta(microseconds=int(value))


def local_days(occurred_at: np.ndarray, timezone: str) -> np.ndarray:
    """The calendar day in the zone of each moment: (n,) datetime64[D]."""
    stamps = np.asarray(occurred_at, dtype=np.int64).astype("datetime64[us]")
    if timezone == "UTC":
        return stamps.astype("datetime64[D]")
    local = pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(timezone).tz_localize(None)
    return local.to_numpy().astype("datetime64[D]")


def day_start(day: np.datetime64, timezone: str) -> int:
    """The first moment of a calendar day in the zone, in microseconds."""
    stamp = pd.Timestamp(day).tz_localize(timezone, ambiguous=True, nonexistent="shift_forward")
    return micros(stamp.to_pydatetime())


def masked(text: str) -> str:
    """The shape of a value without the value: digits become 9, letters a; at most 24 signs."""
    shape = "".join("9" if sign.isdigit() else "a" if sign.isalpha() else sign for sign in text)
    shape = "".join(sign if sign.isprintable() else "?" for sign in shape)
    return shape if len(shape) <= 24 else f"{shape[:23]}…"


@dataclass(frozen=True)
class Cells:
    """One column as read: values, the state of each cell, and the text of the wrong ones."""

    column: str
    values: Any
    state: np.ndarray
    text: np.ndarray | None = None  # of wrong cells, unmasked; never leaves this module

    def where(self, keep: np.ndarray) -> Cells:
        """The cells of these rows."""
        text = None if self.text is None else self.text[keep]
        return Cells(self.column, self.values[keep], self.state[keep], text)

    def shown(self, at: np.ndarray) -> list[str]:
        if self.text is not None:
            return [masked(str(value)) for value in self.text[at]]
        return [masked(str(value)) for value in np.asarray(self.values, dtype=object)[at]]


def refuse(
    keys: pd.Series, days: np.ndarray, where: np.ndarray, code: str, column: str, shown: list[str]
) -> pd.DataFrame:
    """The refusal of the rows in `where`; rows that share an id are counted together by day."""
    frame = pd.DataFrame(
        {
            "row_key": keys.astype("str").where(keys.notna(), "(null)").to_numpy()[where],
            "code": code,
            "column_name": column,
            "masked_value": shown,
            "day": days[where],
            "source_rows": 1,
        }
    )
    return _counted(frame)


def _counted(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per key, code and day: no id, or a repeated one, may stand on several days."""
    grouped = frame.groupby(["row_key", "code", "day"], sort=True, as_index=False, dropna=False)
    return grouped.agg(
        column_name=("column_name", "first"),
        masked_value=("masked_value", "min"),
        source_rows=("source_rows", "sum"),
    )[REFUSED]


def no_refusals() -> pd.DataFrame:
    """An empty frame of refusals."""
    return pd.DataFrame({name: pd.Series(dtype="object") for name in REFUSED})


def refused_rows(refused: pd.DataFrame | None) -> int:
    """How many source rows are refused; one with several faults has several refusals."""
    if refused is None:
        return 0
    return int(refused.groupby(["row_key", "day"], dropna=False).source_rows.max().sum())


def gather(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Refusals of several checks as one frame."""
    kept = [part for part in parts if not part.empty]
    return pd.concat(kept, ignore_index=True) if kept else no_refusals()


def time_codes(cells: Cells, clock: int) -> dict[str, np.ndarray]:
    """Which rows have no usable time: code to mask. `clock` is now, in microseconds."""
    good = cells.state == OK
    return {
        "time_null": cells.state == NULL,
        "time_unparsable": cells.state == WRONG,
        "time_out_of_range": good & (cells.values < EARLIEST),
        "time_in_future": good & (cells.values > clock + MICROSECONDS_PER_DAY),
    }


def key_codes(name: str, cells: Cells) -> dict[str, np.ndarray]:
    """Which rows have a key that cannot be used; only an id must be there."""
    codes = {f"{name}_wrong_type": cells.state == WRONG}
    return {"id_null": cells.state == NULL, **codes} if name == "id" else codes


def amount_codes(cells: Cells) -> dict[str, np.ndarray]:
    """Which rows have no usable amount."""
    good = cells.state == OK
    with np.errstate(invalid="ignore"):
        return {
            "amount_null": cells.state == NULL,
            "amount_text": cells.state == WRONG,
            "amount_nan": good & np.isnan(cells.values),
            "amount_infinite": good & np.isinf(cells.values),
            "amount_overflow": good
            & np.isfinite(cells.values)
            & (np.abs(cells.values) >= LARGEST_AMOUNT),
        }


def number_codes(cells: Cells) -> dict[str, np.ndarray]:
    """Which rows have a number that cannot be used; null is a missing cell, not a fault."""
    good = cells.state == OK
    with np.errstate(invalid="ignore"):
        return {
            "number_text": cells.state == WRONG,
            "number_nan": good & np.isnan(cells.values),
            "number_infinite": good & (np.abs(cells.values) > 1e30),
        }


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """A CSV file in which no text is a formula to a spreadsheet; numbers stay as they are."""
    safe = frame.rename(columns=_no_formula)
    for name in safe.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in safe.dtypes]]:
        safe[name] = safe[name].astype(object).map(_no_formula, na_action="ignore")
    # RFC 4180, and with it a text that holds one half of a line's end is quoted.
    safe.to_csv(path, index=False, lineterminator="\r\n")


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
