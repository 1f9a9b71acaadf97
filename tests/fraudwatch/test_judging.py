"""Judging: what is said of a row is a function of the row and what was known before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fraudwatch import detector, explanations, judging
from fraudwatch.decisions import DRIFT_LEVELS, Footing
from fraudwatch.detector import Detector
from fraudwatch.evidence import Evidence, KeyModel
from fraudwatch.features import OWN_PREFIXES
from fraudwatch.judging import (
    Journal,
    Judged,
    filled,
    judge,
    keys_of,
    nothing,
    ranking_table,
    sharing_a_key,
)
from fraudwatch.ranker import RISK_DAYS
from shared import artifacts
from shared.encoding import Feature
from shared.errors import TemporaryError
from shared.frames import MICROSECONDS_PER_DAY as DAY
from tests.planted import FEATURES, REFERENCE, World, a_world, few_steps

MANY = tuple(  # as many as numpy sums in another order when they lie side by side
    Feature(f"number.{at}", "continuous", "focal", "", "a number") for at in range(17)
)
EVIDENCE = Evidence(
    (
        KeyModel("customer", hazard=0.004, duration=6.0, stages=4, share=0.5, showing=0.8),
        KeyModel("counterparty", hazard=0.001, duration=30.0, share=0.3, other=0.01),
    ),
    base=0.004,
    days=12,
)
FOOTING = Footing(2 / 3, 7, tuple(level / 3 for level in DRIFT_LEVELS), (0.1 / 3,) * 4, 9)


@pytest.fixture(scope="module")
def world() -> World:
    """Forty days; the labels of the last three are not known by the end."""
    made = a_world(3, days=40, normal=40, frauds=4, customers=60, delay_days=3)
    numbers = np.random.default_rng(0).normal(size=(len(made.rows), len(MANY)))
    frame = made.frame.join(pd.DataFrame(numbers, columns=[f.name for f in MANY]))
    return replace(made, frame=frame)


@pytest.fixture(scope="module")
def found(world: World) -> Detector:
    """Trained on the first twenty days and calibrated on ten; with evidence of two kinds."""
    with few_steps():
        fitted, _ = detector.fit(
            world.frame.iloc[world.places(0, 20)],
            world.frame.iloc[world.places(20, 30)],
            (*FEATURES[:3], *MANY, FEATURES[3]),
            REFERENCE,
            (20 * DAY, 30 * DAY, 10),
            np.random.default_rng(0),
        )
    return replace(fitted, evidence=EVIDENCE, footing=FOOTING)


@pytest.fixture(scope="module")
def journal(world: World, found: Detector) -> Journal:
    surprise = found.surprise(found.score(world.frame))
    return filled(world.journal(), np.arange(len(world.rows)), surprise)


def judged(found: Detector, world: World, journal: Journal, ids: np.ndarray) -> Judged:
    """Judges transactions by their ids, scored by themselves."""
    frame = world.frame.loc[ids]  # the ids of the world are its positions
    return judge(found, frame, found.score(frame), journal, journal.places(pd.Series(ids)))


def bits(found: Detector, of: Judged, journal: Journal) -> dict[str, bytes]:
    """All that is said of the rows, the ranker's table among it, by row and to the last bit."""
    table = ranking_table(found, of, journal)
    said = {
        "surprise": of.surprise,
        "posterior": of.weighed.posterior,
        "anomaly_score": of.anomaly_score,
        "p_value": of.p_value,
    }
    return {
        name: np.ascontiguousarray(values).tobytes()
        for name, values in (said | {f"table.{name}": v for name, v in table.items()}).items()
    }


# --- batches ------------------------------------------------------------------------------------


def test_a_row_is_judged_alone_as_among_others_to_the_last_bit(world, found, journal):
    asked = world.places(33, 36)
    scored = found.score(world.frame.iloc[asked])

    together = judge(found, world.frame.iloc[asked], scored, journal, asked)

    for at in range(len(asked)):
        one = np.array([at])
        frame = world.frame.iloc[asked[one]]
        alone = judge(found, frame, scored.part(one), journal, asked[one])
        assert bits(found, alone, journal) == bits(found, together.part(one), journal)


@pytest.mark.parametrize("size", [2, 7, 16, 60])
def test_any_rows_in_any_order_are_judged_as_among_all(world, found, journal, size):
    asked = world.places(33, 36)
    some = np.random.default_rng(size).choice(len(asked), size, replace=False)
    scored = found.score(world.frame.iloc[asked])
    every = judge(found, world.frame.iloc[asked], scored, journal, asked)

    few = judge(found, world.frame.iloc[asked[some]], scored.part(some), journal, asked[some])

    assert bits(found, few, journal) == bits(found, every.part(some), journal)


def test_the_surprises_of_rows_that_share_no_key_are_not_needed(world, found, journal):
    asked = world.places(35, 36)[:3]
    among = world.places(0, 40)
    needed = sharing_a_key(journal.keys, asked, among)
    bare = filled(world.journal(), needed, journal.surprise[needed])

    less = judged(found, world, bare, asked)

    assert len(needed) < len(among) / 2
    assert bits(found, less, bare) == bits(found, judged(found, world, journal, asked), journal)


def test_rows_that_share_a_key_are_those_that_counting_finds():
    generator = np.random.default_rng(0)
    keys = {kind: generator.integers(-1, 30, 200) for kind in ("customer", "card")}
    keys["empty"] = np.full(200, -1)
    asked, among = np.array([3, 50]), np.arange(20, 180)

    found = sharing_a_key(keys, asked, among)

    expected = [
        row
        for row in among
        if any(codes[row] >= 0 and codes[row] in codes[asked] for codes in keys.values())
    ]
    assert found.tolist() == expected


# --- what was not known yet ---------------------------------------------------------------------


@pytest.mark.parametrize("moment_day", [31.0, 34.25, 37.5])
def test_what_is_not_yet_known_changes_no_score_no_p_value_and_no_priority(
    world, found, journal, moment_day
):
    """Labels that become known later are turned, removed and added; later rows are taken out."""
    generator, moment = np.random.default_rng(int(moment_day)), int(moment_day * DAY)
    rows = world.rows
    asked = np.flatnonzero((rows.occurred_at >= moment - DAY) & (rows.occurred_at <= moment))
    young = (rows.occurred_at + world.delay_days * DAY >= rows.occurred_at[asked[-1]]).to_numpy()
    late = generator.choice([0.0, 1.0, np.nan], len(rows))
    changed = rows.assign(label=np.where(young, late, rows.label))
    verdicts = pd.DataFrame({
        "transaction_id": generator.choice(asked[-1], 300),
        "verdict": generator.choice(["confirmed_fraud", "false_positive", "reopened"], 300),
        "decided_at": moment + generator.integers(0, 9 * DAY, 300),
    })  # fmt: skip
    kept = np.flatnonzero(rows.occurred_at <= moment)
    other = Journal(changed.iloc[kept], verdicts, world.delay_days, journal.surprise[kept])
    last = asked[-20:]

    before, after = (judged(found, world, each, last) for each in (journal, other))

    assert young[: last[-1]].any() and (before.weighed.confirmed > 0).any()
    assert bits(found, after, other) == bits(found, before, journal)


def test_a_verdict_speaks_from_the_moment_after_it_was_decided(world, found, journal):
    at = int(world.places(36, 37)[5])
    customer = world.rows.customer_id == world.rows.customer_id[at]
    earlier = int(np.flatnonzero(customer & (world.rows.occurred_at < 35 * DAY))[-1])
    moment = int(world.rows.occurred_at[at])

    def score(decided_at: int) -> float:
        verdict = pd.DataFrame({
            "transaction_id": [earlier], "verdict": "confirmed_fraud", "decided_at": decided_at,
        })  # fmt: skip
        known = replace(journal, verdicts=verdict)
        return float(judged(found, world, known, np.array([at])).anomaly_score[0])

    assert not world.fraud[earlier]
    assert score(moment - 1) > score(moment) == score(moment + DAY)


# --- what it is made of -------------------------------------------------------------------------


def test_the_score_is_the_surprise_with_the_evidence_and_its_p_value_is_counted(
    world, found, journal
):
    asked = world.places(31, 40)

    made = judged(found, world, journal, asked)

    assert made.surprise == pytest.approx(journal.surprise[asked], abs=1e-9)
    expected = found.evidence.anomaly_score(made.surprise, made.weighed.posterior)
    assert np.array_equal(made.anomaly_score, expected)
    reached = [(found.calibration.scores >= score - 1e-6).sum() for score in expected]
    rows = len(found.calibration.scores)
    assert made.p_value == pytest.approx((1 + np.array(reached)) / (rows + 1), abs=1e-12)


def test_confirmed_frauds_raise_the_next_rows_of_their_counterparties(world, found, journal):
    asked = world.places(34, 40)
    genuine = asked[~world.fraud[asked]]
    shop = world.rows.counterparty_id[genuine]

    made = judged(found, world, journal, genuine)

    raised = made.anomaly_score - made.surprise
    hit = shop.isin(["s1", "s2", "s3", "s4"]).to_numpy()
    assert np.median(raised[hit]) > np.median(raised[~hit & shop.notna().to_numpy()]) + 0.5


def test_the_ranker_sees_features_parts_evidence_and_risks(world, found, journal):
    asked = world.places(35, 36)
    made = judged(found, world, journal, asked)

    table = ranking_table(found, made, journal)

    assert {len(values) for values in table.values()} == {len(asked)}
    assert np.array_equal(table["hunch"], world.frame.hunch.iloc[asked]), "what no density saw"
    parts = np.column_stack([table[f"surprise.{name}"] for name in found.names])
    assert parts.sum(1) == pytest.approx(-made.scored.log_likelihood, abs=1e-5)
    assert np.array_equal(table["anomaly_score"], made.anomaly_score)
    ours = {name for name in table if "." in name} - set(made.frame)
    assert all(name.startswith(OWN_PREFIXES) for name in ours), "no column of a user's begins so"
    assert {explanations.EVIDENCE, explanations.RANKER} <= set(OWN_PREFIXES)
    for place, kind in enumerate(("customer", "counterparty")):
        assert np.array_equal(table[f"posterior.{kind}"], made.weighed.posterior[:, place])
        known = [f"risk.{kind}_known_{days}d" for days in RISK_DAYS]
        assert all((np.diff([table[name] for name in known], axis=0) >= 0).ravel())


def test_a_stored_detector_judges_the_same_to_the_last_bit(world, found, journal):
    data = artifacts.pack(found.header(), found.to_arrays())

    again = Detector.from_arrays(*artifacts.unpack(data, artifacts.digest(data)))

    asked = world.places(30, 40)
    before, after = (judged(each, world, journal, asked) for each in (found, again))
    assert bits(again, after, journal) == bits(found, before, journal)
    assert again.footing == FOOTING


def test_nothing_is_said_of_no_rows_in_the_shapes_of_some(world, found, journal):
    none, some = nothing(found), judged(found, world, journal, world.places(35, 36))

    for name in ("surprise", "anomaly_score", "p_value", "at"):
        assert getattr(none, name).shape == (0,)
    for of in ("posterior", "confirmed", "unusual"):
        assert getattr(none.weighed, of).shape[1:] == getattr(some.weighed, of).shape[1:]
    assert none.scored.surprise.shape[1:] == some.scored.surprise.shape[1:]


# --- the journal --------------------------------------------------------------------------------


def test_keys_are_coded_by_kind_and_negative_where_a_row_has_none():
    rows = pd.DataFrame({
        "transaction_id": [1, 2, 3],
        "customer_id": ["a", "b", "a"],
        "entity.device": pd.array([7, None, 7], dtype="Int64"),
    })  # fmt: skip

    keys = keys_of(rows)

    assert {kind: codes.tolist() for kind, codes in keys.items()} == {
        judging.CUSTOMER: [0, 1, 0],
        "device": [0, -1, 0],
    }


def test_a_transaction_removed_while_it_was_read_ends_the_run_for_another_try(journal):
    with pytest.raises(TemporaryError, match="1 transactions were removed from the source"):
        journal.places(pd.Series([journal.rows.transaction_id.iloc[0], 10**9]))


def test_filling_surprises_in_leaves_the_journal_as_it_was(world):
    before = world.journal()

    after = filled(before, np.array([2, 4]), np.array([1.5, 2.5]))

    assert np.isnan(before.surprise).all()
    assert np.flatnonzero(~np.isnan(after.surprise)).tolist() == [2, 4]
    assert after.surprise[[2, 4]].tolist() == [1.5, 2.5]
