"""Ids that last: under renumbering, splits, merges, vanishing and new segments."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmenter.lineage import KINDS, Match, coupled_mass, linked, match, overlap


def hard(values: list, segments: list[int]) -> pd.DataFrame:
    """Posteriors of customers 0.. who are surely where `values` says; None is not assigned."""
    known = {customer: value for customer, value in enumerate(values) if value is not None}
    rows = np.equal.outer(list(known.values()), segments).astype(float)
    return pd.DataFrame(rows, index=list(known), columns=segments)


def kinds(found: Match) -> set[tuple]:
    """The links without their figures; None where an end is null."""
    links = found.links.astype(object).where(found.links.notna(), None)
    return {(r.from_segment_id, r.to_segment_id, r.kind) for r in links.itertuples()}


def posteriors(customers: int, segments: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(segments, 0.4), customers)


@given(st.permutations(range(4)))
def test_ids_follow_their_customers_through_any_renumbering(order: list[int]) -> None:
    ids = [3, 5, 8, 9]
    kinds_of = np.repeat(np.arange(4), 25)
    current = hard(np.array(order)[kinds_of].tolist(), [0, 1, 2, 3])

    found = match(hard(np.array(ids)[kinds_of].tolist(), ids), current, next_id=12)

    assert [found.ids[order[k]] for k in range(4)] == ids
    assert (found.kept, found.new, found.retired) == (tuple(ids), (), ())
    assert kinds(found) == {(i, i, "kept") for i in ids}
    assert found.links.overlap.tolist() == [1.0] * 4


@given(st.permutations(range(5)), st.integers(0, 9))
def test_a_model_is_its_own_heir_however_uncertain_it_is(order: list[int], seed: int) -> None:
    ids = [2, 3, 5, 7, 11]
    rows = posteriors(60, 5, seed)
    previous = pd.DataFrame(rows, columns=ids)

    found = match(previous, pd.DataFrame(rows[:, order]), next_id=12)

    assert found.ids == tuple(ids[k] for k in order)
    own = found.links[found.links.kind == "kept"]
    assert own.overlap.to_numpy() == pytest.approx(1.0)
    assert len(found.links) == 5


def test_a_few_movers_do_not_change_ids() -> None:
    found = match(hard([1] * 50 + [2] * 50, [1, 2]), hard([1] * 45 + [0] * 55, [0, 1]), 3)

    assert found.ids == (2, 1)
    assert found.links.set_index("from_segment_id").overlap.to_dict() == {1: 0.9, 2: 1.0}


def test_of_a_split_the_larger_part_keeps_the_id_and_the_other_is_linked() -> None:
    previous = hard([1] * 100 + [2] * 50, [1, 2])
    current = hard([0] * 60 + [2] * 40 + [1] * 50, [0, 1, 2])

    found = match(previous, current, next_id=3)

    assert found.ids == (1, 2, 3)
    assert kinds(found) == {(1, 1, "kept"), (2, 2, "kept"), (1, 3, "split")}
    assert sorted(found.links.overlap) == [0.4, 0.6, 1.0]


def test_a_split_into_many_parts_links_each_of_them() -> None:
    previous = hard([1] * 100 + [2] * 50, [1, 2])
    current = hard([0, 2, 3, 4] * 25 + [1] * 50, [0, 1, 2, 3, 4])

    found = match(previous, current, next_id=3)

    assert found.retired == (1,), "no part holds enough of it"
    assert found.new == (3, 4, 5, 6)
    assert kinds(found) == {(2, 2, "kept"), *((1, i, "split") for i in (3, 4, 5, 6))}


def test_of_a_merge_the_larger_part_gives_the_id_and_the_other_is_linked() -> None:
    previous = hard([1] * 60 + [2] * 40 + [3] * 50, [1, 2, 3])
    current = hard([0] * 100 + [1] * 50, [0, 1])

    found = match(previous, current, next_id=4)

    assert found.ids == (1, 3)
    assert found.retired == (2,)
    assert kinds(found) == {(1, 1, "kept"), (3, 3, "kept"), (2, 1, "merged")}
    assert found.links.overlap.tolist() == [1.0, 1.0, 1.0]


def test_a_segment_that_vanishes_is_retired_and_its_id_never_returns() -> None:
    previous = hard([1] * 50 + [2] * 50 + [3] * 50, [1, 2, 3])

    gone = match(previous, hard([0] * 50 + [1] * 50 + [None] * 50, [0, 1]), next_id=4)
    later = match(
        hard([1] * 50 + [2] * 50 + [None] * 50, [1, 2]),
        hard([0] * 50 + [2] * 50 + [1] * 50, [0, 1, 2]),
        next_id=4,
    )

    assert (gone.ids, gone.retired) == ((1, 2), (3,))
    assert (3, None, "retired") in kinds(gone)
    assert later.ids == (1, 4, 2)
    assert (None, 4, "new") in kinds(later)
    assert later.links.overlap.isna().sum() == 1


def test_an_id_that_was_given_to_a_model_that_never_led_is_not_given_again() -> None:
    found = match(hard([1] * 50, [1]), hard([0] * 50 + [1] * 30, [0, 1]), next_id=7)

    assert found.ids == (1, 7)


def test_the_first_model_counts_from_the_start() -> None:
    found = match(pd.DataFrame(), hard([0, 1], [0, 1]), next_id=1)

    assert (found.ids, found.new) == ((1, 2), (1, 2))
    assert kinds(found) == {(None, 1, "new"), (None, 2, "new")}


def test_only_customers_whom_both_models_assign_count() -> None:
    previous = hard([1] * 20 + [None] * 100, [1])
    current = hard([0] * 10 + [None] * 10 + [0] * 100, [0])

    assert match(previous, current, next_id=2).ids == (1,)


def test_a_thin_overlap_makes_no_heir() -> None:
    previous = hard([1] * 20 + [2] * 80 + [3] * 80, [1, 2, 3])

    found = match(previous, hard([0] * 180, [0]), next_id=4)

    assert found.ids == (2,), "80 of 180, the first of two alike"
    assert {(1, 2, "merged"), (3, 2, "merged")} <= kinds(found)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40))
def test_overlap_of_sure_customers_is_that_of_sets(pairs: list[tuple[int, int]]) -> None:
    old, new = hard([a for a, _ in pairs], [0, 1, 2, 3]), hard([b for _, b in pairs], [0, 1, 2])

    found = overlap(old.to_numpy(), new.to_numpy())

    for i, j in np.ndindex(4, 3):
        ours = {n for n, (a, _) in enumerate(pairs) if a == i}
        theirs = {n for n, (_, b) in enumerate(pairs) if b == j}
        either = ours | theirs
        assert found[i, j] == pytest.approx(len(ours & theirs) / len(either) if either else 0.0)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99), st.integers(0, 5))
def test_mass_goes_somewhere_and_comes_from_somewhere(
    old: int, new: int, seed: int, paired: int
) -> None:
    before, after = posteriors(30, old, seed), posteriors(30, new, seed + 1)
    pairs = [(k, k) for k in range(min(old, new, paired))]

    mass = coupled_mass(before, after, pairs)

    np.testing.assert_allclose(mass.sum(axis=1), before.sum(axis=0))
    np.testing.assert_allclose(mass.sum(axis=0), after.sum(axis=0))
    stays = [np.minimum(before[:, k], after[:, k]).sum() for k, _ in pairs]
    assert all(mass[k, k] >= s - 1e-9 for (k, _), s in zip(pairs, stays, strict=True))


@given(
    st.lists(st.lists(st.floats(0, 9), min_size=4, max_size=4), min_size=1, max_size=5),
    st.integers(0, 4),
)
def test_every_segment_has_a_link_and_only_kept_ones_keep_their_id(
    rows: list[list[float]], kept: int
) -> None:
    mass = np.array(rows)
    old = list(range(1, len(rows) + 1))
    new = [old[k] if k < min(kept, len(old)) else 50 + k for k in range(4)]

    found = linked(mass, old, new)

    assert set(found.from_segment_id.dropna()) == set(old)
    assert set(found.to_segment_id.dropna()) == set(new)
    assert not found.duplicated(["from_segment_id", "to_segment_id"]).any()
    assert set(found.kind) <= set(KINDS)
    same = (found.from_segment_id == found.to_segment_id).fillna(False).to_numpy(dtype=bool)
    assert (same == (found.kind == "kept").to_numpy()).all()
    ended = found.from_segment_id.isna() | found.to_segment_id.isna()
    assert (ended == found.kind.isin(["new", "retired"])).all()
    assert (found.overlap.isna() == ended).all()
    assert found.overlap.dropna().between(0, 1 + 1e-9).all()
