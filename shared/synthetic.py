"""A small world with planted segments and planted fraud, made from a seed.

Every number here was set for realism before any detector was tuned; its reason stands beside it.
What is planted is kept apart from the two source tables, so nothing that a model reads tells it:
the truth is for `planted_found` and `adjusted_rand_index` alone.

    people ─▶ payments (day, hour, category, place, merchant, amount) ─▶ frauds ─▶ defects ─▶ tables
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

START = pd.Timestamp("2025-03-03")  # a Monday, so that day 0 of a world is day 0 of a week
DAY = 86_400
NIGHT_ENDS = 5  # hours 0 to 4 are the night: shops are shut and most people sleep
NEVER_BEFORE = 6.0  # people who sleep pay from this hour to midnight

VISIBLE_KINDS = ("unusual_amount", "burst", "new_place", "takeover_at_night")
KINDS = (*VISIBLE_KINDS, "compromised_counterparty")

# What an analyst would point at, by the names of the features of fraudwatch. Of the first payment
# of a burst nothing can be seen, and of a compromised counterparty nothing at all.
_AMOUNT, _TEMPO = ("amount_ratio", "amount_relative"), ("count_1h", "count_1d", "days_since_last")
PLANTED_FEATURES: dict[str, tuple[str, ...]] = {
    "unusual_amount": _AMOUNT,
    "burst": _TEMPO,
    "new_place": ("new_country", "country", "new_counterparty", *_AMOUNT),
    "takeover_at_night": ("time_of_day", "new_counterparty", "channel", *_AMOUNT, *_TEMPO),
    "compromised_counterparty": (),
}

# Types of the source tables as SQL wants them; amount and tx_id hold the planted defects too, which
# SQLite stores as they are. That is why tx_id cannot be a primary key, as in many exports.
SQL_TYPES: dict[str, dict[str, str]] = {
    "customers": {
        "client_id": "INTEGER PRIMARY KEY",
        "age": "INTEGER",
        "region": "TEXT",
        "product": "TEXT",
        "credit_limit": "NUMERIC",
    },
    "transactions": {
        "tx_id": "INTEGER",
        "booked_at": "TEXT",
        "client_id": "INTEGER",
        "merchant_id": "TEXT",
        "amount": "NUMERIC",
        "currency": "TEXT",
        "channel": "TEXT",
        "country": "TEXT",
        "category": "TEXT",
        "card_id": "TEXT",
    },
}

CATEGORIES = (
    "transport", "coffee", "groceries", "household", "clothing", "fuel", "restaurants",
    "electronics", "games", "office", "hotels", "flights",
)  # fmt: skip
# Log factor of a category on the customer's typical amount: a coffee is cheaper than a flight.
CATEGORY_LEVEL = np.array([-0.3, -0.5, 0.1, 0.2, 0.3, 0.4, 0.0, 0.6, -0.2, 0.2, 0.4, 0.6])
CATEGORY_MERCHANTS = np.array([6, 9, 12, 9, 11, 7, 14, 8, 7, 7, 5, 5]) / 100  # share of the shops
# Bought from a sofa or not: added to the logit of the customer's share of online payments.
CATEGORY_ONLINE = np.array([-1.5, -4, -1.5, 0, 0.5, -4, -0.5, 0.8, 2.5, 0.5, 0.5, 1.5])
COUNTRIES = ("DE", "FR", "IT", "ES", "NL", "AT", "US", "GB", "TR", "TH", "BR", "AE", "PL")
EURO = ("DE", "FR", "IT", "ES", "NL", "AT")  # the rest is billed in dollars
SOLD_ABROAD = ("transport", "coffee", "clothing", "restaurants", "hotels")

FRAUD_SHARE = 0.005  # of the payments; card fraud is rarer, reviewed streams come near this
QUIET_DAYS = 14  # no fraud before: "the customer's own usual" must exist
HISTORY = 10  # payments of a victim before the fraud, for the same reason
MINIMUM_PER_KIND = 8  # the smallest burst, so that small worlds hold every kind
DEFECTS = ("no_customer", "no_time", "bad_time", "text_amount", "no_amount", "duplicate_id")
DEFECT_SHARE = 8e-5  # of each: 8 rows in 100,000, fewer than 0.2 % in all


@dataclass(frozen=True)
class Segment:
    """How a kind of customer behaves; each customer's own parameters vary around these."""

    name: str
    share: float
    payments_per_day: float
    typical_amount: float
    week: tuple[float, ...]  # relative weight of Monday to Sunday
    hours: tuple[tuple[float, float, float], ...]  # (hour, spread in hours, weight)
    online: float  # share of payments made online, before the category
    abroad: float  # share of days spent abroad
    night: float  # share of payments moved into the night (0 to 4)
    novelty: float  # share of payments outside the favourite shops
    refunds: float  # share of payments that are paid back
    age: tuple[float, float]  # mean and spread, overlapping between segments
    categories: dict[str, float]


# Shares are near those of retail banks; rates give about 100,000 payments in 120 days.
SEGMENTS = (
    Segment(
        "daily_commuters", 0.24, 0.86, 9.0,
        (1.15, 1.15, 1.15, 1.15, 1.2, 0.65, 0.55),
        ((7.6, 0.8, 0.45), (12.6, 1.0, 0.2), (17.8, 1.1, 0.35)),
        0.10, 0.0, 0.003, 0.05, 0.003, (41, 12),
        {"transport": 0.34, "coffee": 0.26, "groceries": 0.2, "restaurants": 0.15, "games": 0.05},
    ),
    Segment(
        "weekend_families", 0.24, 0.40, 58.0,
        (0.55, 0.55, 0.55, 0.65, 0.95, 2.2, 1.55),
        ((10.8, 1.6, 0.5), (16.2, 2.0, 0.5)),
        0.15, 0.0, 0.002, 0.10, 0.02, (42, 9),
        {"groceries": 0.42, "household": 0.2, "clothing": 0.14, "fuel": 0.14, "restaurants": 0.1},
    ),
    Segment(
        "night_owls_online", 0.20, 0.56, 18.0,
        (0.8, 0.8, 0.85, 0.95, 1.2, 1.3, 1.1),
        ((21.5, 1.8, 0.7), (15.0, 2.5, 0.3)),
        0.65, 0.0, 0.27, 0.15, 0.04, (29, 8),
        {"games": 0.36, "restaurants": 0.24, "clothing": 0.18, "electronics": 0.12, "coffee": 0.1},
    ),
    Segment(
        "rare_travellers", 0.12, 0.20, 150.0,
        (1.0, 0.9, 0.9, 1.0, 1.1, 1.1, 1.0),
        ((10.0, 2.0, 0.35), (14.0, 2.5, 0.3), (19.5, 1.8, 0.35)),
        0.30, 0.55, 0.004, 0.35, 0.01, (48, 12),
        {"hotels": 0.32, "flights": 0.22, "restaurants": 0.3, "transport": 0.08, "clothing": 0.08},
    ),
    Segment(
        "weekday_businesses", 0.20, 0.46, 30.0,
        (1.4, 1.4, 1.35, 1.35, 1.2, 0.2, 0.1),
        ((9.2, 1.0, 0.78), (13.8, 1.4, 0.22)),
        0.30, 0.0, 0.002, 0.10, 0.01, (46, 11),
        {"office": 0.4, "fuel": 0.2, "restaurants": 0.15, "electronics": 0.15, "transport": 0.1},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """Two source tables as a bank has them, and what was planted, apart from them.

    `customers` and `transactions` carry the columns of `SQL_TYPES`; `booked_at` is naive UTC text
    'YYYY-MM-DD HH:MM:SS'; `amount` is an object column because a few rows hold text or nothing.
    """

    customers: pd.DataFrame
    transactions: pd.DataFrame
    truth_segments: pd.DataFrame  # client_id, segment
    truth_frauds: pd.DataFrame  # tx_id, kind, event (payments of one attack share it)
    truth_defects: pd.DataFrame  # tx_id, problem: rows that the quality gate must find


@dataclass(frozen=True)
class _People:
    """One entry per customer; matrices are (customers, categories)."""

    segment: np.ndarray
    rate: np.ndarray
    log_amount: np.ndarray
    spread: np.ndarray
    weekend: np.ndarray
    hour_shift: np.ndarray
    online_logit: np.ndarray
    contactless: np.ndarray
    night: np.ndarray
    novelty: np.ndarray
    categories: np.ndarray
    first_day: np.ndarray
    cards: np.ndarray

    def __len__(self) -> int:
        return len(self.segment)


@dataclass(frozen=True)
class _Market:
    """One entry per merchant, by index; `popularity` is relative."""

    category: np.ndarray
    country: np.ndarray
    online: np.ndarray
    popularity: np.ndarray
    log_level: np.ndarray

    def pool(self, category: int, online: bool) -> np.ndarray:
        """Merchants at home that sell a category through a channel."""
        here = (self.category == category) & (self.country == 0) & (self.online == online)
        return np.flatnonzero(here)

    def draw(self, generator: np.random.Generator, pool: np.ndarray, size: int) -> np.ndarray:
        """Merchants of a pool, the popular ones more often."""
        weight = self.popularity[pool]
        return generator.choice(pool, size=size, p=weight / weight.sum())


def world(seed: int, *, customers: int = 1500, days: int = 120, merchants: int = 600) -> World:
    """The whole world, a function of its arguments alone.

    The defaults make about 100,000 payments. At least 40 days and 100 customers are needed for a
    history before the first fraud and a victim of its own for each attack.
    """
    if customers < 100 or days < 40 or merchants < 300:
        raise ValueError(
            f"A world needs at least 100 customers, 40 days and 300 merchants, "
            f"got {customers}, {days} and {merchants}"
        )
    generator = np.random.default_rng(seed)
    people = _people(generator, customers, days)
    market = _market(generator, merchants)
    ordinary = _payments(generator, people, market, days)
    payments = _with_frauds(generator, ordinary, market, days)
    client_ids = np.sort(generator.choice(900_000, customers, replace=False) + 100_000)
    table = _table(generator, payments, market, client_ids)
    defects = _plant_defects(generator, table)
    return World(
        customers=_customer_table(generator, people, client_ids),
        transactions=_transaction_table(table, defects),
        truth_segments=pd.DataFrame(
            {"client_id": client_ids, "segment": [SEGMENTS[s].name for s in people.segment]}
        ),
        truth_frauds=table.loc[table["kind"] != "", ["tx_id", "kind", "event"]].reset_index(
            drop=True
        ),
        truth_defects=defects,
    )


# ── people and shops ────────────────────────────────────────────────────────────────────────────


def _per_segment(field: str) -> np.ndarray:
    return np.array([getattr(segment, field) for segment in SEGMENTS], dtype=float)


def _people(generator: np.random.Generator, n: int, days: int) -> _People:
    """Customers whose own habits vary around those of their segment."""
    shares = np.cumsum(_per_segment("share"))
    segment = generator.permutation(np.searchsorted(shares, (np.arange(n) + 0.5) / n))
    noise = generator.normal(size=(6, n))
    online = _per_segment("online")[segment]
    night = _per_segment("night")[segment]
    return _People(
        segment=segment,
        rate=_per_segment("payments_per_day")[segment] * np.exp(0.35 * noise[0]),
        log_amount=np.log(_per_segment("typical_amount"))[segment] + 0.35 * noise[1],
        spread=0.42 * np.exp(0.15 * noise[2]),  # amounts of one person in one category
        weekend=np.exp(0.2 * noise[3]),
        hour_shift=0.7 * noise[4],  # early birds and late risers
        online_logit=np.log(online / (1 - online)) + 0.4 * noise[5],
        contactless=generator.beta(4, 3, n),
        night=generator.beta(10 * night, 10 * (1 - night)),
        novelty=generator.beta(*(20 * np.array([f := _per_segment("novelty")[segment], 1 - f]))),
        categories=_tastes(generator, segment),
        # 6 % opened their account during the span, so that "too new" customers exist
        first_day=np.where(generator.random(n) < 0.06, generator.integers(1, days // 2, n), 0),
        cards=1 + (generator.random(n) < 0.2),  # one in five has a second card
    )


def _tastes(generator: np.random.Generator, segment: np.ndarray) -> np.ndarray:
    """(customers, categories) cumulative shares: Dirichlet around the segment's own mix."""
    mix = np.array([[s.categories.get(c, 0.0) for c in CATEGORIES] for s in SEGMENTS])
    mix = 0.94 * mix + 0.06 / len(CATEGORIES)  # everybody buys everything now and then
    weights = generator.gamma(20 * mix[segment])
    return np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)


def _market(generator: np.random.Generator, n: int) -> _Market:
    """A fifth of the shops is abroad; at home two fifths sell online, popularity is Zipf-like."""
    abroad = np.arange(n) < n // 5
    category = generator.choice(len(CATEGORIES), size=n, p=CATEGORY_MERCHANTS)
    sold = np.array([CATEGORIES.index(name) for name in SOLD_ABROAD])
    category[abroad] = generator.choice(sold, size=abroad.sum())
    at_home = np.flatnonzero(~abroad)
    category[at_home[: 2 * len(CATEGORIES)]] = np.tile(np.arange(len(CATEGORIES)), 2)
    online = ~abroad & (generator.random(n) < 0.4)
    online[at_home[: len(CATEGORIES)]] = True  # no category lacks a shop of either sort
    online[at_home[len(CATEGORIES) : 2 * len(CATEGORIES)]] = False
    country = np.where(abroad, 1 + np.arange(n) % (len(COUNTRIES) - 1), 0)
    return _Market(
        category=category,
        country=country,
        online=online,
        popularity=(1.0 + generator.permutation(n)) ** -0.6,
        log_level=generator.normal(0, 0.2, n),  # dear and cheap shops
    )


# ── ordinary payments ───────────────────────────────────────────────────────────────────────────


def _payments(
    generator: np.random.Generator, people: _People, market: _Market, days: int
) -> pd.DataFrame:
    """One row per payment: person, second since the start, merchant, amount, channel, card."""
    person, day = _person_days(generator, people, days)
    second = day * DAY + _seconds_of_day(generator, people, person)
    merchant = _merchants(generator, people, market, person, day)
    amount = _amounts(generator, people, market, person, merchant)
    rows = pd.DataFrame(
        {
            "person": person,
            "second": second,
            "merchant": merchant,
            "amount": amount,
            "channel": _channels(generator, people, market, person, merchant),
            "card": np.where(generator.random(len(person)) < 0.2, people.cards[person], 1),
        }
    )
    rows = pd.concat(
        [rows, _companions(generator, rows), _refunds(generator, people, rows)], ignore_index=True
    )
    rows = rows[rows["second"] < days * DAY]
    return rows.sort_values(["person", "second"], kind="stable", ignore_index=True)


def _person_days(
    generator: np.random.Generator, people: _People, days: int
) -> tuple[np.ndarray, np.ndarray]:
    """Person and day of each payment: Poisson with weekday, payday, and busy and quiet weeks."""
    weekday = np.arange(days) % 7
    weight = np.array([segment.week for segment in SEGMENTS])
    weight = (weight / weight.mean(axis=1, keepdims=True))[people.segment][:, weekday]
    weight = np.where(weekday >= 5, weight * people.weekend[:, None], weight)
    payday = (START + pd.to_timedelta(np.arange(days), unit="D")).day <= 5
    busy = generator.gamma(8.0, 1 / 8.0, size=(len(people), days // 7 + 1))  # mean 1
    expected = people.rate[:, None] * weight * np.where(payday, 1.15, 0.97)
    expected *= busy[:, np.arange(days) // 7] * (np.arange(days) >= people.first_day[:, None])
    count = generator.poisson(expected)
    person, day = np.nonzero(count)
    repeats = count[person, day]
    return np.repeat(person, repeats), np.repeat(day, repeats)


def _seconds_of_day(
    generator: np.random.Generator, people: _People, person: np.ndarray
) -> np.ndarray:
    """Hours from the segment's modes, folded into the waking day; the night by its own share."""
    n = len(person)
    segment = people.segment[person]
    hour = np.empty(n)
    for index, kind in enumerate(SEGMENTS):
        here = np.flatnonzero(segment == index)
        centre, spread, weight = np.array(kind.hours).T
        mode = generator.choice(len(weight), size=len(here), p=weight)
        hour[here] = centre[mode] + spread[mode] * generator.normal(size=len(here))
    hour += people.hour_shift[person]
    hour = NEVER_BEFORE + np.abs(hour - NEVER_BEFORE)
    hour = np.where(hour >= 24, 47.999 - hour, hour)
    at_night = generator.random(n) < people.night[person]
    hour = np.where(at_night, NIGHT_ENDS * generator.beta(1.2, 2.0, n), hour)
    return np.clip(hour * 3600, 0, DAY - 1).astype(np.int64)


def _countries(generator: np.random.Generator, people: _People, days: int) -> np.ndarray:
    """(customers, days) country of each day: travellers by trips, others one holiday in twelve."""
    n, blocks = len(people), days // 5 + 1
    # Travellers know five countries and stay five days.
    known = generator.permuted(np.tile(np.arange(1, len(COUNTRIES)), (n, 1)), axis=1)[:, :5]
    away = generator.random((n, blocks)) < _per_segment("abroad")[people.segment][:, None]
    trip = known[np.arange(n)[:, None], generator.integers(0, 5, (n, blocks))]
    country = np.where(away, trip, 0)[:, np.arange(days) // 5]
    # One customer in twelve has a week's holiday within four months, in a country new to them.
    leaves = np.where(generator.random(n) < days / 120 / 12, generator.integers(0, days, n), days)
    holiday = (np.arange(days) >= leaves[:, None]) & (np.arange(days) < leaves[:, None] + 7)
    return np.where(holiday & (country == 0), known[:, :1], country)


def _merchants(
    generator: np.random.Generator,
    people: _People,
    market: _Market,
    person: np.ndarray,
    day: np.ndarray,
) -> np.ndarray:
    """Merchant of each payment: a favourite of the person, or any that sells the category."""
    n = len(person)
    category = (people.categories[person] < generator.random((n, 1))).sum(axis=1)
    category = np.minimum(category, len(CATEGORIES) - 1)
    logit = people.online_logit[person] + CATEGORY_ONLINE[category]
    online = generator.random(n) < 1 / (1 + np.exp(-logit))
    explores = generator.random(n) < people.novelty[person]
    favourite = generator.choice(3, size=n, p=(0.6, 0.27, 0.13))
    merchant = np.empty(n, dtype=np.int64)
    for kind in range(len(CATEGORIES)):
        for remote in (False, True):
            here = np.flatnonzero((category == kind) & (online == remote))
            pool = market.pool(kind, remote)
            known = market.draw(generator, pool, 3 * len(people)).reshape(-1, 3)
            usual = known[person[here], favourite[here]]
            merchant[here] = np.where(
                explores[here], market.draw(generator, pool, len(here)), usual
            )
    country = _countries(generator, people, int(day.max()) + 1)[person, day]
    for place in range(1, len(COUNTRIES)):
        here = np.flatnonzero((country == place) & ~online)
        pool = np.flatnonzero(market.country == place)
        merchant[here] = market.draw(generator, pool, len(here))
    return merchant


def _amounts(
    generator: np.random.Generator,
    people: _People,
    market: _Market,
    person: np.ndarray,
    merchant: np.ndarray,
) -> np.ndarray:
    """Log-normal amounts with a heavy tail: one purchase in 70 is three times as large."""
    n = len(person)
    large = (generator.random(n) < 1 / 70) * generator.normal(np.log(3.0), 0.3, n)
    level = people.log_amount[person] + CATEGORY_LEVEL[market.category[merchant]]
    level += market.log_level[merchant] + people.spread[person] * generator.normal(size=n)
    return np.maximum(np.round(np.exp(level + large), 2), 0.5)


def _channels(
    generator: np.random.Generator,
    people: _People,
    market: _Market,
    person: np.ndarray,
    merchant: np.ndarray,
) -> np.ndarray:
    touch = generator.random(len(person)) < people.contactless[person]
    return np.where(market.online[merchant], "online", np.where(touch, "contactless", "chip"))


def _companions(generator: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    """One payment in fifty is followed within minutes by a smaller one at the same shop."""
    again = rows[generator.random(len(rows)) < 0.02].copy()
    again["second"] += generator.integers(60, 400, len(again))
    again["amount"] = np.maximum(
        np.round(again["amount"] * generator.uniform(0.2, 0.9, len(again)), 2), 0.5
    )
    return again


def _refunds(generator: np.random.Generator, people: _People, rows: pd.DataFrame) -> pd.DataFrame:
    """Payments given back whole, in shop hours, one day to two weeks later."""
    share = _per_segment("refunds")[people.segment[rows["person"]]]
    back = rows[generator.random(len(rows)) < share].copy()
    later = back["second"] // DAY + generator.integers(1, 15, len(back))
    back["second"] = later * DAY + generator.integers(9 * 3600, 20 * 3600, len(back))
    back["amount"] = -back["amount"]
    return back


# ── planted frauds ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Victim:
    """A customer at the moment of an attack: what was usual until then."""

    person: int
    day: int
    past: pd.DataFrame  # payments (not refunds) before the day
    merchants: np.ndarray  # ever used, later too, so that "never used" stays true
    countries: np.ndarray

    @property
    def usual_amount(self) -> float:
        return float(self.past["amount"].median())

    def rows(
        self, second: ArrayLike, merchant: ArrayLike, amount: np.ndarray, channel: ArrayLike
    ) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "person": self.person,
                "second": np.asarray(second, dtype=np.int64),
                "merchant": merchant,
                "amount": np.round(amount, 2),
                "channel": channel,
                "card": int(self.past["card"].iloc[-1]),
            }
        )


def _unusual_amount(
    generator: np.random.Generator, victim: _Victim, market: _Market, size: int
) -> pd.DataFrame:
    """A usual shop, hour and channel; 6 to 30 times the usual amount, mostly about 12 times."""
    template = victim.past.iloc[[int(generator.integers(len(victim.past)))]]
    second = victim.day * DAY + template["second"].to_numpy() % DAY
    factor = np.clip(np.exp(generator.normal(np.log(12), 0.4, 1)), 6, 30)
    return victim.rows(
        second,
        template["merchant"].to_numpy(),
        victim.usual_amount * factor,
        template["channel"].to_numpy(),
    )


def _burst(
    generator: np.random.Generator, victim: _Victim, market: _Market, size: int
) -> pd.DataFrame:
    """Card testing: payments of ordinary size at two online shops, 20 to 90 seconds apart."""
    begins = victim.day * DAY + int(victim.past["second"].sample(random_state=generator).iloc[0])
    begins = victim.day * DAY + min(begins % DAY, DAY - 3600)  # the burst ends within the day
    second = begins + np.cumsum(generator.integers(20, 91, size))
    shops = market.draw(generator, np.flatnonzero(market.online), 2)
    amount = generator.choice(victim.past["amount"].to_numpy(), size)
    amount = np.maximum(amount * np.exp(generator.normal(0, 0.15, size)), 0.5)
    return victim.rows(second, generator.choice(shops, size), amount, "online")


def _new_place(
    generator: np.random.Generator, victim: _Victim, market: _Market, size: int
) -> pd.DataFrame:
    """A copied card in a shop and a country never used; 1.5 to 5 times the usual amount."""
    unused = np.setdiff1d(np.arange(1, len(COUNTRIES)), victim.countries)
    country = generator.choice(unused)
    pool = np.setdiff1d(np.flatnonzero(market.country == country), victim.merchants)
    second = victim.day * DAY + generator.integers(8 * 3600, 23 * 3600, 1)
    factor = np.clip(np.exp(generator.normal(np.log(2.5), 0.3, 1)), 1.5, 5)
    return victim.rows(
        second, market.draw(generator, pool, 1), victim.usual_amount * factor, "chip"
    )


def _takeover_at_night(
    generator: np.random.Generator, victim: _Victim, market: _Market, size: int
) -> pd.DataFrame:
    """A sleeper's account emptied online between 1 and 5 at shops new to it, at 1.5 to 6 times."""
    pool = np.setdiff1d(np.flatnonzero(market.online), victim.merchants)
    begins = victim.day * DAY + int(generator.integers(3600, 3 * 3600))
    second = begins + np.cumsum(generator.integers(120, 1200, size))
    factor = np.clip(np.exp(generator.normal(np.log(2.5), 0.35, size)), 1.5, 6)
    shops = generator.choice(pool, size, replace=False)
    return victim.rows(second, shops, victim.usual_amount * factor, "online")


Attack = Callable[[np.random.Generator, _Victim, _Market, int], pd.DataFrame]
# The attack, and how many payments it makes: at least and at most.
ATTACKS: dict[str, tuple[Attack, int, int]] = {
    "unusual_amount": (_unusual_amount, 1, 1),
    "burst": (_burst, 8, 12),
    "new_place": (_new_place, 1, 1),
    "takeover_at_night": (_takeover_at_night, 4, 6),
}


def _with_frauds(
    generator: np.random.Generator, ordinary: pd.DataFrame, market: _Market, days: int
) -> pd.DataFrame:
    """The payments with the five kinds planted, equally by kind; columns kind and event added."""
    wanted = max(MINIMUM_PER_KIND, round(FRAUD_SHARE * len(ordinary) / len(KINDS)))
    ordinary = ordinary.assign(kind="", event=-1)
    _mark_compromised(generator, ordinary, wanted, days)
    parts, event, free = [ordinary], int(ordinary["event"].max()) + 1, _Candidates(ordinary, market)
    for kind, (attack, least, most) in ATTACKS.items():
        sizes = _event_sizes(generator, wanted, least, most)
        for size, day in zip(sizes, _event_days(generator, len(sizes), days), strict=True):
            victim = free.take(generator, day, sleeps=kind == "takeover_at_night")
            rows = attack(generator, victim, market, size)
            parts.append(rows.assign(kind=kind, event=event))
            event += 1
    return pd.concat(parts, ignore_index=True)


def _event_sizes(generator: np.random.Generator, total: int, least: int, most: int) -> list[int]:
    """Sizes within [least, most] with the wanted sum, where one exists; as even as chance lets."""
    ideal = 2 * total / (least + most)
    possible = [n for n in range(1, total + 1) if n * least <= total <= n * most]
    events = min(possible or [max(1, round(ideal))], key=lambda n: abs(n - ideal))
    sizes = np.full(events, total // events)
    sizes[: total % events] += 1
    for _ in range(events):  # move one payment between two events: the sum stays
        giver, taker = generator.integers(events, size=2)
        if sizes[giver] > least and sizes[taker] < most and giver != taker:
            sizes[giver] -= 1
            sizes[taker] += 1
    return [int(size) for size in sizes]


def _event_days(generator: np.random.Generator, events: int, days: int) -> list[int]:
    """Days spread evenly over the span (stratified), so that every month has its share."""
    edges = np.linspace(QUIET_DAYS, days, events + 1)
    return [int(day) for day in generator.permutation(generator.uniform(edges[:-1], edges[1:]))]


class _Candidates:
    """Who may be attacked: each customer once, with a history and still active."""

    def __init__(self, payments: pd.DataFrame, market: _Market) -> None:
        self.market = market
        self.purchases = {
            int(person): rows for person, rows in payments[payments["amount"] > 0].groupby("person")
        }
        night = payments["second"] % DAY < NIGHT_ENDS * 3600
        self.awake = set(payments.loc[night, "person"])
        self.free = sorted(self.purchases)

    def take(self, generator: np.random.Generator, day: int, *, sleeps: bool) -> _Victim:
        """A customer for an attack on a day; `sleeps` asks for one who never pays at night."""
        for index in generator.permutation(len(self.free)):
            person = self.free[index]
            rows = self.purchases[person]
            past = rows[rows["second"] < day * DAY]
            active = len(past) >= HISTORY and past["second"].iloc[-1] >= (day - 21) * DAY
            if active and not (sleeps and person in self.awake):
                del self.free[index]
                merchants = rows["merchant"].unique()
                return _Victim(
                    person, day, past, merchants, np.unique(self.market.country[merchants])
                )
        raise ValueError(f"No customer with {HISTORY} payments is left for an attack on day {day}")


def _mark_compromised(
    generator: np.random.Generator, payments: pd.DataFrame, wanted: int, days: int
) -> None:
    """Marks ordinary payments at a busy merchant during ten days: only a label can tell them."""
    bought = payments[payments["amount"] > 0]
    busiest = bought["merchant"].value_counts().index[: max(20, bought["merchant"].nunique() // 4)]
    # Steps of the golden ratio: windows spread evenly however many are needed.
    phase = (generator.random() + 0.618034 * np.arange(len(busiest))) % 1
    starts = QUIET_DAYS + phase * (days - 10 - QUIET_DAYS)
    day = bought["second"] // DAY
    left = wanted
    for event, (merchant, start) in enumerate(
        zip(generator.permutation(busiest), starts, strict=True)
    ):
        here = (bought["merchant"] == merchant) & (day >= start) & (day < start + 10)
        rows = bought.index[here]
        # Six payments in ten are misused, and one merchant is found out after thirty.
        taken = generator.permutation(rows)[: min(left, 30, -(-len(rows) * 6 // 10))]
        payments.loc[taken, ["kind", "event"]] = ["compromised_counterparty", event]
        left -= len(taken)
        if left == 0:
            return


# ── tables ──────────────────────────────────────────────────────────────────────────────────────


def _table(
    generator: np.random.Generator,
    payments: pd.DataFrame,
    market: _Market,
    client_ids: np.ndarray,
) -> pd.DataFrame:
    """The payments as the bank books them, in order of time, with its own keys."""
    rows = payments.sort_values(["second", "person"], kind="stable", ignore_index=True)
    merchant, country = rows["merchant"], market.country[rows["merchant"]]
    names = np.array([f"M{number:04d}" for number in generator.permutation(len(market.category))])
    numbers = np.sort(generator.choice(90_000_000, len(client_ids), replace=False))
    moment = START + pd.to_timedelta(rows["second"], unit="s")
    client = client_ids[rows["person"]]
    return pd.DataFrame(
        {
            "tx_id": np.arange(len(rows)) + 1_000_001,
            "booked_at": moment.dt.strftime("%Y-%m-%d %H:%M:%S").astype(object),
            "client_id": pd.array(client, dtype="Int64"),
            "merchant_id": names[merchant],
            "amount": rows["amount"].round(2).astype(object),
            "currency": np.where(np.isin(np.array(COUNTRIES)[country], EURO), "EUR", "USD"),
            "channel": rows["channel"],
            "country": np.array(COUNTRIES)[country],
            "category": np.array(CATEGORIES)[market.category[merchant]],
            "card_id": [
                f"C{number:08d}-{card}"
                for number, card in zip(numbers[rows["person"]], rows["card"], strict=True)
            ],
            "kind": rows["kind"],
            "event": rows["event"],
        }
    )


def _plant_defects(generator: np.random.Generator, table: pd.DataFrame) -> pd.DataFrame:
    """Chooses honest rows to spoil, the same number for each defect: tx_id, problem."""
    honest = table.loc[table["kind"] == "", "tx_id"].to_numpy()
    each = max(1, round(DEFECT_SHARE * len(table)))
    chosen = generator.choice(honest, each * len(DEFECTS), replace=False)
    defects = pd.DataFrame({"tx_id": chosen, "problem": np.repeat(DEFECTS, each)})
    return defects.sort_values("tx_id", ignore_index=True)


def _transaction_table(table: pd.DataFrame, defects: pd.DataFrame) -> pd.DataFrame:
    """The source table with the chosen rows spoilt; a duplicate is a row delivered twice."""
    rows = table[list(SQL_TYPES["transactions"])].copy()
    at = {name: rows["tx_id"].isin(part["tx_id"]) for name, part in defects.groupby("problem")}
    rows.loc[at["no_customer"], "client_id"] = pd.NA
    rows.loc[at["no_time"], "booked_at"] = None
    rows.loc[at["bad_time"], "booked_at"] = "not recorded"
    rows.loc[at["text_amount"], "amount"] = "n/a"
    rows.loc[at["no_amount"], "amount"] = None
    return pd.concat([rows, rows[at["duplicate_id"]]], ignore_index=True)


def _customer_table(
    generator: np.random.Generator, people: _People, client_ids: np.ndarray
) -> pd.DataFrame:
    """What a bank knows beside the payments; it hints at the segment and never tells it."""
    n = len(people)
    mean, spread = np.array([segment.age for segment in SEGMENTS])[people.segment].T
    age = np.clip(np.round(generator.normal(mean, spread)), 18, 90).astype(np.int64)
    limit = np.exp(generator.normal(np.log(2500) + 0.25 * (people.log_amount - 3.3), 0.6, n))
    regions = ("north", "south", "east", "west", "centre")
    products = ("basic", "plus", "premium")
    return pd.DataFrame(
        {
            "client_id": client_ids,
            "age": age,
            "region": generator.choice(regions, n),
            "product": generator.choice(products, n, p=(0.55, 0.3, 0.15)),
            "credit_limit": np.round(np.clip(limit, 300, 30_000), -2),
        }
    )


# ── truth ───────────────────────────────────────────────────────────────────────────────────────


def planted_found(
    scores: pd.DataFrame, truth_frauds: pd.DataFrame, *, top_share: float = 0.01
) -> dict[str, float]:
    """The share of the planted frauds that stands among the highest scores, by kind.

    `scores` holds transaction_id and anomaly_score of what was scored; frauds outside of it do not
    count. The top is `top_share` of the scored rows, at least one; equal scores rank by key. The
    entry "visible" is over the kinds that can be seen without labels; a kind of which none was
    scored is NaN.
    """
    ranked = scores.sort_values(
        ["anomaly_score", "transaction_id"], ascending=[False, True], kind="stable"
    )
    top = set(ranked["transaction_id"].head(max(1, round(top_share * len(ranked)))))
    planted = truth_frauds[truth_frauds["tx_id"].isin(scores["transaction_id"])]
    hit = planted["tx_id"].isin(top)
    found = {kind: float(hit[planted["kind"] == kind].mean()) for kind in KINDS}
    return found | {"visible": float(hit[planted["kind"].isin(VISIBLE_KINDS)].mean())}


def planted_explained(
    reasons: pd.DataFrame, truth_frauds: pd.DataFrame, *, first: int = 3
) -> float:
    """The share of the alerts on visible frauds with a planted feature among the first reasons.

    `reasons` holds transaction_id, rank (from 1) and feature of every alert; NaN where no alert is
    on a visible fraud.
    """
    visible = truth_frauds[truth_frauds["kind"].isin(VISIBLE_KINDS)]
    near = reasons[reasons["rank"] <= first].merge(
        visible, left_on="transaction_id", right_on="tx_id"
    )
    planted = [
        feature in PLANTED_FEATURES[kind]
        for feature, kind in zip(near["feature"], near["kind"], strict=True)
    ]
    return float(pd.Series(planted, dtype=float).groupby(near["tx_id"].to_numpy()).max().mean())


def adjusted_rand_index(first: Sequence[object], second: Sequence[object]) -> float:
    """Agreement of two labellings, 1 for equal partitions, about 0 by chance (Hubert, Arabie 1985).

    Two labellings that both have a single class, or both only classes of one, agree: 1.
    """
    if len(first) != len(second):
        raise ValueError(f"Labellings must have one length, got {len(first)} and {len(second)}")
    a, b = pd.factorize(np.asarray(first))[0], pd.factorize(np.asarray(second))[0]
    pairs = np.bincount(a * (b.max(initial=0) + 1) + b)
    together, in_a, in_b, total = (
        float((count * (count - 1) / 2).sum())
        for count in (pairs, np.bincount(a), np.bincount(b), np.array([len(a)]))
    )
    if in_a == in_b == together:
        return 1.0
    by_chance = in_a * in_b / total
    return (together - by_chance) / ((in_a + in_b) / 2 - by_chance)
