"""States, ids that last, and the gate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmenter.decisions import decide, gate, match, moved_share
from segmenter.training import Scores

SOUND = {"strata": [{"stratum": "all", "refused": ""}]}


def by_customer(values: list) -> pd.Series:
    return pd.Series(pd.array(values, dtype="Int64"), index=range(len(values)))


def scores_of(log_density: list[float], posterior: list[list[float]]) -> Scores:
    n = len(log_density)
    return Scores(
        pd.Series(range(n)), np.array(log_density), np.array(posterior), np.full(n, -10.0)
    )


def test_each_customer_gets_one_state() -> None:
    scores = scores_of(
        [-2.0, -11.0, np.nan, np.nan], [[0.1, 0.9], [0.5, 0.5], [0.0, 0.0], [0.0, 0.0]]
    )

    frame = decide(scores, seen_before=[0, 2, 99]).set_index("customer_id")

    assert frame["state"].to_dict() == {
        0: "assigned",
        1: "outlier",
        2: "inactive",
        3: "too_new",
        99: "inactive",
    }
    assert frame.loc[0, "segment"] == 1
    assert frame.loc[0, "probability"] == 0.9
    assert frame["segment"].notna().sum() == frame["probability"].notna().sum() == 1
    assert frame.loc[1, "log_likelihood"] == -11.0


@given(st.permutations(range(4)))
def test_ids_follow_their_customers_through_any_renumbering(order: list[int]) -> None:
    ids = np.array([3, 5, 8, 9])
    kinds = np.repeat(np.arange(4), 25)
    positions = by_customer(np.array(order)[kinds].tolist())

    found = match(by_customer(ids[kinds].tolist()), positions, 4, next_id=12)

    assert [found.ids[order[k]] for k in range(4)] == ids.tolist()
    assert (found.new, found.retired, found.next_id) == ((), (), 12)


def test_a_few_movers_do_not_change_ids() -> None:
    previous = by_customer([1] * 50 + [2] * 50)
    positions = by_customer([1] * 45 + [0] * 55)

    found = match(previous, positions, 2, next_id=3)

    assert found.ids == (2, 1)


def test_a_segment_that_vanishes_is_retired_and_its_id_never_returns() -> None:
    previous = by_customer([1] * 50 + [2] * 50 + [3] * 50)
    positions = by_customer([0] * 50 + [1] * 50 + [None] * 50)

    gone = match(previous, positions, 2, next_id=4)
    later = match(
        by_customer([1] * 50 + [2] * 50), by_customer([0] * 50 + [2] * 50), 3, gone.next_id
    )

    assert gone.retired == (3,)
    assert gone.ids == (1, 2)
    assert later.ids == (1, 4, 2)
    assert later.new == (4,)


def test_a_new_segment_gets_the_next_id() -> None:
    previous = by_customer([1] * 50 + [2] * 50 + [None] * 30)
    positions = by_customer([0] * 50 + [1] * 50 + [2] * 30)

    found = match(previous, positions, 3, next_id=7)

    assert found.ids == (1, 2, 7)
    assert found.next_id == 8


def test_the_first_model_counts_from_the_start() -> None:
    found = match(by_customer([]), by_customer([0, 1]), 2, next_id=1)

    assert found.ids == (1, 2)
    assert found.next_id == 3


def test_a_thin_overlap_makes_no_heir() -> None:
    previous = by_customer([1] * 20 + [None] * 100)
    positions = by_customer([0] * 10 + [None] * 10 + [0] * 100)

    assert match(previous, positions, 1, next_id=2).ids == (1,)  # only shared customers count
    shared = by_customer([1] * 20 + [2] * 80 + [3] * 80)
    assert match(shared, by_customer([0] * 20 + [0] * 80 + [0] * 80), 1, next_id=4).ids == (2,)


def test_the_gate_opens_for_a_model_that_moves_few_customers() -> None:
    previous = by_customer([1] * 50 + [2] * 50)
    current = by_customer([1] * 50 + [2] * 45 + [1] * 5)

    matched = match(previous, by_customer([0] * 50 + [1] * 45 + [0] * 5), 2, 3)

    assert moved_share(previous, current) == pytest.approx(0.05)
    assert gate(previous, current, matched, SOUND) == (True, [])


def test_the_gate_tells_every_reason_at_once() -> None:
    previous = by_customer([1] * 50 + [2] * 50)
    positions = by_customer([0] * 50 + [1] * 10 + [2] * 20 + [3] * 20)
    matched = match(previous, positions, 4, next_id=3)
    current = positions.map(dict(enumerate(matched.ids))).astype("Int64")
    refused = {"strata": [{"stratum": "all", "refused": "a component has an sd at the floor"}]}

    passed, reasons = gate(previous, current, matched, refused)

    assert not passed
    assert len(reasons) == 3
    assert "sd at the floor" in reasons[0]
    assert "appear: 3, 4" in reasons[1]
    assert reasons[2].startswith("30.0% of the customers move")


def test_the_gate_names_segments_that_vanish() -> None:
    previous = by_customer([1] * 50 + [2] * 2)
    positions = by_customer([0] * 52)

    passed, reasons = gate(previous, by_customer([1] * 52), match(previous, positions, 1, 3), SOUND)

    assert not passed
    assert reasons == ["published segments vanish: 2"]


def test_customers_assigned_in_one_model_only_do_not_count_as_moved() -> None:
    assert moved_share(by_customer([1, None, 2]), by_customer([1, 2, None])) == 0.0
