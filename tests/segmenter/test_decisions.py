"""States, ids that last, and the gate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmenter.decisions import LEAD, chosen, decide, gate, moved_share
from segmenter.lineage import Match
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

    frame = decide(scores, [5, 8], seen_before=[0, 2, 99]).set_index("customer_id")

    assert frame["state"].to_dict() == {
        0: "assigned",
        1: "outlier",
        2: "inactive",
        3: "too_new",
        99: "inactive",
    }
    assert frame.loc[0, "segment_id"] == 8
    assert frame.loc[0, "probability"] == 0.9
    assert frame["segment_id"].notna().sum() == frame["probability"].notna().sum() == 1
    assert frame.loc[1, "log_likelihood"] == -11.0


KEEPS = Match((1, 2), (1, 2), (), (), pd.DataFrame())


def test_a_customer_stays_until_another_segment_leads_by_the_margin() -> None:
    posterior = [[0.45, 0.55], [0.39, 0.61], [0.45, 0.55], [0.1, 0.9], [0.45, 0.55]]
    scores = scores_of([-2.0] * 5, posterior)
    current = pd.Series(pd.array([7, 7, 4, 7, None], dtype="Int64"), index=range(5))

    frame = decide(scores, [7, 4], current=current)

    assert frame.segment_id.tolist() == [7, 4, 4, 4, 4]
    assert frame.probability.tolist() == [0.45, 0.61, 0.55, 0.9, 0.55]


def test_a_segment_that_the_model_lacks_or_that_is_impossible_holds_nobody() -> None:
    scores = scores_of([-2.0, -2.0], [[0.5, 0.5, 0.0], [0.15, 0.15, 0.0]])

    frame = decide(scores, [1, 2, 3], current=pd.Series([9, 3], index=[0, 1]))

    assert frame.segment_id.tolist() == [1, 1]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.integers(0, 99))
def test_the_same_answer_again_changes_nothing(present: list[int], seed: int) -> None:
    posterior = np.random.default_rng(seed).dirichlet([0.7] * 3, len(present))

    once = chosen(posterior, np.array(present))

    assert (chosen(posterior, once) == once).all()
    lead = posterior.max(axis=1) - posterior[np.arange(len(once)), once]
    assert (lead < LEAD).all()
    moved = once != np.array(present)
    assert (once[moved] == posterior[moved].argmax(axis=1)).all()


@pytest.mark.parametrize("keys", [["a", "b"], [1, 2]])
def test_customers_are_found_by_keys_of_any_kind(keys: list) -> None:
    scores = Scores(
        pd.Series(keys), np.full(2, -2.0), np.array([[0.45, 0.55]] * 2), np.full(2, -10.0)
    )
    current = pd.Series([1, 1], index=pd.Index(keys, dtype=object))

    assert decide(scores, [1, 2], current=current).segment_id.tolist() == [1, 1]


def test_the_gate_opens_for_a_model_that_moves_few_customers() -> None:
    previous = by_customer([1] * 50 + [2] * 50)
    current = by_customer([1] * 50 + [2] * 45 + [1] * 5)

    assert moved_share(previous, current) == pytest.approx(0.05)
    assert gate(previous, current, KEEPS, SOUND) == (True, [])


def test_the_gate_tells_every_reason_at_once() -> None:
    previous = by_customer([1] * 50 + [2] * 50)
    current = by_customer([1] * 50 + [2] * 10 + [3] * 20 + [4] * 20)
    matched = Match((1, 2, 3, 4), (1, 2), (3, 4), (6,), pd.DataFrame())
    refused = {"strata": [{"stratum": "all", "refused": "a component has an sd at the floor"}]}

    passed, reasons = gate(previous, current, matched, refused)

    assert not passed
    assert len(reasons) == 4
    assert "sd at the floor" in reasons[0]
    assert "appear: 3, 4" in reasons[1]
    assert reasons[2] == "published segments vanish: 6"
    assert reasons[3].startswith("40.0% of the customers move")


def test_customers_assigned_in_one_model_only_do_not_count_as_moved() -> None:
    assert moved_share(by_customer([1, None, 2]), by_customer([1, 2, None])) == 0.0
