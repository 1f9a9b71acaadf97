"""What is known of a transaction and since when: against a reading event by event."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudwatch.labels import NEVER, SAYS, labels_of
from fraudwatch.verdicts import VERDICTS
from shared.frames import MICROSECONDS_PER_DAY as DAY

NONE = pd.DataFrame({"transaction_id": [], "verdict": [], "decided_at": []})


def a_table(**columns: list) -> pd.DataFrame:
    size = len(next(iter(columns.values())))
    return pd.DataFrame({"transaction_id": range(size), "occurred_at": [0] * size, **columns})


def verdicts_of(*said: tuple[int, str, int]) -> pd.DataFrame:
    return pd.DataFrame(said, columns=["transaction_id", "verdict", "decided_at"])


def known_at(labels, *moments: int) -> list[int]:
    return [int(labels.known(moment)[0]) for moment in moments]


def test_a_label_is_known_after_the_delay_and_a_null_never():
    rows = a_table(label=[1.0, 0.0, np.nan], label_time=pd.array([None] * 3, dtype="Int64"))

    labels = labels_of(rows, NONE, 7)

    assert labels.known(7 * DAY).tolist() == [-1, -1, -1]
    assert labels.known(7 * DAY + 1).tolist() == [1, 0, -1]
    assert labels.known(NEVER).tolist() == [1, 0, -1]


def test_a_fraud_is_known_from_its_label_time_but_a_zero_only_after_the_delay_as_well():
    told = pd.array([2 * DAY, 2 * DAY, 9 * DAY], dtype="Int64")

    labels = labels_of(a_table(label=[1.0, 0.0, 0.0], label_time=told), NONE, 7)

    assert labels.known(2 * DAY).tolist() == [-1, -1, -1]
    assert labels.known(2 * DAY + 1).tolist() == [1, -1, -1]
    assert labels.known(7 * DAY + 1).tolist() == [1, 0, -1]
    assert labels.known(9 * DAY + 1).tolist() == [1, 0, 0]


def test_a_verdict_beats_the_label_until_it_is_taken_back():
    said = verdicts_of((0, "reopened", 9), (0, "false_positive", 5), (0, "confirmed_fraud", 12))

    labels = labels_of(a_table(label=[1.0], label_time=pd.array([2], dtype="Int64")), said, 7)

    assert known_at(labels, 2, 3, 5, 6, 9, 10, 12, 13) == [-1, 1, 1, 0, 0, 1, 1, 1]
    assert labels.since[0].tolist() == [2, 5, 9]


def test_what_goes_on_being_known_is_one_interval():
    said = verdicts_of((0, "confirmed_fraud", 5), (0, "inconclusive", 20))

    labels = labels_of(a_table(label=[1.0], label_time=pd.array([9], dtype="Int64")), said, 7)

    assert labels.since.tolist() == [[5]]
    assert labels.until.tolist() == [[NEVER]]


def test_without_a_mapped_label_verdicts_alone_are_known():
    rows = pd.DataFrame({"transaction_id": ["a", "b"], "occurred_at": [0, 0]})
    said = pd.DataFrame(
        {"transaction_id": ["b", "z"], "verdict": ["confirmed_fraud"] * 2, "decided_at": [4, 4]}
    )

    labels = labels_of(rows, said, 7)

    assert labels.known(5).tolist() == [-1, 1]


def test_no_rows_know_nothing():
    labels = labels_of(a_table(label=[]), NONE, 7)

    assert labels.known(NEVER).shape == (0,)


def test_every_verdict_says_something():
    assert set(SAYS) == set(VERDICTS)


MOMENTS = st.integers(0, 12)
VERDICT = st.tuples(st.integers(0, 2), st.sampled_from(VERDICTS), MOMENTS)


def read_event_by_event(row, said: pd.DataFrame, delay: int, moment: int) -> int:
    """What is known of one row before a moment, told one thing after the other."""
    mine = said[(said.transaction_id == row.transaction_id) & (said.decided_at < moment)]
    order = list(SAYS)
    last = max(((at, order.index(v)) for at, v in zip(mine.decided_at, mine.verdict, strict=True)),
               default=None)  # fmt: skip
    if last is not None and SAYS[order[last[1]]] >= 0:
        return SAYS[order[last[1]]]
    if np.isnan(row.label):
        return -1
    ripe = row.occurred_at + delay * DAY
    if row.label > 0:
        since = ripe if pd.isna(row.label_time) else row.label_time
    else:
        since = ripe if pd.isna(row.label_time) else max(ripe, row.label_time)
    return int(row.label > 0) if since < moment else -1


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=3, max_size=3),
    told=st.lists(st.one_of(st.none(), MOMENTS), min_size=3, max_size=3),
    said=st.lists(VERDICT, max_size=8),
    delay=st.integers(0, 1),
    generator=st.randoms(use_true_random=False),
)
def test_what_is_known_is_what_reading_event_by_event_says(labels, told, said, delay, generator):
    rows = a_table(label=labels, label_time=pd.array(told, dtype="Int64"))
    shuffled = generator.sample(said, len(said))
    ever = [*range(14), DAY, DAY + 1, NEVER]

    known = labels_of(rows, verdicts_of(*shuffled), delay)

    for moment in ever:
        expected = [
            read_event_by_event(row, verdicts_of(*said), delay, moment) for row in rows.itertuples()
        ]
        assert known.known(moment).tolist() == expected


def test_the_intervals_of_a_row_are_apart_and_in_order():
    generator = np.random.default_rng(5)
    said = pd.DataFrame(
        {
            "transaction_id": generator.integers(20, size=200),
            "verdict": generator.choice(VERDICTS, 200),
            "decided_at": generator.integers(99, size=200),
        }
    )
    rows = a_table(label=generator.choice([0, 1, np.nan], 20).tolist())

    labels = labels_of(rows, said, 0)

    used = labels.since < NEVER
    assert (labels.since < labels.until)[used].all()
    assert (labels.until[:, :-1] <= labels.since[:, 1:])[used[:, 1:]].all()
    assert (used[:, :-1] >= used[:, 1:]).all()


def test_a_label_of_a_nullable_column_is_read_as_it_stands():
    rows = a_table(label=pd.array([1, None], dtype="Float64"))

    assert labels_of(rows, NONE, 0).known(1).tolist() == [1, -1]


@pytest.mark.parametrize("verdict", ["inconclusive", "in_review", "reopened"])
def test_a_verdict_that_decides_nothing_says_nothing(verdict):
    labels = labels_of(a_table(label=[np.nan]), verdicts_of((0, verdict, 1)), 7)

    assert known_at(labels, 2) == [-1]
