"""Which row of a customers' table was valid when, against a plain loop over the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from shared import history
from shared.frames import NULL, OK, WRONG, Cells
from shared.history import EVER, FOREVER

ROWS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.one_of(st.none(), st.integers(0, 10)),
        st.one_of(st.none(), st.integers(0, 10)),
    ),
    max_size=12,
)


def cells(values: list[int | None], wrong: set[int] = frozenset()) -> Cells:
    state = [WRONG if i in wrong else NULL if v is None else OK for i, v in enumerate(values)]
    numbers = np.array([0 if v is None else v for v in values], dtype=np.int64)
    return Cells("c", numbers, np.array(state, dtype="int8"))


def dated(rows: list[tuple[int, int | None, int | None]]) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "customer_id": pd.array([row[0] for row in rows], dtype="Int64"),
            "number.limit": np.arange(len(rows), dtype=float),
        }
    )
    return history.periods(frame, cells([r[1] for r in rows]), cells([r[2] for r in rows]))


@given(ROWS, st.integers(-1, 11))
def test_a_moment_has_at_most_one_row_per_customer_the_one_that_began_last(rows, moment):
    found = history.valid_at(dated(rows), moment).set_index("customer_id")["number.limit"]

    expected = {}
    for at, (customer, begin, end) in enumerate(rows):
        low = EVER if begin is None else begin
        high = FOREVER if end is None else end
        if low <= moment < high:
            expected.setdefault(customer, []).append((low, high, at))
    assert found.to_dict() == {who: float(max(held)[2]) for who, held in expected.items()}


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_never_matters(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    values = {row: float(i) for i, row in enumerate(sorted(set(rows), key=str))}
    both = []
    for order in (rows, shuffled):
        frame = dated(order)
        both.append(frame.assign(**{"number.limit": [values[row] for row in _keys(frame)]}))

    pd.testing.assert_frame_equal(*both)
    for moment in range(-1, 11):
        pd.testing.assert_frame_equal(*(history.valid_at(frame, moment) for frame in both))
    assert history.remarks(both[0]) == history.remarks(both[1])


def _keys(frame: pd.DataFrame) -> list[tuple[int, int | None, int | None]]:
    return [
        (int(c), None if b == EVER else int(b), None if e == FOREVER else int(e))
        for c, b, e in zip(frame.customer_id, frame.valid_from, frame.valid_to, strict=True)
    ]


def test_a_period_that_cannot_be_read_never_holds_and_a_row_of_nobody_is_left_out():
    frame = pd.DataFrame({"customer_id": pd.array([1, 2, 3, None], dtype="Int64")})

    found = history.periods(
        frame, cells([1, 1, None, 1], wrong={1}), cells([None, None, 5, None], wrong={2})
    )

    assert found.customer_id.tolist() == [1, 2, 3]
    assert history.remarks(found)["empty"] == 2
    for moment in (EVER, 0, 3, FOREVER - 1):
        assert 2 not in set(history.valid_at(found, moment).customer_id)
        assert 3 not in set(history.valid_at(found, moment).customer_id)


def test_a_table_without_a_period_holds_at_any_moment():
    frame = pd.DataFrame({"customer_id": [1, 2]})

    assert history.valid_at(frame, 0) is frame


def test_overlaps_gaps_and_empty_periods_are_counted():
    rows = [(1, 0, 5), (1, 5, 9), (2, 0, 5), (2, 4, None), (3, 0, 2), (3, 4, 4), (3, 6, None)]

    assert history.remarks(dated(rows)) == {"empty": 1, "overlapping": 1, "gaps": 1}


def test_an_early_row_that_reaches_far_overlaps_all_that_follow():
    rows = [(1, 0, 9), (1, 1, 2), (1, 3, 4), (2, 9, None)]

    assert history.remarks(dated(rows)) == {"empty": 0, "overlapping": 2, "gaps": 0}
