"""Periods, features and history in the result tables, on both databases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmenter import decisions, store
from shared.frames import micros, moment
from shared.runs import Results
from shared.verifying import _questions
from tests.builders import make_results

START = datetime(2026, 1, 1, tzinfo=UTC)
STATES = [("assigned", 1), ("assigned", 2), ("outlier", None), ("inactive", None)]
LAWS = (
    "every customer has exactly one current segment row",
    "a customer's periods have no gap and no overlap",
    "a segment is given exactly where the state is assigned",
)


@dataclass(frozen=True)
class Stand:
    """What the store needs of a run."""

    results: Results
    run_id: str = "run"

    @property
    def tables(self):
        return self.results.tables


@pytest.fixture
def stand(database: str) -> Stand:
    return Stand(make_results(database))


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def decided(assignments: dict[int, tuple[str, int | None]], probability: float = 0.9):
    """The frame of a scoring: customer to (state, segment)."""
    given_one = [kind[1] is not None for kind in assignments.values()]
    return pd.DataFrame(
        {
            "customer_id": pd.array(list(assignments), dtype="Int64"),
            "state": [kind[0] for kind in assignments.values()],
            "segment_id": pd.array([kind[1] for kind in assignments.values()], dtype="Int64"),
            "probability": [probability if has else None for has in given_one],
            "log_likelihood": -1.0,
        }
    )


def write(connection, stand: Stand, assignments, number: int, probability: float = 0.9) -> int:
    frame = decided(assignments, probability)
    return store.write_periods(connection, stand, frame, day(number), f"model {number}")


def periods(connection, stand: Stand) -> pd.DataFrame:
    table = stand.tables.customer_segments
    rows = connection.execute(sa.select(table).order_by(table.c.customer_id, table.c.valid_from))
    return pd.DataFrame(rows.mappings().all())


def plain(rows: pd.DataFrame) -> list[dict]:
    """Rows as plain values, missing ones None."""
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def broken(connection, stand: Stand) -> dict[str, int]:
    """The laws of periods, as `peerwatch verify` asks them."""
    asked = {text: query for text, query in _questions(stand.tables) if text in LAWS}
    assert len(asked) == len(LAWS)
    return {text: connection.execute(query).scalar_one() for text, query in asked.items()}


def expected_periods(history: list[dict]) -> list[tuple]:
    """The periods of a history by going through it one customer and moment at a time."""
    found = []
    for customer in sorted({c for assignments in history for c in assignments}):
        last = None
        for number, assignments in enumerate(history):
            if customer not in assignments and last is None:
                continue
            kind = assignments.get(customer, ("inactive", None))
            if kind != last:
                found.append((customer, *kind, day(number)))
            last = kind
    return found


moments = st.lists(
    st.dictionaries(st.integers(1, 4), st.sampled_from(STATES), min_size=0), min_size=1, max_size=6
)


@given(history=moments)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_period_opens_only_on_change_and_periods_meet(stand: Stand, history: list[dict]) -> None:
    engine = stand.results.engine
    with engine.connect() as connection, connection.begin() as everything:
        for number, assignments in enumerate(history):
            write(connection, stand, assignments, number)
        rows = periods(connection, stand)
        faults = broken(connection, stand)
        everything.rollback()

    found = [
        (r.customer_id, r.state, None if pd.isna(r.segment_id) else int(r.segment_id), r.valid_from)
        for r in rows.itertuples()
    ]
    assert found == expected_periods(history)
    assert not any(faults.values()), faults


@given(
    before=st.dictionaries(st.integers(1, 3), st.sampled_from(STATES), min_size=1),
    first=st.dictionaries(st.integers(1, 3), st.sampled_from(STATES), min_size=1),
    again=st.dictionaries(st.integers(1, 3), st.sampled_from(STATES), min_size=1),
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_moment_scored_again_has_the_last_answer_alone(
    stand: Stand, before: dict, first: dict, again: dict
) -> None:
    again = {**dict.fromkeys({*before, *first}, ("inactive", None)), **again}
    with stand.results.engine.connect() as connection, connection.begin() as everything:
        write(connection, stand, before, 0)
        write(connection, stand, first, 1)
        write(connection, stand, again, 1)
        rows = periods(connection, stand)
        faults = broken(connection, stand)
        everything.rollback()

    found = [
        (r.customer_id, r.state, None if pd.isna(r.segment_id) else int(r.segment_id), r.valid_from)
        for r in rows.itertuples()
    ]
    assert found == expected_periods([before, again])
    assert not any(faults.values()), faults


def test_the_same_moment_again_only_renews(stand: Stand) -> None:
    with stand.results.transaction() as connection:
        write(connection, stand, {1: ("assigned", 1), 2: ("outlier", None)}, 0)
        write(connection, stand, {1: ("assigned", 2), 2: ("outlier", None)}, 1)
        before = periods(connection, stand)

        opened = write(
            connection, stand, {1: ("assigned", 2), 2: ("outlier", None)}, 1, probability=0.5
        )

        after = periods(connection, stand)
    assert opened == 0
    renewed = ["probability", "log_likelihood", "last_scored_at"]
    assert plain(before.drop(columns=renewed)) == plain(after.drop(columns=renewed))
    assert after.probability[after.valid_to.isna()].dropna().tolist() == [0.5]


def test_an_open_period_is_renewed_and_keeps_who_opened_it(stand: Stand) -> None:
    with stand.results.transaction() as connection:
        write(connection, stand, {1: ("assigned", 1)}, 0, probability=0.9)
        write(connection, stand, {1: ("assigned", 1)}, 7, probability=0.6)
        (row,) = periods(connection, stand).to_dict("records")

    assert (row["valid_from"], row["last_scored_at"]) == (day(0), day(7))
    assert (row["probability"], row["model_version_id"]) == (0.6, "model 0")


def test_newest_as_of_is_known_where_nothing_opened(stand: Stand) -> None:
    with stand.results.transaction() as connection:
        assert store.newest_as_of(connection, stand.tables) is None
        write(connection, stand, {1: ("assigned", 1)}, 0)
        write(connection, stand, {1: ("assigned", 1)}, 7)

        assert store.newest_as_of(connection, stand.tables) == day(7)


# --- features -----------------------------------------------------------------------------------


def wide(connection, stand: Stand) -> pd.DataFrame:
    table = store.feature_table(connection, stand.tables)
    rows = connection.execute(sa.select(table).order_by(table.c.customer_id))
    return pd.DataFrame(rows.mappings().all())


def a_feature_frame(customers: list[int], **columns: object) -> pd.DataFrame:
    quintiles = pd.array([5] * len(customers), dtype="Int64")
    return pd.DataFrame(
        {
            "customer_id": customers, **columns, "rfm_recency": quintiles,
            "rfm_frequency": quintiles, "rfm_monetary": quintiles,
        }
    )  # fmt: skip


def test_features_have_a_column_each_and_one_row_per_customer(stand: Stand) -> None:
    frame = a_feature_frame([1, 2], net_amount=[1.5, None], customer_region=["north", None])

    with stand.results.transaction() as connection:
        store.write_features(connection, stand, frame, day(0))
        rows = wide(connection, stand)

    assert rows.customer_id.tolist() == [1, 2]
    assert rows.net_amount[0] == 1.5 and pd.isna(rows.net_amount[1])
    assert rows.customer_region[0] == "north" and pd.isna(rows.customer_region[1])
    assert rows.rfm_monetary.tolist() == [5, 5]
    assert set(rows.as_of) == {day(0)}


def test_new_features_get_columns_and_old_ones_become_null(stand: Stand) -> None:
    with stand.results.transaction() as connection:
        store.write_features(connection, stand, a_feature_frame([1, 2], old=[1.0, 2.0]), day(0))
    with stand.results.transaction() as connection:
        store.write_features(connection, stand, a_feature_frame([2, 3], new=[5.0, 6.0]), day(1))
        rows = wide(connection, stand)

    assert rows.customer_id.tolist() == [2, 3], "customers who are no longer there are removed"
    assert rows.new.tolist() == [5.0, 6.0]
    assert rows.old.isna().all()


def test_a_column_that_was_added_in_a_failed_transaction_is_not_there(stand: Stand) -> None:
    with pytest.raises(KeyError), stand.results.transaction() as connection:
        store.write_features(connection, stand, a_feature_frame([1], lost=[1.0]), day(0))
        raise KeyError

    with stand.results.transaction() as connection:
        assert "lost" not in store.feature_table(connection, stand.tables).c
        assert len(wide(connection, stand)) == 0


# --- history ------------------------------------------------------------------------------------


def assigned_as_of(number: int, assignments: dict) -> pd.DataFrame:
    return decided(assignments).assign(as_of=micros(day(number)))


@given(history=moments.filter(all), first=st.sampled_from(STATES))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rebuilt_history_meets_the_first_period_and_obeys_the_laws(
    stand: Stand, history: list[dict], first: tuple
) -> None:
    now = dict.fromkeys([1, 2], first)
    kept = [{c: kind for c, kind in found.items() if c in now} for found in history]
    assigned = pd.concat(
        [assigned_as_of(number, found) for number, found in enumerate(history)], ignore_index=True
    )
    with stand.results.engine.connect() as connection, connection.begin() as everything:
        write(connection, stand, now, 50)
        known = store.first_periods(connection, stand.tables)
        rebuilt = decisions.history(assigned, known)
        store.write_history(connection, stand, rebuilt, "model")
        rows = periods(connection, stand)
        faults = broken(connection, stand)
        again = decisions.history(assigned, store.first_periods(connection, stand.tables))
        everything.rollback()

    assert set(rows.customer_id) == {1, 2}, "customers without a period get none"
    assert not any(faults.values()), faults
    for customer in now:
        own = rows[rows.customer_id == customer]
        kinds = list(zip(own.state, own.segment_id.fillna(0).astype(int), strict=True))
        assert all(a != b for a, b in pairwise(kinds)), "opens only on change"
        seen = [n for n, found in enumerate(kept) if customer in found]
        start = day(seen[0]) if seen else day(50)
        assert own.valid_from.min() == start
        assert not (again.customer_id == customer).any(), "nothing is left to rebuild"


def test_history_ends_where_the_first_period_begins(stand: Stand) -> None:
    with stand.results.transaction() as connection:
        write(connection, stand, {1: ("assigned", 1)}, 90)
        published = periods(connection, stand)
        parts = [
            assigned_as_of(0, {1: ("assigned", 2)}),
            assigned_as_of(30, {1: ("outlier", None)}),
            assigned_as_of(120, {1: ("assigned", 3)}),
        ]
        history = decisions.history(
            pd.concat(parts, ignore_index=True), store.first_periods(connection, stand.tables)
        )
        store.write_history(connection, stand, history, "model")
        rows = periods(connection, stand)

    assert [moment(v) for v in history.valid_to] == [day(30), day(90)]
    assert rows.state.tolist() == ["assigned", "outlier", "assigned"]
    assert rows.valid_from.tolist() == [day(0), day(30), day(90)]
    assert plain(rows.iloc[2:]) == plain(published), "what was published stays as it was"


# --- segments -----------------------------------------------------------------------------------


def test_an_id_is_never_given_twice_even_where_its_model_never_led(stand: Stand) -> None:
    frame = pd.DataFrame(
        {"segment_id": [1, 7], "model_version_id": "candidate", "name": ["A", "B"],
         "named_by": "model", "description": "", "customer_count": 1, "share": 0.5}
    )  # fmt: skip
    profiles = pd.DataFrame({"segment_id": [1], "model_version_id": "candidate",
                             "feature": "net_amount", "unit": "currency"})  # fmt: skip
    with stand.results.transaction() as connection:
        assert store.next_segment_id(connection, stand.tables) == 1
        store.write_segments(connection, stand, frame, profiles)

        assert store.next_segment_id(connection, stand.tables) == 8


def test_a_name_of_the_configuration_replaces_ours(stand: Stand) -> None:
    frame = pd.DataFrame(
        {"segment_id": [1, 2], "model_version_id": "m", "name": ["A", "B"],
         "named_by": "model", "description": "", "customer_count": 1, "share": 0.5}
    )  # fmt: skip
    with stand.results.transaction() as connection:
        store.write_segments(connection, stand, frame, pd.DataFrame())
        store.rename(connection, stand.tables, "m", {2: "Weekend families", 9: "nobody"})
        rows = store.segments(connection, stand.tables, "m")

    assert rows.name.tolist() == ["A", "Weekend families"]
    assert rows.named_by.tolist() == ["model", "configuration"]
