"""Windows against a brute-force oracle that looks at every pair of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.windows import DAY, HOUR, UNKNOWN, Ledger

YEAR = 365 * DAY


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys, times and values with many ties of time, unknown keys and far gaps, in any order."""
    size = draw(st.integers(1, 40))
    unit = draw(st.sampled_from([1, HOUR, DAY, YEAR]))
    keys = draw(st.lists(st.sampled_from([-1, 0, 1, 70_000, 2**40]), min_size=size, max_size=size))
    times = draw(st.lists(st.integers(-12, 12), min_size=size, max_size=size))
    values = draw(st.lists(st.integers(-(10**15), 10**15), min_size=size, max_size=size))
    return np.array(keys), np.array(times, dtype=np.int64) * unit, np.array(values, dtype=np.int64)


def in_window(
    keys: np.ndarray, times: np.ndarray, row: int, width: int, delay: int
) -> list[tuple[int, int]]:
    """(time, row) of the rows in [t − delay − width, t − delay) of one row's known key."""
    end = int(times[row]) - delay
    return sorted(
        (int(times[other]), other)
        for other in range(len(keys))
        if keys[row] >= 0 and keys[other] == keys[row] and end - width <= times[other] < end
    )


widths = st.sampled_from([1, 3, HOUR, DAY, 5 * DAY, 30 * DAY, 3 * YEAR, 40 * YEAR])
delays = st.sampled_from([0, 0, 1, HOUR, 2 * DAY, YEAR])


@settings(deadline=None)
@given(some_rows(), widths, delays)
def test_counts_sums_and_gaps_equal_a_search_of_every_pair(rows, width, delay):
    keys, times, values = rows

    window = Ledger(keys, times).window(width, delay)
    counts, totals, gaps = window.count(), window.total(values), window.since_last()

    for row in range(len(keys)):
        past = in_window(keys, times, row, width, delay)
        assert counts[row] == len(past)
        assert totals[row] == sum(int(values[other]) for _, other in past)
        if past:
            assert gaps[row] == int(times[row]) - past[-1][0]
        else:
            assert np.isnan(gaps[row])


@settings(deadline=None)
@given(some_rows(), widths, delays, st.integers(1, 6))
def test_recent_values_are_the_last_by_time_and_value(rows, width, delay, n):
    keys, times, values = rows

    recent = Ledger(keys, times).window(width, delay).recent(values, n)

    for row in range(len(keys)):
        past = in_window(keys, times, row, width, delay)
        last = [float(v) for _, v in sorted((t, int(values[o])) for t, o in past)][-n:]
        np.testing.assert_array_equal(recent[row], [np.nan] * (n - len(last)) + last)


@settings(deadline=None)
@given(some_rows(), widths, st.integers(1, 9))
def test_quantiles_equal_numpy_on_the_recent_values(rows, width, n):
    keys, times, values = rows
    probabilities = (0.0, 0.5, 0.75, 0.95, 1.0)
    window = Ledger(keys, times).window(width)

    quantiles = window.quantiles(values, n, probabilities)

    for sample, found in zip(window.recent(values, n), quantiles, strict=True):
        known = sample[~np.isnan(sample)]
        expected = np.quantile(known, probabilities) if len(known) else [np.nan] * 5
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@settings(deadline=None)
@given(some_rows(), widths, delays, st.randoms(use_true_random=False))
def test_answers_do_not_depend_on_the_order_of_the_rows(rows, width, delay, random):
    keys, times, values = rows
    shuffled = np.array(random.sample(range(len(keys)), len(keys)))

    plain = Ledger(keys, times).window(width, delay)
    mixed = Ledger(keys[shuffled], times[shuffled]).window(width, delay)

    np.testing.assert_array_equal(plain.total(values)[shuffled], mixed.total(values[shuffled]))
    np.testing.assert_array_equal(
        plain.recent(values, 3)[shuffled], mixed.recent(values[shuffled], 3)
    )


@settings(deadline=None)
@given(some_rows(), widths, delays)
def test_targets_get_the_answers_of_all_rows_in_their_own_order(rows, width, delay):
    keys, times, values = rows
    targets = np.arange(len(keys))[::-2]

    everything = Ledger(keys, times).window(width, delay)
    ledger = Ledger(keys, times, targets)
    asked = ledger.window(width, delay)
    backwards = ledger.asked_at(targets[::-1]).window(width, delay)

    np.testing.assert_array_equal(asked.total(values), everything.total(values)[targets])
    np.testing.assert_array_equal(backwards.total(values)[::-1], asked.total(values))
    np.testing.assert_array_equal(asked.since_last(), everything.since_last()[targets])
    np.testing.assert_array_equal(asked.recent(values, 2), everything.recent(values, 2)[targets])


@settings(deadline=None)
@given(some_rows(), widths, delays)
def test_later_rows_and_rows_before_the_window_change_nothing(rows, width, delay):
    keys, times, values = rows
    row = len(keys) // 2
    visible = (times <= times[row]) & (times >= times[row] - delay - width)
    target = np.array([int(visible[:row].sum())])

    whole = Ledger(keys, times).window(width, delay)
    cut = Ledger(keys[visible], times[visible], target).window(width, delay)

    assert cut.total(values[visible])[0] == whole.total(values)[row]
    np.testing.assert_array_equal(cut.since_last()[0], whole.since_last()[row])
    np.testing.assert_array_equal(cut.recent(values[visible], 3)[0], whole.recent(values, 3)[row])


def test_sums_stay_exact_where_the_running_sum_wraps():
    huge = 2**62
    values = np.array([huge, huge, huge, huge, 7, 5], dtype=np.int64)
    times = np.array([0, 1, 2, 3, 10, 11], dtype=np.int64)

    totals = Ledger(np.zeros(6, dtype=np.int64), times).window(2).total(values)

    assert totals.tolist()[4:] == [0, 7]
    assert totals.tolist()[1] == huge


def test_many_customers_over_many_years_do_not_overflow():
    """A million customers × decades of microseconds has no room in 64 bits as one number."""
    customers = np.arange(1_000_000).repeat(2)
    first = np.random.default_rng(1).integers(-20 * YEAR, 20 * YEAR, 1_000_000)
    gap = np.random.default_rng(2).integers(1, 40 * YEAR, 1_000_000)
    times = np.stack([first, first + gap], axis=1).ravel()

    year = Ledger(customers, times).window(YEAR).count()
    life = Ledger(customers, times).window(100 * YEAR).count()

    assert year[::2].sum() == 0
    np.testing.assert_array_equal(year[1::2], gap <= YEAR)
    np.testing.assert_array_equal(life[1::2], 1)


def test_windows_longer_than_a_chunk_of_rows_are_found():
    times = np.arange(70_000, dtype=np.int64)
    keys = np.zeros(70_000, dtype=np.int64)

    counts = Ledger(keys, times).window(40_000).count()

    np.testing.assert_array_equal(counts, np.minimum(times, 40_000))


def test_rows_of_one_moment_do_not_see_each_other():
    keys = np.array([0, 0, 0, 0])
    times = np.array([5, 5, 5, 6], dtype=np.int64)

    window = Ledger(keys, times).window(DAY)

    assert window.count().tolist() == [0, 0, 0, 3]


def test_a_window_includes_its_start_and_excludes_its_end():
    times = np.array([0, 10, 20], dtype=np.int64)
    ledger = Ledger(np.zeros(3, dtype=np.int64), times)

    assert ledger.window(10).count().tolist() == [0, 1, 1]
    assert ledger.window(9).count().tolist() == [0, 0, 0]
    assert ledger.window(10, delay=10).count().tolist() == [0, 0, 1]


def test_an_unknown_key_has_no_past():
    ledger = Ledger(np.full(3, UNKNOWN), np.arange(3, dtype=np.int64))

    assert ledger.window(DAY).count().tolist() == [0, 0, 0]


def test_no_rows_give_no_answers():
    none = np.array([], dtype=np.int64)

    window = Ledger(none, none).window(DAY)

    assert window.count().shape == (0,)
    assert window.quantiles(none, 4, (0.5,)).shape == (0, 1)


def test_sums_of_floats_are_refused():
    window = Ledger(np.array([0]), np.array([0])).window(DAY)

    with pytest.raises(TypeError, match="integers only, found float64"):
        window.total(np.array([0.5]))


def test_a_row_asked_about_twice_is_refused():
    with pytest.raises(ValueError, match="3 targets name 2 rows"):
        Ledger(np.array([0, 0]), np.array([0, 1]), np.array([0, 1, 1]))
