"""Periods after any sequence of scorings, new champions, roll-backs and backfills."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from segmenter import decisions, scoring, store
from segmenter.decisions import LEAD
from segmenter.training import Scores
from shared.frames import micros
from shared.runs import Results
from shared.verifying import _questions
from tests.builders import make_results
from tests.segmenter.test_store import LAWS, START, Stand

CUSTOMERS = (1, 2, 3, 4)
Answer = tuple[str, int | None]

# what the density says of a customer: three posteriors, or why there is none
looks = st.one_of(
    st.sampled_from(["outlier", "gone", "unknown"]),
    st.lists(st.integers(1, 12), min_size=3, max_size=3).map(
        lambda parts: tuple(part / sum(parts) for part in parts)
    ),
)
everybody = st.fixed_dictionaries(dict.fromkeys(CUSTOMERS, looks))


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def looked_at(people: Mapping, number: int) -> scoring.Looked:
    """The customers as of a day; who is unknown has never been seen, who is gone was seen once."""
    scored = {who: said for who, said in people.items() if said not in ("gone", "unknown")}
    posterior = [(0.4, 0.3, 0.3) if said == "outlier" else said for said in scored.values()]
    density = [-9.0 if said == "outlier" else -1.0 for said in scored.values()]
    n = len(scored)
    scores = Scores(
        pd.Series(list(scored), dtype="Int64"),
        np.array(density, dtype=float),
        np.array(posterior, dtype=float).reshape(n, 3),
        np.full(n, -5.0),
    )
    seen = [who for who, said in people.items() if said != "unknown"]
    frame = pd.DataFrame({"customer_id": list(scored)})
    return scoring.Looked(micros(day(number)), frame, scores, pd.Series(seen, dtype="Int64"))


def answer(said: object, ids: tuple[int, ...], present: Answer | None) -> Answer | None:
    """What one customer gets, in plain words."""
    if said == "unknown":
        return None
    if said in ("gone", "outlier"):
        return {"gone": "inactive", "outlier": "outlier"}[str(said)], None
    probability = dict(zip(ids, said, strict=True))
    best = max(ids, key=lambda i: (probability[i], -ids.index(i)))
    held = None if present is None else present[1]
    if held in probability and probability[best] - probability[held] < LEAD:
        return "assigned", held
    return "assigned", best


class Histories(RuleBasedStateMachine):
    """The tables beside a diary that holds, per customer, what was said as of which day."""

    stand: Stand

    @initialize()
    def begin(self) -> None:
        self.connection = self.stand.results.engine.connect()
        self.everything = self.connection.begin()
        self.champions = [(1, 2, 3)]
        self.now, self.next_id = 100, 4
        self.diary: dict[int, dict[int, Answer]] = {}

    @rule(people=everybody, days=st.integers(0, 2))
    def score(self, people: Mapping, days: int) -> None:
        """As of a later day, or of the newest one again, with what is known by now."""
        self.now += days
        as_of, ids = day(self.now), self.champions[-1]
        current = store.current_segments(self.connection, self.stand.tables, as_of)
        decided = looked_at(people, self.now).assigned(ids, current)
        store.write_periods(self.connection, self.stand, decided, as_of, "model")
        for who, said in people.items():
            own = self.diary.setdefault(who, {})
            before = [d for d in own if d < self.now]
            found = answer(said, ids, own[max(before)] if before else None)
            if found is None and own:
                found = ("inactive", None)
            if found is not None:
                own[self.now] = found

    @rule(position=st.integers(0, 2))
    def refit(self, position: int) -> None:
        """A new champion in which one segment has a new id."""
        ids = list(self.champions[-1])
        ids[position] = self.next_id
        self.next_id += 1
        self.champions.append(tuple(ids))

    @rule(order=st.permutations(range(3)))
    def renumber(self, order: list[int]) -> None:
        """A new champion with the same segments at other positions."""
        self.champions.append(tuple(self.champions[-1][k] for k in order))

    @rule()
    def roll_back(self) -> None:
        self.champions = self.champions[:-1] or self.champions

    @rule(first=st.integers(80, 110), months=st.lists(everybody, min_size=1, max_size=3))
    def backfill(self, first: int, months: list[Mapping]) -> None:
        """History before each customer's first period, of whom is seen then."""
        ids, tables = self.champions[-1], self.stand.tables
        numbers = [first + 5 * n for n in range(len(months))]
        every = scoring.in_order(ids, map(looked_at, months, numbers))
        known = store.first_periods(self.connection, tables)
        store.write_history(self.connection, self.stand, decisions.history(every, known), "model")
        for who, own in self.diary.items():
            present, begun = None, min(own, default=None)
            for number, people in zip(numbers, months, strict=True):
                present = answer(people[who], ids, present)
                if begun is not None and number < begun and present is not None:
                    own[number] = present

    @invariant()
    def the_periods_are_what_was_said(self) -> None:
        table = self.stand.tables.customer_segments
        columns = (table.c.customer_id, table.c.valid_from, table.c.state, table.c.segment_id)
        select = sa.select(*columns).order_by(table.c.customer_id, table.c.valid_from)
        found = [tuple(row) for row in self.connection.execute(select)]

        expected = []
        for who in sorted(self.diary):
            said = sorted(self.diary[who].items())
            for kind, days in groupby(said, key=lambda entry: entry[1]):
                expected.append((who, day(next(days)[0]), *kind))
        assert found == expected

    @invariant()
    def the_promises_hold(self) -> None:
        asked = {text: query for text, query in _questions(self.stand.tables) if text in LAWS}
        assert len(asked) == len(LAWS)
        broken = {text: self.connection.execute(q).scalar_one() for text, q in asked.items()}
        assert not any(broken.values()), broken

    @invariant()
    def migration_counts_every_move_once(self) -> None:
        view = sa.text("SELECT COALESCE(sum(customers), 0) FROM segment_migration")
        moves = 0
        for own in self.diary.values():
            segments = [own[d][1] for d in sorted(own)]
            moves += sum(a != b for a, b in pairwise(segments))
        assert self.connection.execute(view).scalar_one() == moves

    def teardown(self) -> None:
        if hasattr(self, "everything"):
            self.everything.rollback()
            self.connection.close()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    path = Path(tmp_path_factory.mktemp("periods"), "results.db")
    path.touch()
    return make_results(f"sqlite:///{path}")


def test_no_sequence_of_runs_leaves_a_gap_or_an_overlap(results: Results) -> None:
    machine = type("OnSqlite", (Histories,), {"stand": Stand(results)})

    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=10, deadline=None)
    )
