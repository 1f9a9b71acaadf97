"""Moments, days and the rules of the gate, against Python's own calendar."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import frames
from shared.frames import NULL, OK, WRONG, Cells

ZONES = ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Apia"]
moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@given(moments)
def test_a_moment_and_its_microseconds_are_the_same(moment):
    assert frames.moment(frames.micros(moment)) == moment


@given(st.lists(moments, min_size=1, max_size=20), st.sampled_from(ZONES))
def test_local_days_are_those_of_the_wall_calendar(found, zone):
    days = frames.local_days(np.array([frames.micros(moment) for moment in found]), zone)

    assert days.dtype == "datetime64[D]"
    assert days.tolist() == [moment.astimezone(ZoneInfo(zone)).date() for moment in found]


@given(moments, st.sampled_from(ZONES))
def test_a_day_starts_with_its_first_microsecond(moment, zone):
    day = frames.local_days(np.array([frames.micros(moment)]), zone)[0]

    start = frames.day_start(day, zone)

    around = frames.local_days(np.array([start - 1, start]), zone)
    assert start <= frames.micros(moment)
    assert around[1] == day
    assert around[0] < day


def test_a_day_whose_midnight_is_left_out_starts_later():
    """In São Paulo summer time began at midnight."""
    start = frames.day_start(np.datetime64("2018-11-04"), "America/Sao_Paulo")

    assert frames.moment(start) == datetime(2018, 11, 4, 3, tzinfo=UTC)


def test_no_moments_have_no_days():
    assert frames.local_days(np.array([], dtype="int64"), "Europe/Berlin").tolist() == []


@given(st.text(max_size=60))
def test_a_masked_value_shows_its_shape_alone(text):
    shown = frames.masked(text)

    assert len(shown) <= 24
    assert shown.isprintable()
    assert not any(sign.isdigit() and sign != "9" for sign in shown)
    assert not any(sign.isalpha() and sign != "a" for sign in shown)


def cells(values, state=None, text=None) -> Cells:
    values = np.asarray(values)
    state = np.zeros(len(values), "int8") if state is None else np.asarray(state, "int8")
    return Cells("column", values, state, text)


def refusing(codes: dict[str, np.ndarray]) -> list[set[str]]:
    """The codes of each row."""
    rows = len(next(iter(codes.values())))
    return [{code for code, mask in codes.items() if mask[row]} for row in range(rows)]


CLOCK = frames.micros(datetime(2026, 3, 20, tzinfo=UTC))
TOMORROW = CLOCK + frames.MICROSECONDS_PER_DAY


def test_times_are_refused_outside_1900_to_a_day_ahead():
    found = frames.time_codes(
        cells(
            [frames.EARLIEST, frames.EARLIEST - 1, TOMORROW, TOMORROW + 1, 0, 0],
            [OK, OK, OK, OK, NULL, WRONG],
        ),
        CLOCK,
    )

    expected = [set(), {"time_out_of_range"}, set(), {"time_in_future"}, {"time_null"}]
    assert refusing(found) == [*expected, {"time_unparsable"}]
    assert frames.moment(frames.EARLIEST) == datetime(1900, 1, 1, tzinfo=UTC)


def test_amounts_are_refused_from_a_trillion_on():
    inf, limit = np.inf, frames.LARGEST_AMOUNT
    found = frames.amount_codes(
        cells(
            [0.0, -0.0, np.nextafter(limit, 0), limit, -limit, inf, -inf, np.nan, np.nan, 0.0],
            [OK, OK, OK, OK, OK, OK, OK, OK, NULL, WRONG],
        )
    )

    over, far = {"amount_overflow"}, {"amount_infinite"}
    last = [{"amount_nan"}, {"amount_null"}, {"amount_text"}]
    assert refusing(found) == [set(), set(), set(), over, over, far, far, *last]


def test_a_missing_number_is_no_fault():
    found = frames.number_codes(
        cells([1e30, 2e30, -np.inf, np.nan, np.nan, 0.0], [OK, OK, OK, OK, NULL, WRONG])
    )

    far = {"number_infinite"}
    assert refusing(found) == [set(), far, far, {"number_nan"}, set(), {"number_text"}]


KEYS = ("id", "customer", "counterparty", "entity")


@pytest.mark.parametrize("name", KEYS)
def test_only_an_id_must_be_there(name):
    found = frames.key_codes(name, cells([1, 0, 0], [OK, NULL, WRONG]))

    null = {"id_null"} if name == "id" else set()
    assert refusing(found) == [set(), null, {f"{name}_wrong_type"}]


def test_every_code_of_the_rules_is_explained():
    one = cells([1.0], [OK])
    rules = [frames.key_codes(name, one) for name in KEYS]
    rules += [frames.time_codes(one, CLOCK), frames.amount_codes(one), frames.number_codes(one)]

    known = {code for rule in rules for code in rule} | {"id_duplicate"}

    assert known == set(frames.CODES)


def test_refusals_are_one_row_for_each_key_code_and_day():
    keys = pd.Series([1, 1, 1, None, None, None, 2], dtype="object")
    first, second = date(2026, 3, 1), date(2026, 3, 2)
    days = np.array([first, first, second, first, second, None, None], dtype="object")
    where = np.ones(7, bool)

    found = frames.refuse(keys, days, where, "some_code", "column", [f"v{i}" for i in range(7)])

    rows = {
        (r.row_key, None if pd.isna(r.day) else r.day): r.source_rows for r in found.itertuples()
    }
    assert rows == {
        ("1", first): 2, ("1", second): 1, ("(null)", first): 1, ("(null)", second): 1,
        ("(null)", None): 1, ("2", None): 1,
    }  # fmt: skip
    assert found.columns.tolist() == frames.REFUSED
    assert set(found.masked_value) == {"v0", "v2", "v3", "v4", "v5", "v6"}


def test_only_the_rows_of_the_mask_are_refused():
    keys = pd.Series(["a", "b", "c"], dtype="object")
    days = np.array([date(2026, 3, 1) + timedelta(i) for i in range(3)], dtype="object")

    found = frames.refuse(keys, days, np.array([False, True, False]), "code", "column", ["shown"])

    assert found.row_key.tolist() == ["b"]
    assert found.day.tolist() == [date(2026, 3, 2)]


def test_refusals_of_several_checks_are_gathered():
    keys, days = pd.Series(["a"], dtype="object"), np.array([date(2026, 3, 1)], dtype="object")
    one = frames.refuse(keys, days, np.array([True]), "code", "column", ["x"])

    assert len(frames.gather([frames.no_refusals(), one, one])) == 2
    assert frames.gather([]).columns.tolist() == frames.REFUSED
    assert frames.gather([frames.no_refusals()]).empty


def test_what_is_shown_comes_from_the_text_where_there_is_one():
    at = np.array([1])

    assert cells([0, 0], text=np.array(["", "Bob 7"], dtype=object)).shown(at) == ["aaa 9"]
    assert cells([1.5, -20.25]).shown(at) == ["-99.99"]


@pytest.mark.parametrize("sign", [*"=+-@\t\r\n", "＝", "＠"])
def test_no_text_of_a_csv_file_is_a_formula_and_numbers_stay(tmp_path, sign):
    text = f'{sign}HYPERLINK("http://x";"a")'
    frame = pd.DataFrame(
        {f"{sign}name": [text, f"a\r{text}", None], "amount": [-1.5, 2.0, np.nan], "n": [-7, 0, 1]}
    )

    frames.write_csv(frame, tmp_path / "x.csv")

    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == [f"'{sign}name", "amount", "n"]
    assert rows[1:] == [["'" + text, "-1.5", "-7"], [f"a\r{text}", "2.0", "0"], ["", "", "1"]]
    assert not any(cell.startswith(tuple("=+@\t\r\n")) for row in rows for cell in row)
