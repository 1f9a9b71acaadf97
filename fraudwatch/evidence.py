"""Evidence over time: whether a customer, counterparty or entity is compromised, day by day.

Each key is a hidden chain over UTC days. A clean key is compromised with probability `hazard` a
day; compromised, it passes through `stages`, each left with probability stages / duration a day
(a mean of `duration` days: one stage forgets how long it has lasted, several do not), and is clean
again. Of its payments a share is then fraudulent on its account; any payment may be fraudulent on
another account, at the rate `other`. With s the calibrated surprise, in nats (p = exp(-s) is
uniform on normal rows), the surprise of a fraud relative to that of a normal row is

    LR(s; m) = (1 - m) + m a exp((1 - a) s),

for m of the frauds show and p is then Beta(a, 1) (the calibrator of Vovk & Wang 2021), and the
others look like normal rows. What one payment says, relative to a normal row of its surprise:

    seen                clean                       compromised
    known as fraud      other LR'                   share LR + (1 - share) other LR'
    known as genuine    1 - other                   (1 - share) (1 - other)
    nothing known       1 - other + other LR'       share LR + (1 - share) (1 - other + other LR')

A row at time t is told what was known strictly before t of rows strictly earlier than t, from
`days` days before its own day on, beginning at the chain's stationary state: the forward filter
gives P(compromised at t). With the posterior q of each kind of key the row's own odds are

    odds(s, q) = (base LR(s; 1) + sum q share LR(s; m)) / ((1 - base) prod (1 - q share))

and its score is (ln odds(s, q) - ln odds(0, q0)) / (1 - a), q0 the stationary state: the surprise
itself where all frauds show and nothing is known of any key, and s + a constant for large s
whatever is known, so that single large frauds keep their rank. Sums of log ratios are kept in
whole multiples of 2**-20 nats, hence exact: the order and the number of other rows are of no
account. Without labels the chain works on surprises alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fraudwatch.labels import FRAUD, GENUINE, NEVER, UNKNOWN, Labels
from shared.windows import DAY

CUSTOMER, COUNTERPARTY = "customer", "counterparty"
DAYS = 30  # of the window: chargebacks and compromises are matters of weeks
UNIT = 2.0**20  # parts of a nat in which log ratios are summed
UNUSUAL = float(np.log(100))  # nats: a payment more surprising than 99 % of the normal ones
_CHUNK = 1 << 14  # targets at a time: they stay in the cache

LEAST_FRAUDS = 50  # known; fewer do not tell six numbers a kind
MOST_KEYS = 150  # of those with a known fraud, and of the others; the rest stand in by weight
STAGES = (1, 4, 12)  # tried; a duration deviates by 100, 50 and 29 % of its mean
REPORTED = 0.9  # of the known frauds, by the age at which a row without a report is genuine
LEAST_BASE = 0.05  # of all frauds, those that no key accounts for
# Where the search begins and what it is drawn to, as the mean and deviation of a normal prior on
# the log (rates, days) or the log odds (shares): weak, a few frauds outweigh it.
PRIORS = {
    "hazard": (np.log(0.0005), 2.0),
    "duration": (np.log(14.0), 1.0),
    "share": (0.0, 1.5),
    "showing": (0.0, 1.5),
    "other": (np.log(0.002), 2.0),
    "other_showing": (0.0, 1.5),
}


@dataclass(frozen=True)
class KeyModel:
    """The chain of one kind of key. Without labels: one key in 125 compromised at any time.

    hazard: per day. duration: mean days compromised. share: of a compromised key's payments that
    are fraudulent for it; showing: of those frauds that surprise. other, other_showing: the same
    of the payments of a clean key.
    """

    kind: str
    hazard: float = 0.002
    duration: float = 4.0
    stages: int = 1
    share: float = 0.2
    showing: float = 1.0
    other: float = 0.003
    other_showing: float = 1.0

    @property
    def prior(self) -> float:
        """The stationary probability of being compromised."""
        return self.hazard * self.duration / (1 + self.hazard * self.duration)

    @property
    def start(self) -> np.ndarray:
        """(1 + stages, 1) the stationary state, clean first."""
        return np.append(1 - self.prior, np.full(self.stages, self.prior / self.stages))[:, None]

    def next_day(self, state: np.ndarray) -> np.ndarray:
        """(1 + stages, n) a day later: some leave each state for the next, the last for clean."""
        leaving = np.append(self.hazard, np.full(self.stages, self.stages / self.duration))
        moving = state * leaving[:, None]
        return state - moving + np.concatenate([moving[-1:], moving[:-1]])

    def log_ratios(self, surprise: np.ndarray, shape: float) -> tuple[np.ndarray, np.ndarray]:
        """What a payment says, by what is known: (n, 3) each, `UNKNOWN` last, log, clean first.

        The first is the log likelihood if the key is clean, the second the log of how many times
        likelier the payment is if it is compromised.
        """
        own = log_ratio(surprise, self.showing, shape)
        elsewhere = np.log(self.other) + log_ratio(surprise, self.other_showing, shape)
        shared, spared = np.log(self.share), np.log1p(-self.share)
        either = np.logaddexp(np.log1p(-self.other), elsewhere)
        genuine = np.full(len(surprise), np.log1p(-self.other))
        clean = np.column_stack([genuine, elsewhere, either])
        ratio = np.logaddexp(spared, shared + own[:, None] - clean)
        ratio[:, GENUINE] = spared
        return clean, ratio


@dataclass(frozen=True, eq=False)
class Weighed:
    """What is known of the keys of each target, by kind, at the target's moment.

    posterior: (targets, kinds) P(compromised); the stationary one where the key is unknown.
    confirmed: (targets, kinds) earlier payments of the window known as fraud by then. unusual:
    those of which nothing was known and whose surprise is among the highest hundredth.
    """

    posterior: np.ndarray
    confirmed: np.ndarray
    unusual: np.ndarray

    def part(self, rows: np.ndarray) -> Weighed:
        """Some of the targets, by position."""
        return Weighed(self.posterior[rows], self.confirmed[rows], self.unusual[rows])


@dataclass(frozen=True)
class Evidence:
    """The chains of all kinds of key, and the rate of frauds that no key accounts for.

    base: such frauds per payment. shape: `a` above, below 1; smaller where frauds surprise more.
    days: of the window, before the day of the row itself.
    """

    keys: tuple[KeyModel, ...]
    base: float = 0.001
    shape: float = 0.1
    days: int = DAYS

    @classmethod
    def assumed(cls, kinds: Sequence[str]) -> Evidence:
        """The defaults, for where too few labels are known to say better.

        A counterparty serves many customers: it is compromised as much more rarely, and few of
        its payments are then frauds. Some are merely visited for what is unusual elsewhere. An
        entity's payments are mostly its customer's own, which would else count twice.
        """
        quiet = {COUNTERPARTY} | (set(kinds) - {CUSTOMER} if CUSTOMER in kinds else set())
        hazard, share = KeyModel.hazard / 10, KeyModel.share / 10
        return cls(
            tuple(
                KeyModel(kind, hazard=hazard, share=share) if kind in quiet else KeyModel(kind)
                for kind in kinds
            )
        )

    @property
    def prior(self) -> np.ndarray:
        """(kinds,) the stationary probability of each kind."""
        return np.array([key.prior for key in self.keys])

    def weigh(
        self,
        keys: Mapping[str, np.ndarray],
        times: np.ndarray,
        surprise: np.ndarray,
        labels: Labels,
        targets: np.ndarray,
    ) -> Weighed:
        """Filters each target's keys up to its moment.

        keys: per kind (n,) integers, negative where unknown. times: (n,) int64 microseconds.
        surprise: (n,) calibrated, nats; NaN where not known. targets: positions of the rows asked
        about. The rows begin at least `days` whole UTC days before the first target's day.
        """
        past = _Past(times, surprise, labels)
        found = np.zeros((3, len(targets), len(self.keys)))
        for at, key in enumerate(self.keys):
            found[:, :, at] = _filtered(key, self, past, keys[key.kind], targets)
        return Weighed(*found)

    def log_odds(self, surprise: np.ndarray, posterior: np.ndarray) -> np.ndarray:
        """(n,) log odds that a payment is a fraud, by its surprise and its keys' posteriors."""
        total = np.log(self.base) + log_ratio(surprise, 1.0, self.shape)
        spared = np.full(len(surprise), np.log1p(-self.base))
        for key, found in zip(self.keys, posterior.T, strict=True):
            with np.errstate(divide="ignore"):  # a posterior of nought adds nothing
                share = np.log(found * key.share)
            total = np.logaddexp(total, share + log_ratio(surprise, key.showing, self.shape))
            spared += np.log1p(-found * key.share)
        return total - spared

    def anomaly_score(self, surprise: np.ndarray, posterior: np.ndarray) -> np.ndarray:
        """(n,) nats: the log odds above those of the most ordinary row of keys unheard of."""
        ordinary = self.log_odds(np.zeros(1), self.prior[None])
        return (self.log_odds(surprise, posterior) - ordinary) / (1 - self.shape)

    def parts(self, surprise: np.ndarray, posterior: np.ndarray) -> np.ndarray:
        """(n, kinds) nats that each kind adds to the score of the row alone, one at a time."""
        alone = np.broadcast_to(self.prior, posterior.shape)
        nothing = self.anomaly_score(surprise, alone)
        parts = np.empty(posterior.shape)
        for at in range(len(self.keys)):
            told = alone.copy()
            told[:, at] = posterior[:, at]
            parts[:, at] = self.anomaly_score(surprise, told) - nothing
        return parts

    def probability(self, surprise: np.ndarray, posterior: np.ndarray) -> np.ndarray:
        """(n,) P(fraud), by the row's surprise and its keys' posteriors."""
        return 1 / (1 + np.exp(-np.clip(self.log_odds(surprise, posterior), -700, 700)))

    # --- at rest ------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Evidence:
        return cls(**{**stored, "keys": tuple(KeyModel(**key) for key in stored["keys"])})


def log_ratio(surprise: np.ndarray, showing: float, shape: float) -> np.ndarray:
    """ln LR(s; m): how many times likelier such a surprise is for a fraud than for a normal row.

    A surprise that is not known (NaN) says nothing: 0.
    """
    unknown = np.isnan(surprise)
    shown = np.log(showing * shape) + (1 - shape) * np.where(unknown, 0.0, surprise)
    ratio = shown if showing == 1.0 else np.logaddexp(np.log1p(-showing), shown)
    return np.where(unknown, 0.0, ratio)


# --- the filter -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Past:
    """The rows and what is known of them; see `Evidence.weigh`."""

    times: np.ndarray
    surprise: np.ndarray
    labels: Labels


@dataclass(frozen=True, eq=False)
class _Learnt:
    """What was learnt of payments, by key and day of the payment, in order of the learning.

    code: (groups,) key and day in one number, rising. begin: (groups + 1,) where each group's
    events stand. moment: (events,) when it was learnt. running: (3, events + 1) sums before each
    event of log ratio (`UNIT`), payments known as fraud, and unusual ones of which nothing is.
    """

    code: np.ndarray
    begin: np.ndarray
    moment: np.ndarray
    running: np.ndarray

    @classmethod
    def of(
        cls,
        key: KeyModel,
        shape: float,
        past: _Past,
        codes: np.ndarray,
        rows: np.ndarray,
        frame: tuple[int, int],
    ) -> _Learnt:
        """Of some rows; a code is key * span + day - origin, with frame = (origin, span)."""
        origin, span = frame
        place, moment, change = _events(key, shape, past, rows, (origin + span) * DAY)
        group = (codes[rows].astype(np.int64) * span + past.times[rows] // DAY - origin)[place]
        order = np.lexsort((moment, group))
        running = np.zeros((3, len(order) + 1), dtype=np.int64)
        np.cumsum(change[order].T, axis=1, out=running[:, 1:])
        code, begin = np.unique(group[order], return_index=True)
        return cls(code, np.append(begin, len(order)), moment[order], running)

    def before(self, group: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """(3, n) sums over what was learnt of each group before the moment (bisection)."""
        low, high = self.begin[group], self.begin[group + 1]
        low = np.where(self.moment[high - 1] < moment, high, low)
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = (low + high) // 2
            below = (low < high) & (self.moment[np.minimum(middle, high - 1)] < moment)
            low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
        return self.running[:, low] - self.running[:, self.begin[group]]


def _filtered(
    key: KeyModel, evidence: Evidence, past: _Past, codes: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """(3, targets): posterior, confirmed, unusual, of one kind of key."""
    found = np.zeros((3, len(targets)))
    found[0] = key.prior
    asked = np.flatnonzero(codes[targets] >= 0)
    if not len(asked):
        return found
    code, moment = codes[targets[asked]].astype(np.int64), past.times[targets[asked]]
    origin = int(moment.min()) // DAY - evidence.days
    span = int(moment.max()) // DAY - origin + 1
    rows = _sharing(codes, code, past.times, (origin * DAY, int(moment.max())))
    learnt = _Learnt.of(key, evidence.shape, past, codes, rows, (origin, span))
    place = code * span + moment // DAY - origin
    order = np.argsort(place, kind="stable")  # neighbours are found in the cache
    for at in range(0, len(asked), _CHUNK):
        part = order[at : at + _CHUNK]
        today = place[part]
        found[:, asked[part]] = _walk(key, learnt, today, moment[part], evidence.days)
    return found


def _sharing(
    codes: np.ndarray, wanted: np.ndarray, times: np.ndarray, window: tuple[int, int]
) -> np.ndarray:
    """Places of the rows within [since, until) whose key is among the wanted ones."""
    asked = np.zeros(max(int(codes.max()), int(wanted.max())) + 2, dtype=bool)
    asked[wanted] = True  # the last place stays False: it is that of unknown keys
    inside = np.flatnonzero((times >= window[0]) & (times < window[1]))
    return inside[asked[np.maximum(codes[inside], -1)]]


def _walk(
    key: KeyModel, learnt: _Learnt, today: np.ndarray, moment: np.ndarray, days: int
) -> np.ndarray:
    """(3, targets): the forward filter through the days before each target's moment, and counts.

    today: code of the target's key and day.
    """
    group = np.searchsorted(learnt.code, today - days)
    after = np.searchsorted(learnt.code, today, side="right")
    heard = np.zeros(len(today), dtype=bool)
    state = np.repeat(key.start, len(today), axis=1)
    counts = np.zeros((2, len(today)))
    for back in range(days, -1, -1):
        here = np.flatnonzero(group < after)
        here = here[learnt.code[group[here]] == today[here] - back]
        sums = learnt.before(group[here], moment[here])
        counts[:, here] += sums[1:]
        group[here] += 1
        told = here[sums[0] != 0]  # a day of which nothing is known yet leaves no trace at all
        state[:, told] = _told(state[:, told], sums[0][sums[0] != 0] / UNIT)[0]
        heard[told] = True
        state = key.next_day(state) if back else state
    return np.vstack([np.where(heard, _total(state[1:]), key.prior), counts])


def _told(state: np.ndarray, ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The state after a log ratio of compromised to clean, and the log of what it was worth."""
    told = state * np.exp(np.minimum(ratio, 0))
    told[0] = state[0] * np.exp(np.minimum(-ratio, 0))
    total = _total(told)
    return told / total, np.log(total) + np.maximum(ratio, 0)


def _total(state: np.ndarray) -> np.ndarray:
    """Sum over the states, one after the other: the same in any batch."""
    total = state[0].copy()
    for stage in state[1:]:
        total += stage
    return total


def _events(
    key: KeyModel, shape: float, past: _Past, rows: np.ndarray, latest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(place in rows, moment, change): each payment, then each change of what is known of it.

    change: (events, 3) integers, as `_Learnt.running` sums them. None is at or after `latest`.
    """
    labels, moment = past.labels, past.times[rows]
    says = _says(key.log_ratios(past.surprise[rows], shape)[1], past.surprise[rows])
    events = [(np.arange(len(rows)), moment, says[:, UNKNOWN])]
    for slot in range(labels.since.shape[1]):
        since, until = labels.since[rows, slot], labels.until[rows, slot]
        known = np.flatnonzero((since < until) & (since < latest))
        state = labels.fraud[rows[known], slot].astype(np.int64)
        news = says[known, state] - says[known, UNKNOWN]
        ended = until[known] < latest
        events.append((known, since[known], news))
        events.append((known[ended], until[known][ended], -news[ended]))
    place, moments, changes = zip(*events, strict=True)
    return np.concatenate(place), np.concatenate(moments), np.concatenate(changes)


def _says(ratio: np.ndarray, surprise: np.ndarray) -> np.ndarray:
    """(n, 3 states, 3): log ratio in `UNIT`, known as fraud, unusual and nothing known."""
    says = np.zeros((*ratio.shape, 3), dtype=np.int64)
    says[:, :, 0] = np.rint(ratio * UNIT)
    says[:, FRAUD, 1] = 1
    says[:, UNKNOWN, 2] = np.nan_to_num(surprise) > UNUSUAL
    return says


# --- learning from known labels -------------------------------------------------------------------


def fit(
    keys: Mapping[str, np.ndarray],
    times: np.ndarray,
    surprise: np.ndarray,
    labels: Labels,
    moment: int,
) -> tuple[Evidence, dict[str, Any]]:
    """The chains that make the frauds known before a moment likeliest.

    Only rows old enough for a report teach, and those without one as genuine: taken as unknown,
    frauds that neither show nor are reported could be any number. Maximum a posteriori by a
    pattern search (Hooke & Jeeves 1961), kind by kind; all keys with a known fraud and as many
    others, up to `MOST_KEYS`, weighted to their number. With too few known frauds the defaults
    stand. keys, times, surprise and labels are as in `Evidence.weigh`.
    """
    assumed = Evidence.assumed(list(keys))
    rows, known = _ripe(times, labels, moment)
    frauds = int(known.sum())
    if frauds < LEAST_FRAUDS:
        return assumed, {"known_frauds": frauds, "learnt": []}
    shape = _shape(surprise[rows][known])
    models, own = list(assumed.keys), 0.0
    for at, model in enumerate(models):
        codes = keys[model.kind][rows]
        if np.sum(known & (codes >= 0)) >= LEAST_FRAUDS:
            sample = _Sample.of(codes, times[rows], surprise[rows], known)
            models[at] = _likeliest(sample, model, shape)
            own += models[at].prior * models[at].share
    rate = frauds / len(rows)
    base = max(rate - own, LEAST_BASE * rate)
    learnt = [
        model.kind for model, before in zip(models, assumed.keys, strict=True) if model != before
    ]
    evidence = replace(assumed, keys=tuple(models), base=base, shape=shape)
    return evidence, {"known_frauds": frauds, "learnt": learnt}


def _ripe(times: np.ndarray, labels: Labels, moment: int) -> tuple[np.ndarray, np.ndarray]:
    """(places of rows as old as `REPORTED` of the known frauds were when reported, known frauds)"""
    holds = (labels.since < moment) & (moment <= labels.until) & labels.fraud
    since = np.where(holds, labels.since, NEVER).min(1)
    fraud = (since < NEVER) & (times < moment)
    lag = int(np.quantile((since - times)[fraud], REPORTED)) if fraud.any() else 0
    rows = np.flatnonzero(times < moment - lag)
    return rows, fraud[rows]


def _shape(surprise: np.ndarray) -> float:
    """The `a` of known frauds: a mixture of Beta(a, 1) and the uniform, by EM."""
    known = surprise[~np.isnan(surprise)]
    shape, showing = 0.1, 0.5
    for _ in range(100):
        shown = np.exp(np.minimum(np.log(showing * shape) + (1 - shape) * known, 500))
        weight = shown / (shown + 1 - showing)
        shape = float(np.clip(weight.sum() / max((weight * known).sum(), 1e-9), 0.02, 0.5))
        showing = float(np.clip(weight.mean(), 0.01, 0.99))
    return shape


@dataclass(frozen=True, eq=False)
class _Sample:
    """Payments of some keys of one kind, and the grid of their days.

    surprise, known, place: (n,) nats, whether known as fraud, and where in the grid, key by key.
    shape: (keys, days) of the grid.
    weight: (keys,) how many keys each stands for.
    """

    surprise: np.ndarray
    known: np.ndarray
    place: np.ndarray
    shape: tuple[int, int]
    weight: np.ndarray

    @classmethod
    def of(
        cls, codes: np.ndarray, times: np.ndarray, surprise: np.ndarray, known: np.ndarray
    ) -> _Sample:
        """The rows of all keys with a known fraud and as many others, or of evenly many."""
        rows = np.flatnonzero(codes >= 0)
        keys, key = np.unique(codes[rows], return_inverse=True)
        hit = np.bincount(key, known[rows], len(keys)) > 0
        weight = np.zeros(len(keys))
        for of_kind in (np.flatnonzero(hit), np.flatnonzero(~hit)):
            drawn = of_kind[:: -(-len(of_kind) // MOST_KEYS) or 1]
            weight[drawn] = len(of_kind) / max(len(drawn), 1)
        kept = weight[key] > 0
        rows, key = rows[kept], np.unique(key[kept], return_inverse=True)[1]
        day = times[rows] // DAY - times.min() // DAY
        shape = (int(np.sum(weight > 0)), int(day.max(initial=0)) + 1)
        return cls(surprise[rows], known[rows], key * shape[1] + day, shape, weight[weight > 0])

    def log_likelihood(self, model: KeyModel, shape: float) -> float:
        """Of all that is known, relative to normal rows of the same surprises."""
        clean, ratio = model.log_ratios(self.surprise, shape)
        cell = np.arange(len(self.known)), self.known.astype(np.int64)
        total, ratios = (
            np.bincount(self.place, values[cell], np.prod(self.shape)).reshape(self.shape).T.copy()
            for values in (clean, ratio)
        )
        worth = total.sum(0)
        state = np.repeat(model.start, self.shape[0], axis=1)
        for today in ratios:
            state, found = _told(state, today)
            worth += found
            state = model.next_day(state)
        return float(self.weight @ worth)


def _likeliest(sample: _Sample, model: KeyModel, shape: float) -> KeyModel:
    """The model of the highest posterior, over the numbers of stages too."""
    means, deviations = np.array(list(PRIORS.values())).T
    point, best, likeliest = means, -np.inf, model
    for stages in STAGES:
        staged = replace(model, stages=stages)

        def value(at: np.ndarray, staged: KeyModel = staged) -> float:
            distance = (((at - means) / deviations) ** 2).sum() / 2
            return sample.log_likelihood(_at(staged, at), shape) - float(distance)

        point, found = _climb(value, point)
        if found > best:
            best, likeliest = found, _at(staged, point)
    return likeliest


def _at(model: KeyModel, point: np.ndarray) -> KeyModel:
    """The model of a point of the search, kept where the chain is one."""
    values: dict[str, Any] = {
        name: float(np.exp(x) if name in ("hazard", "duration", "other") else 1 / (1 + np.exp(-x)))
        for name, x in zip(PRIORS, point, strict=True)
    }
    values["hazard"] = min(values["hazard"], 0.5)
    values["other"] = min(values["other"], 0.5)
    values["duration"] = max(values["duration"], float(model.stages))
    for name in ("share", "showing", "other_showing"):
        values[name] = min(max(values[name], 0.001), 0.999)
    return replace(model, **values)


def _climb(value: Callable[[np.ndarray], float], start: np.ndarray) -> tuple[np.ndarray, float]:
    """A maximum near the start: one coordinate at a time, each with a step of its own."""
    at, best = start.copy(), value(start)
    steps = np.ones(len(at))
    for _ in range(30):
        for axis in range(len(at)):
            for sign in (1, -1):
                tried = at.copy()
                tried[axis] += sign * steps[axis]
                found = value(tried)
                if found > best:
                    at, best = tried, found
                    steps[axis] *= 1.5 * sign
                    break
            else:
                steps[axis] /= 2
        if np.abs(steps).max() < 0.1:
            break
    return at, best
