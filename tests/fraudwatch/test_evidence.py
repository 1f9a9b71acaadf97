"""Evidence over time: against a forward pass by hand, planted chains, and the laws it promises."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudwatch.evidence import DAYS, LEAST_FRAUDS, Evidence, KeyModel, fit
from fraudwatch.labels import NEVER, Labels
from shared.windows import DAY

CUSTOMER = KeyModel("customer", hazard=0.002, duration=10.0, share=0.5)
CARELESS = KeyModel(
    "shop", hazard=0.01, duration=8, stages=3, share=0.6, showing=0.3, other=0.01, other_showing=0.5
)


def no_labels(rows: int) -> Labels:
    return Labels(np.full((rows, 1), NEVER), np.full((rows, 1), NEVER), np.zeros((rows, 1), bool))


def known_since(since: np.ndarray, fraud: np.ndarray) -> Labels:
    since = np.asarray(since, np.int64)[:, None]
    return Labels(since, np.full(since.shape, NEVER), np.asarray(fraud, bool)[:, None])


def a_bank(rows: int = 600, keys: int = 12, seed: int = 1) -> dict:
    """Payments of some keys over 50 days, some labels, taken back now and then."""
    generator = np.random.default_rng(seed)
    times = np.sort(generator.integers(0, 50 * DAY, rows))
    since = times[:, None] + generator.integers(1, 20 * DAY, (rows, 2)).cumsum(1)
    since[generator.random(rows) < 0.3] = NEVER
    until = np.column_stack([since[:, 1], np.full(rows, NEVER)])
    return {
        "keys": {"shop": generator.integers(-1, keys, rows)},
        "times": times,
        "surprise": generator.exponential(size=rows) * generator.choice([1, 5], rows, p=[0.9, 0.1]),
        "labels": Labels(since, until, generator.random((rows, 2)) < 0.4),
    }


def weighed(evidence: Evidence, bank: dict, targets: np.ndarray):
    return evidence.weigh(**bank, targets=np.asarray(targets))


def history(
    days: list[float], surprise: list[float], *, key: KeyModel = CUSTOMER, **known
) -> float:
    """The posterior at day 40 of a customer with these payments."""
    times = (np.array([*days, 40.0]) * DAY).astype(np.int64)
    labels = known.get("labels") or no_labels(len(times))
    keys = {key.kind: np.zeros(len(times), np.int64)}
    values = np.array([*surprise, np.nan])
    target = np.array([len(days)])
    return float(Evidence((key,)).weigh(keys, times, values, labels, target).posterior[0, 0])


# --- the filter -----------------------------------------------------------------------------------


def probability_of(row: int, compromised: bool, state: int, key: KeyModel, s: float, a: float):
    """The likelihood of one payment, from the table of the module's docstring."""

    def ratio(showing: float) -> float:
        return 1 - showing + showing * a * np.exp((1 - a) * s)

    elsewhere = key.other * ratio(key.other_showing)
    by_fraud = key.share * ratio(key.showing)
    if state == 1:
        return by_fraud + (1 - key.share) * elsewhere if compromised else elsewhere
    if state == 0:
        return (1 - key.share if compromised else 1.0) * (1 - key.other)
    genuine = 1 - key.other + elsewhere
    return by_fraud + (1 - key.share) * genuine if compromised else genuine


def forward_by_hand(key: KeyModel, bank: dict, target: int, days: int, a: float) -> float:
    """P(compromised) at the target's moment, day by day with a full transition matrix."""
    codes, times, labels = bank["keys"][key.kind], bank["times"], bank["labels"]
    size = key.stages + 1
    step = np.zeros((size, size))
    step[0, 0], step[0, 1 % size] = 1 - key.hazard, key.hazard
    for stage in range(1, size):
        step[stage, stage] = 1 - key.stages / key.duration
        step[stage, (stage + 1) % size] += key.stages / key.duration
    eigenvalues, vectors = np.linalg.eig(step.T)
    start = np.real(vectors[:, np.argmax(np.real(eigenvalues))])
    state, moment = start / start.sum(), times[target]
    for day in range(moment // DAY - days, moment // DAY + 1):
        for row in np.flatnonzero((times // DAY == day) & (times < moment)):
            if codes[row] == codes[target]:
                known = int(labels.known(moment)[row])
                s = float(bank["surprise"][row])
                seen = [probability_of(row, c, known, key, s, a) for c in (False, True)]
                state = state * np.array([seen[0]] + [seen[1]] * key.stages)
                state /= state.sum()
        if day < moment // DAY:
            state = state @ step
    return float(state[1:].sum())


@pytest.mark.parametrize("key", [CARELESS, KeyModel("shop")])
def test_the_filter_is_the_forward_pass_done_by_hand(key):
    bank, evidence = a_bank(), Evidence((key,), shape=0.2, days=12)
    asked = np.flatnonzero((bank["times"] > 15 * DAY) & (bank["keys"]["shop"] >= 0))[::7]

    found = weighed(evidence, bank, asked).posterior[:, 0]

    expected = [forward_by_hand(key, bank, target, 12, 0.2) for target in asked]
    assert found == pytest.approx(expected, abs=1e-5)  # log ratios are kept to 2**-21 nats
    assert found.max() > 0.3 > found.min()


def test_the_state_before_any_payment_is_the_stationary_one():
    state = CARELESS.start

    for _ in range(200):
        state = CARELESS.next_day(state)

    assert state == pytest.approx(CARELESS.start, abs=1e-12)
    assert state.sum() == pytest.approx(1)
    assert CARELESS.prior == pytest.approx(state[1:].sum())


@pytest.mark.parametrize("stages", [1, 4])
def test_a_compromise_lasts_its_mean_duration(stages):
    key = KeyModel("shop", hazard=1e-12, duration=9.0, stages=stages)
    state = np.zeros((stages + 1, 1))
    state[1] = 1.0

    lasted = 0.0
    for _ in range(2000):
        lasted += float(state[1:].sum())
        state = key.next_day(state)

    assert lasted == pytest.approx(9.0, rel=1e-6)


def test_a_batch_of_one_row_says_the_same_to_the_last_bit():
    bank, evidence = a_bank(), Evidence((CARELESS,))
    asked = np.arange(300, 600)

    found = weighed(evidence, bank, asked)

    for at, target in enumerate(asked):
        alone = weighed(evidence, bank, [target])
        assert alone.posterior[0].tobytes() == found.posterior[at].tobytes()
        assert alone.confirmed[0] == found.confirmed[at]
        assert alone.unusual[0] == found.unusual[at]


def test_the_order_of_the_rows_is_of_no_account():
    bank, evidence = a_bank(), Evidence((CARELESS,))
    asked = np.arange(300, 600)
    order = np.random.default_rng(2).permutation(600)
    labels = bank["labels"]
    shuffled = {
        "keys": {"shop": bank["keys"]["shop"][order]},
        "times": bank["times"][order],
        "surprise": bank["surprise"][order],
        "labels": Labels(labels.since[order], labels.until[order], labels.fraud[order]),
    }

    found = weighed(evidence, shuffled, np.argsort(order)[asked])

    assert found.posterior.tobytes() == weighed(evidence, bank, asked).posterior.tobytes()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), target=st.integers(200, 599))
def test_what_is_not_yet_known_and_later_rows_change_nothing(seed, target):
    bank, evidence = a_bank(), Evidence((CARELESS,))
    generator, moment = np.random.default_rng(seed), bank["times"][target]
    labels = bank["labels"]
    later = bank["times"] >= moment
    later[target] = False
    unknown = labels.since >= moment
    changed = dict(bank)
    changed["labels"] = Labels(
        np.where(unknown & (generator.random(unknown.shape) < 0.5), NEVER, labels.since),
        np.where((labels.until >= moment) & (labels.since < moment), NEVER, labels.until),
        np.where(unknown, generator.random(unknown.shape) < 0.5, labels.fraud),
    )
    changed["surprise"] = np.where(later, generator.exponential(9, 600), bank["surprise"])
    changed["keys"] = {"shop": np.where(later, bank["keys"]["shop"][target], bank["keys"]["shop"])}

    found, expected = weighed(evidence, changed, [target]), weighed(evidence, bank, [target])

    assert found.posterior.tobytes() == expected.posterior.tobytes()
    assert (found.confirmed, found.unusual) == (expected.confirmed, expected.unusual)


def test_rows_of_one_moment_do_not_see_each_other():
    twins = {
        "keys": {"customer": np.zeros(3, np.int64)},
        "times": np.array([40 * DAY] * 3),
        "surprise": np.full(3, 20.0),
        "labels": no_labels(3),
    }

    found = weighed(Evidence((CUSTOMER,)), twins, np.arange(3))

    assert found.posterior[:, 0].tolist() == [CUSTOMER.prior] * 3


def test_an_unknown_key_has_no_evidence():
    bank, evidence = a_bank(), Evidence((CARELESS,))
    bank["keys"] = {"shop": np.full(600, -1)}
    surprise = np.linspace(0, 30, 300)

    found = weighed(evidence, bank, np.arange(300, 600))

    assert np.all(found.posterior == CARELESS.prior)
    assert np.all(evidence.parts(surprise, found.posterior) == 0)
    assert not found.confirmed.any() and not found.unusual.any()


def test_no_targets_and_no_kinds_are_no_fault():
    bank = a_bank()

    assert weighed(Evidence((CARELESS,)), bank, np.empty(0, np.int64)).posterior.shape == (0, 1)
    assert weighed(Evidence(()), bank, np.arange(5)).posterior.shape == (5, 0)


# --- what it means --------------------------------------------------------------------------------


def test_unlabelled_surprises_raise_later_rows():
    quiet = history([36, 37, 38], [0.7, 0.7, 0.7])
    loud = [history([36, 37, 38], [9.0] * n + [0.7] * (3 - n)) for n in (1, 2, 3)]

    assert quiet < CUSTOMER.prior < loud[0] < loud[1] < loud[2]
    assert loud[2] > 0.7


def test_a_recovered_key_fades():
    ago = [history([40 - days], [12.0]) for days in (1, 5, 10, 20, 29)]

    assert ago == sorted(ago, reverse=True)
    assert ago[0] > 10 * CUSTOMER.prior
    assert history([40 - DAYS - 1.0], [12.0]) == CUSTOMER.prior


def test_known_labels_speak_from_the_moment_they_are_known():
    moment, row = 40 * DAY, [0.7]

    def told(since: float, fraud: bool) -> float:
        labels = known_since([int(since), NEVER], [fraud, False])
        return history([35], row, labels=labels)

    assert told(moment - 1, True) > 0.3 > told(moment, True)
    assert told(moment, True) == told(moment, False) == history([35], row)
    assert told(moment - 1, False) < CUSTOMER.prior


def test_one_label_does_not_condemn_a_busy_counterparty():
    rows = 20_000
    times = np.append(np.linspace(33 * DAY, 40 * DAY - 1, rows).astype(np.int64), 40 * DAY)
    fraud = np.arange(rows + 1) == 5_000
    labels = known_since(np.where(fraud, times + DAY, NEVER), fraud)
    surprise = np.random.default_rng(0).exponential(size=rows + 1)
    keys = {"customer": np.zeros(rows + 1, np.int64)}

    found = Evidence((CUSTOMER,)).weigh(keys, times, surprise, labels, np.array([rows]))

    assert found.confirmed.tolist() == [[1]]
    assert found.posterior[0, 0] < CUSTOMER.prior
    assert history([37], [0.7], labels=known_since([38 * DAY, NEVER], [True, False])) > 0.4


def test_counts_are_of_the_window_and_of_what_is_known():
    times = (np.array([5.0, 20, 25, 30, 40]) * DAY).astype(np.int64)
    labels = known_since([6 * DAY, 21 * DAY, 26 * DAY, NEVER, NEVER], [1, 1, 0, 0, 0])
    surprise = np.array([9.0, 9, 9, 9, np.nan])
    keys = {"customer": np.zeros(5, np.int64)}

    found = Evidence((CUSTOMER,)).weigh(keys, times, surprise, labels, np.array([4]))

    assert found.confirmed.tolist() == [[1]]
    assert found.unusual.tolist() == [[1]]


# --- the score ------------------------------------------------------------------------------------


def test_without_evidence_the_score_is_the_surprise():
    evidence = Evidence.assumed(["customer", "counterparty"])
    surprise = np.linspace(0, 40, 81)
    posterior = np.tile(evidence.prior, (81, 1))

    assert evidence.anomaly_score(surprise, posterior) == pytest.approx(surprise, abs=1e-9)


def test_without_labels_the_same_payments_say_most_of_the_customer():
    evidence = Evidence.assumed(["customer", "counterparty", "card"])
    days, surprise = [37, 38, 39], [9.0, 9.0, 0.7]

    found = {key.kind: history(days, surprise, key=key) for key in evidence.keys}

    assert found["customer"] > 10 * found["counterparty"]
    assert found["card"] == found["counterparty"]  # of the customer's own payments mostly
    assert found["counterparty"] > evidence.keys[1].prior
    [card] = Evidence.assumed(["card"]).keys
    assert history(days, surprise, key=card) == found["customer"]  # where no customer is known
    alone = evidence.parts(np.array([5.0]), np.array([list(found.values())]))[0]
    assert alone[0] > 10 * alone[1] > 0


def test_a_single_large_surprise_keeps_its_rank():
    evidence = Evidence.assumed(["customer", "counterparty"])
    certain = np.ones((1, 2))

    ordinary_of_compromised = evidence.anomaly_score(np.array([0.7]), certain)
    single = evidence.anomaly_score(np.array([15.0]), evidence.prior[None])

    assert single > ordinary_of_compromised
    assert evidence.anomaly_score(np.array([0.7]), certain) > 5


@settings(max_examples=60, deadline=None)
@given(
    surprise=st.floats(0, 200),
    more=st.floats(0.01, 50),
    low=st.floats(0, 1),
    high=st.floats(0, 1),
)
def test_the_score_rises_with_the_surprise_and_with_each_posterior(surprise, more, low, high):
    evidence = Evidence((CARELESS, CUSTOMER))
    low, high = min(low, high), max(low, high)

    def score(s: float, q: float) -> float:
        return float(evidence.anomaly_score(np.array([s]), np.array([[q, 0.1]]))[0])

    assert score(surprise + more, low) > score(surprise, low)
    assert score(surprise, high) >= score(surprise, low)
    assert np.isfinite(score(surprise, high))


def test_the_probability_is_bayes_rule_over_the_causes():
    evidence = Evidence((CARELESS,), base=0.004, shape=0.2)
    s, q = 3.0, 0.25

    found = evidence.probability(np.array([s]), np.array([[q]]))

    def ratio(m: float) -> float:
        return 1 - m + m * 0.2 * np.exp(0.8 * s)

    fraud = 0.004 * ratio(1.0) + q * 0.6 * ratio(0.3)
    odds = fraud / ((1 - 0.004) * (1 - q * 0.6))
    assert found == pytest.approx([odds / (1 + odds)])


def test_the_part_of_a_kind_is_what_it_alone_adds():
    evidence = Evidence((CARELESS, CUSTOMER))
    surprise, posterior = np.array([2.0, 9.0]), np.array([[0.7, 0.5], [0.01, 0.001]])
    told = posterior.copy()
    told[:, 1] = CUSTOMER.prior

    parts = evidence.parts(surprise, posterior)

    alone = evidence.anomaly_score(surprise, np.tile(evidence.prior, (2, 1)))
    assert parts[:, 0] == pytest.approx(evidence.anomaly_score(surprise, told) - alone)
    assert (parts[0] > 0).all() and (parts[1] < 0).all()


def test_the_stored_evidence_is_the_same():
    evidence = Evidence((CARELESS, CUSTOMER), base=0.1 / 3, shape=0.07, days=21)

    assert Evidence.from_json(json.loads(json.dumps(evidence.to_json()))) == evidence


# --- learning -------------------------------------------------------------------------------------


def a_compromised_bank(seed: int = 0) -> tuple[dict, np.ndarray, np.ndarray, Labels]:
    """400 shops over 90 days; each is compromised now and then, for 10 days sharp."""
    generator = np.random.default_rng(seed)
    rows, shops = 18_000, 200
    times = np.sort(generator.integers(0, 90 * DAY, rows))
    shop = generator.integers(0, shops, rows)
    began = generator.random((shops, 100)) < 0.005
    compromised = np.stack([began[:, max(0, d - 9) : d + 1].any(1) for d in range(10, 100)], axis=1)
    own = compromised[shop, times // DAY] & (generator.random(rows) < 0.7)
    elsewhere = generator.random(rows) < 0.002
    surprise = generator.exponential(size=rows) * np.where(elsewhere, 10, 1)
    return {"shop": shop}, times, surprise, known_since(times + 5 * DAY, own | elsewhere)


def test_planted_chains_are_found_again():
    keys, times, surprise, labels = a_compromised_bank()

    evidence, diagnostics = fit(keys, times, surprise, labels, 90 * DAY)

    (found,) = evidence.keys
    assert diagnostics["learnt"] == ["shop"]
    assert found.share == pytest.approx(0.7, abs=0.07)
    assert found.duration == pytest.approx(10, rel=0.25)
    assert found.prior == pytest.approx(0.049, rel=0.3)
    assert found.stages > 1
    assert found.other == pytest.approx(0.002, rel=0.5)
    assert found.showing < 0.1
    assert evidence.base == pytest.approx(0.002, rel=0.8)


def test_learnt_evidence_tells_frauds_better_than_the_defaults():
    keys, times, surprise, labels = a_compromised_bank(seed=3)
    targets = np.flatnonzero(times >= 60 * DAY)
    evidence, _ = fit(keys, times, surprise, labels, 60 * DAY)

    def mean_log_loss(model: Evidence) -> float:
        posterior = model.weigh(keys, times, surprise, labels, targets).posterior
        p = model.probability(surprise[targets], posterior)
        return float(-np.mean(np.log(np.where(labels.fraud[targets, 0], p, 1 - p))))

    assert mean_log_loss(evidence) < 0.8 * mean_log_loss(Evidence.assumed(["shop"]))


def test_labels_not_yet_known_do_not_teach():
    keys, times, surprise, labels = a_compromised_bank()
    later = labels.since >= 60 * DAY
    changed = Labels(labels.since, labels.until, np.where(later, ~labels.fraud, labels.fraud))

    found, expected = (fit(keys, times, surprise, each, 60 * DAY)[0] for each in (changed, labels))

    assert found == expected


def test_with_too_few_known_frauds_the_defaults_stand():
    keys, times, surprise, labels = a_compromised_bank()
    few = np.flatnonzero(labels.fraud[:, 0])[LEAST_FRAUDS - 1 :]
    labels.fraud[few] = False

    evidence, diagnostics = fit(keys, times, surprise, labels, 95 * DAY)

    assert evidence == Evidence.assumed(["shop"])
    assert diagnostics == {"known_frauds": LEAST_FRAUDS - 1, "learnt": []}


def test_reported_frauds_teach_the_same_where_nobody_says_what_is_genuine():
    keys, times, surprise, labels = a_compromised_bank()
    since = np.where(labels.fraud, labels.since, NEVER)

    found, _ = fit(keys, times, surprise, Labels(since, labels.until, labels.fraud), 50 * DAY)

    assert found == fit(keys, times, surprise, labels, 50 * DAY)[0]


def test_a_kind_that_no_known_fraud_has_keeps_its_defaults():
    keys, times, surprise, labels = a_compromised_bank()
    keys["device"] = np.full(len(times), -1)

    evidence, diagnostics = fit(keys, times, surprise, labels, 50 * DAY)

    assert evidence.keys[1] == KeyModel("device")
    assert diagnostics["learnt"] == ["shop"]
