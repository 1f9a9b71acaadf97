"""A customer's segment as it stood before a transaction's day."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fraudwatch.segments import segments_before
from shared import frames
from shared.windows import DAY, HOUR


def periods(*rows: tuple[object, int, int, int | None]) -> pd.DataFrame:
    names = ["customer_id", "segment_id", "valid_from", "valid_to"]
    return pd.DataFrame(rows, columns=names).astype({"valid_to": "Int64"})


def payments(*rows: tuple[object, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["customer_id", "occurred_at"])


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (10 * DAY, ""),  # recorded at that very moment: not before the day
        (10 * DAY + HOUR, ""),  # a run of the same day
        (11 * DAY, "3"),
        (20 * DAY + 23 * HOUR, "3"),  # the change came during this day
        (21 * DAY, "5"),
        (31 * DAY, ""),  # ended, and nothing new
    ],
)
def test_a_segment_counts_from_the_day_after_it_was_recorded(moment, expected):
    known = periods(
        (1, 3, 10 * DAY, 20 * DAY + HOUR), (1, 5, 20 * DAY + HOUR, 30 * DAY), (2, 9, 0, None)
    )

    assert segments_before(payments((1, moment)), known, "UTC").tolist() == [expected]


def test_unknown_customers_have_no_segment():
    known = periods(("a", 3, 0, None))

    found = segments_before(payments(("b", 9 * DAY), (None, 9 * DAY), ("a", 9 * DAY)), known, "UTC")

    assert found.tolist() == ["", "", "3"]


def test_without_periods_nobody_has_a_segment():
    assert segments_before(payments((1, DAY)), periods(), "UTC").tolist() == [""]


def test_days_are_those_of_the_zone():
    """It is Monday in Auckland while it is still Sunday in Greenwich."""
    known = periods((1, 3, 10 * DAY + 13 * HOUR, None))
    row = payments((1, 10 * DAY + 14 * HOUR))

    found = {zone: segments_before(row, known, zone)[0] for zone in ("UTC", "Pacific/Auckland")}

    assert found["UTC"] == ""
    assert found["Pacific/Auckland"] == ""
    later = payments((1, 11 * DAY + 12 * HOUR))
    assert segments_before(later, known, "UTC").tolist() == ["3"]
    assert segments_before(later, known, "Pacific/Auckland").tolist() == ["3"]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_looking_through_all_periods_finds(seed):
    generator = np.random.default_rng(seed)
    ends = np.sort(generator.integers(0, 40 * DAY, (8, 4)), axis=1)
    known = periods(
        *((who, 10 * who + at, int(ends[who, at]), int(ends[who, at + 1]))
          for who in range(8) for at in range(3))
    ).sample(frac=1, random_state=seed)  # fmt: skip
    rows = payments(
        *zip(generator.integers(0, 10, 200).tolist(), generator.integers(0, 50 * DAY, 200).tolist(),
             strict=True)
    )  # fmt: skip

    found = segments_before(rows, known, "Europe/Berlin")

    for answer, row in zip(found, rows.itertuples(), strict=True):
        day = frames.local_days(np.array([row.occurred_at]), "Europe/Berlin")[0]
        dawn = frames.day_start(day, "Europe/Berlin")
        own = known[
            (known.customer_id == row.customer_id)
            & (known.valid_from < dawn)
            & (known.valid_to >= dawn)
        ]
        assert answer == (
            "" if own.empty else str(own.sort_values("valid_from").segment_id.iloc[-1])
        )
