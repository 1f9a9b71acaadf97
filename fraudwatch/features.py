"""What a transaction looks like to the density: named columns from the rows strictly before it.

Every window is bounded by `history_days`, nested ones included, and every sum is over integers, so
the columns of a row are the same to the bit whether its rows come alone with their lead-in or
with everything else.

Amounts are measured in typical amounts of their currency (`Reference`), so that one customer's
currencies add up. In sums they are whole millionths of it; an amount beyond a hundred million
typical ones counts as that many.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from shared.encoding import Feature
from shared.errors import ConfigurationError
from shared.windows import DAY, HOUR, UNKNOWN, Ledger, Window

HISTORY_DAYS = 30  # the least history: the longest named window
RECENT = 32  # own history is judged by the last payments, so that it follows a customer's changes
PRIOR_PAYMENTS = 2  # a short history counts as if two typical payments belonged to it
FLOOR = 0.1  # typical amounts; below it, ratios of amounts say nothing
EVIDENCE_DAYS = 7
UNITS = 1_000_000  # of a typical amount, in sums
BEYOND = 1e8  # typical amounts
YES, NO = "yes", "no"
PARTS_OF_DAY = ("night", "morning", "afternoon", "evening")  # six hours each, from midnight
ROLES = ("focal", "context", "evidence")
LEFT_OUT = "none"  # the role that takes a feature out
AMOUNTS = ("amount_ratio", "amount_relative")  # what is in proportion to the amount
TIMES = ("count_1h", "time_of_day")  # what tells when
SEGMENT = "segment"  # the column and the feature
OWN_LINES = {"latent", "surprise", "anomaly_score"}  # of the reasons and of the ranker, beside
OWN_PREFIXES = (
    "evidence.", "ranker.", "surprise.", "posterior.", "confirmed.", "unusual.", "risk.",
)  # fmt: skip
ENTITY = "entity."  # begins the names of the columns of further keys
ALWAYS = 2**60  # microseconds: a window over all rows that are there


@dataclass(frozen=True)
class Reference:
    """What amounts are typical, from the training rows."""

    typical_amount: dict[str, float]  # median of the absolute amounts per currency, zeros left out
    overall_amount: float  # the same over all currencies, for a currency that training never saw
    upper_quartile: float  # of the absolute amounts over their typical amount
    upper_twentieth: float

    def typical(self, currency: pd.Series) -> np.ndarray:
        """(n,) typical amount of each row's currency."""
        codes, names = pd.factorize(currency)
        amounts = [self.typical_amount.get(str(name), self.overall_amount) for name in names]
        return np.array([*amounts, self.overall_amount])[codes]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Reference:
        return cls(**document)


def reference(rows: pd.DataFrame) -> Reference:
    """Typical amounts of the training rows; 1 where there is no amount other than zero."""
    if "amount" not in rows or not (rows["amount"].abs() > 0).any():
        return Reference({}, overall_amount=1.0, upper_quartile=1.0, upper_twentieth=1.0)
    paid = rows.loc[(rows["amount"].abs() > 0).to_numpy(), ["amount", "currency"]]
    sizes = paid["amount"].abs()
    medians = sizes.groupby(paid["currency"]).median()
    typical = {str(currency): float(median) for currency, median in medians.items()}
    plain = Reference(typical, float(sizes.median()), 1.0, 1.0)
    relative = sizes.to_numpy() / plain.typical(paid["currency"])
    quartile, twentieth = (float(np.quantile(relative, p)) for p in (0.75, 0.95))
    return Reference(typical, plain.overall_amount, quartile, twentieth)


def declared(
    columns: Collection[str], roles: Mapping[str, str] | None = None
) -> tuple[Feature, ...]:
    """The features that rows with these columns have: focal, then context, then evidence.

    roles: an expert's own, by the name of the feature; "none" takes it out. A name that is no
    feature of such rows is refused, and so are roles that leave nothing focal.
    """
    features = [feature for part in _parts(columns) for feature in part.features]
    features += [mapped.feature for mapped in _mapped(columns)]
    if roles:
        roles = {str(name): role for name, role in roles.items()}  # a file has 5 for "5"
        _refuse_unknown(roles, [feature.name for feature in features])
        features = [replace(f, role=roles.get(f.name, f.role)) for f in features]
        features = [feature for feature in features if feature.role != LEFT_OUT]
        if not any(feature.role == "focal" for feature in features):
            raise ConfigurationError("[fraudwatch.roles] leaves no feature focal: nothing to judge")
    return tuple(sorted(features, key=lambda feature: ROLES.index(feature.role)))


def _refuse_unknown(names: Collection[str], known: list[str]) -> None:
    faults = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(known))}."
            faults.append(f"[fraudwatch.roles] {name} is no feature of this mapping; {hint}")
    if faults:
        raise ConfigurationError(faults)


def build(
    rows: pd.DataFrame,
    targets: np.ndarray,
    reference: Reference,
    timezone: str,
    history_days: int = HISTORY_DAYS,
) -> pd.DataFrame:
    """The declared features, one row per target, in the order of `targets`.

    rows: transactions in any order, with all rows of the `history_days` before the earliest target
    as lead-in (of every customer: a counterparty's surprise is about its other customers too).
    targets: positions in `rows`. A row without a known customer has no customer features: numbers
    are NaN, levels are empty.
    """
    if history_days < HISTORY_DAYS:
        raise ValueError(f"history_days is {history_days}, expected at least {HISTORY_DAYS}")
    past = _Past(rows, np.asarray(targets, np.intp), reference, timezone, history_days * DAY)
    columns: dict[str, np.ndarray] = {}
    for part in _parts(rows.columns):
        columns |= part.compute(past)
    for mapped in _mapped(rows.columns):
        columns[mapped.feature.name] = mapped.compute(past, mapped.column)
    typed = {
        feature.name: _typed(columns[feature.name], feature) for feature in declared(rows.columns)
    }
    # Without a copy: pandas would stack the columns, which costs as much as a window each.
    return pd.DataFrame(typed, pd.RangeIndex(len(targets)), copy=False)


def _typed(values: np.ndarray, feature: Feature) -> np.ndarray | pd.api.extensions.ExtensionArray:
    """float64, or text: the same in a frame of no rows."""
    return (
        pd.array(values, dtype="str")
        if feature.kind == "category"
        else values.astype(float, copy=False)
    )


class _Past:
    """The rows as arrays, and the ledgers in which the parts look things up."""

    def __init__(
        self,
        rows: pd.DataFrame,
        targets: np.ndarray,
        reference: Reference,
        timezone: str,
        history: int,
    ) -> None:
        self.rows = rows
        self.targets = targets
        self.reference = reference
        self.timezone = timezone
        self.history = history  # microseconds
        self.times = rows["occurred_at"].to_numpy(np.int64)
        self._codes: dict[str, np.ndarray] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._meetings: dict[str, Ledger] = {}

    @cached_property
    def customers(self) -> np.ndarray:
        return _codes(self.rows["customer_id"])

    @cached_property
    def counterparties(self) -> np.ndarray:
        return _codes(self.rows["counterparty_id"])

    @cached_property
    def known(self) -> np.ndarray:
        """(targets,) whether the customer is known."""
        return self.customers[self.targets] >= 0

    @cached_property
    def relative(self) -> np.ndarray:
        """(rows,) signed amounts in typical amounts of their currency."""
        return self.rows["amount"].to_numpy(np.float64) / self.reference.typical(
            self.rows["currency"]
        )

    @cached_property
    def units(self) -> np.ndarray:
        """(rows,) the same as whole millionths, for exact sums; a missing amount adds nothing."""
        inside = np.clip(np.nan_to_num(self.relative), -BEYOND, BEYOND)
        return np.rint(inside * UNITS).astype(np.int64)

    @cached_property
    def local(self) -> np.ndarray:
        """(rows,) local wall-clock time as microseconds."""
        if self.timezone == "UTC":
            return self.times
        stamps = pd.DatetimeIndex(self.times.astype("datetime64[us]")).tz_localize("UTC")
        local = stamps.tz_convert(self.timezone).tz_localize(None)
        return local.to_numpy().astype("datetime64[us]").astype(np.int64)

    @cached_property
    def of_customer(self) -> Ledger:
        return Ledger(self.customers, self.times, self.targets)

    @cached_property
    def of_counterparty(self) -> Ledger:
        return Ledger(self.counterparties, self.times, self.targets)

    @cached_property
    def of_meeting(self) -> Ledger:
        return self.of_customer_and(self.counterparties)

    @cached_property
    def customer_days(self) -> dict[int, Window]:
        return {days: self.of_customer.window(days * DAY) for days in (1, 7, 30)}

    @cached_property
    def counterparty_days(self) -> dict[int, Window]:
        return {days: self.of_counterparty.window(days * DAY) for days in (1, 7, 30)}

    def codes(self, column: str) -> np.ndarray:
        """(rows,) codes of a mapped column; an empty text is a level, a null key is unknown."""
        if column not in self._codes:
            values = self.rows[column]
            is_key = column.startswith(ENTITY)
            self._codes[column] = _codes(values if is_key else values.fillna(""))
        return self._codes[column]

    def ledger(self, column: str) -> Ledger:
        if column not in self._ledgers:
            self._ledgers[column] = Ledger(self.codes(column), self.times, self.targets)
        return self._ledgers[column]

    def meetings(self, column: str) -> Ledger:
        """The pairs of a customer with a value of a mapped column."""
        if column not in self._meetings:
            self._meetings[column] = self.of_customer_and(self.codes(column))
        return self._meetings[column]

    def of_customer_and(self, codes: np.ndarray) -> Ledger:
        """The pairs of a customer with something else, known where both are."""
        both = (self.customers >= 0) & (codes >= 0)
        pairs = self.customers * (codes.max(initial=0) + 1) + codes
        return Ledger(np.where(both, pairs, UNKNOWN), self.times, self.targets)

    def since(self, width: int) -> np.ndarray:
        """Positions of the rows that the targets' windows of this width can hold."""
        if len(self.targets) == 0:
            return self.targets
        asked = self.times[self.targets]
        return np.flatnonzero((self.times >= asked.min() - width) & (self.times <= asked.max()))

    def of_known(self, values: np.ndarray) -> np.ndarray:
        """The values, NaN where the customer is unknown."""
        return np.where(self.known, values, np.nan)


def _codes(keys: pd.Series) -> np.ndarray:
    """Integer codes of the keys, -1 where null."""
    codes, _ = pd.factorize(keys)
    return codes.astype(np.int64)


def _clock(past: _Past) -> dict[str, np.ndarray]:
    local = past.local[past.targets]
    begin = local // (3 * HOUR) % 8 * 3
    names = np.array([f"{hour:02d}-{hour + 3:02d}" for hour in range(24)], dtype=object)
    weekday = (local // DAY + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    return {"time_of_day": names[begin], "weekend": (weekday >= 5).astype(np.float64)}


def _amount(past: _Past) -> dict[str, np.ndarray]:
    signed = past.relative[past.targets]
    return {"amount_relative": np.abs(signed), "refund": (signed < 0).astype(np.float64)}


def _customer(past: _Past) -> dict[str, np.ndarray]:
    counts = {f"count_{days}d": w.count() for days, w in past.customer_days.items()}
    counts["count_1h"] = past.of_customer.window(HOUR).count()
    gap = past.of_customer.window(past.history).since_last()
    days = np.where(np.isnan(gap), past.history, gap) / DAY
    columns = {**counts, "days_since_last": days, **_day_part_shares(past)}
    return {name: past.of_known(values) for name, values in columns.items()}


def _day_part_shares(past: _Past) -> dict[str, np.ndarray]:
    """Shares of the last 30 days by part of the day, as if one more payment stood in each part."""
    month = past.customer_days[30]
    parts = past.local // (6 * HOUR) % 4
    return {
        f"{name}_share": (month.total(parts == part) + 1) / (month.count() + 4)
        for part, name in enumerate(PARTS_OF_DAY)
    }


def _customer_amounts(past: _Past) -> dict[str, np.ndarray]:
    window = past.of_customer.window(past.history)
    size = np.minimum(window.count(), RECENT)
    quantiles = window.quantiles(np.abs(past.units), RECENT, (0.5, 0.75, 0.95)) / UNITS
    priors = (1.0, past.reference.upper_quartile, past.reference.upper_twentieth)
    median, upper, top = (_shrunk(quantiles[:, i], size, prior) for i, prior in enumerate(priors))
    columns = {
        "amount_ratio": np.abs(past.relative[past.targets]) / (median + FLOOR),
        "own_amount_median": 100 * median,
        "own_amount_q75": (upper + FLOOR) / (median + FLOOR),
        "own_amount_q95": (top + FLOOR) / (median + FLOOR),
    }
    for days, recent in past.customer_days.items():
        total = recent.total(past.units) / UNITS
        columns[f"mean_amount_{days}d"] = 100 * total / np.maximum(recent.count(), 1)
    return {name: past.of_known(values) for name, values in columns.items()}


def _shrunk(own: np.ndarray, size: np.ndarray, prior: float) -> np.ndarray:
    """Own statistic of `size` payments, drawn to the prior as by `PRIOR_PAYMENTS` more."""
    weighted = np.where(size > 0, size * own, 0.0)
    return (weighted + PRIOR_PAYMENTS * prior) / (size + PRIOR_PAYMENTS)


def _counterparty(past: _Past) -> dict[str, np.ndarray]:
    met = past.counterparties[past.targets] >= 0
    return {
        f"counterparty_count_{days}d": np.where(met, window.count(), np.nan)
        for days, window in past.counterparty_days.items()
    }


def _counterparty_amounts(past: _Past) -> dict[str, np.ndarray]:
    window = past.of_counterparty.window(past.history)
    median = window.quantiles(np.abs(past.units), RECENT, (0.5,))[:, 0] / UNITS
    shrunk = 100 * _shrunk(median, np.minimum(window.count(), RECENT), 1.0)
    met = past.counterparties[past.targets] >= 0
    return {"counterparty_amount_median": np.where(met, shrunk, np.nan)}


def _meeting(past: _Past) -> dict[str, np.ndarray]:
    """Novelty of the pair. Its share looks back half the history from within the other half, so
    that no more lead-in is needed than for everything else."""
    share = _new_share(past, past.of_meeting, past.counterparties)
    known = past.known & (past.counterparties[past.targets] >= 0)
    return {
        "new_counterparty": _yes_or_no(past.of_meeting.window(past.history).count() == 0, known),
        "new_counterparty_share": share,
    }


def _new_share(past: _Past, meetings: Ledger, codes: np.ndarray) -> np.ndarray:
    """Share of the customer's payments that met something new, as if one of two more had."""
    half = past.history // 2
    inner = past.since(half)
    is_new = np.zeros(len(past.times), dtype=bool)
    is_new[inner] = meetings.asked_at(inner).window(half).count() == 0
    recent = past.of_customer.window(half)
    return past.of_known((recent.total(is_new & (codes >= 0)) + 1) / (recent.count() + 2))


def _evidence(past: _Past) -> dict[str, np.ndarray]:
    """Mean surprise of the counterparty's last payments, as if two unsurprising ones were among
    them. Each is judged by its payer's history up to then, cut so that both fit the history."""
    inner = past.since(EVIDENCE_DAYS * DAY)
    window = past.of_customer.asked_at(inner).window(past.history - EVIDENCE_DAYS * DAY)
    median = window.quantiles(np.abs(past.units), RECENT, (0.5,))[:, 0] / UNITS
    expected = _shrunk(median, np.minimum(window.count(), RECENT), 1.0)
    found = np.abs(past.units[inner]) / UNITS
    surprise = np.zeros(len(past.times), dtype=np.int64)
    surprise[inner] = np.rint(UNITS * np.abs(np.log((found + FLOOR) / (expected + FLOOR))))
    recent = past.counterparty_days[EVIDENCE_DAYS]
    mean = recent.total(surprise) / UNITS / (recent.count() + PRIOR_PAYMENTS)
    met = past.counterparties[past.targets] >= 0
    return {"counterparty_surprise_7d": np.where(met, mean, np.nan)}


def _entity_count(days: int, past: _Past, column: str) -> np.ndarray:
    met = past.codes(column)[past.targets] >= 0
    return np.where(met, past.ledger(column).window(days * DAY).count(), np.nan)


def _entity_customers(days: int, past: _Past, column: str) -> np.ndarray:
    """How many different customers the entity had in the window before each target.

    A customer counts from one sighting to the next, and no longer than the window is: what has
    begun before the target less what has ended. Of rows older than the window both have, so that
    they cancel. Rows of one moment are one sighting.
    """
    width = days * DAY
    inner = past.since(width)
    keys, customers = past.codes(column)[inner], past.customers[inner]
    both = (keys >= 0) & (customers >= 0)
    key, customer, begun = keys[both], customers[both], past.times[inner][both]
    order = np.lexsort((begun, customer, key))
    key, customer, begun = key[order], customer[order], begun[order]
    same = (key[1:] == key[:-1]) & (customer[1:] == customer[:-1])
    ended = begun + width
    ended[:-1][same] = np.minimum(ended[:-1][same], begun[1:][same])
    asked = past.codes(column)[past.targets]
    ledger = Ledger(
        np.concatenate([asked, key, key]),
        np.concatenate([past.times[past.targets], begun, ended]),
        np.arange(len(asked)),
    )
    change = np.repeat(np.array([0, 1, -1]), [len(asked), len(key), len(key)])
    return np.where(asked >= 0, ledger.window(ALWAYS).total(change), np.nan)


def _yes_or_no(truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Levels, empty where nothing is known."""
    return np.where(known, np.where(truth, YES, NO), "").astype(object)


@dataclass(frozen=True)
class _Part:
    """Features that belong together, and the columns without which they make no sense."""

    needs: frozenset[str]
    compute: Callable[[_Past], dict[str, np.ndarray]]
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class _Mapped:
    """A feature that comes from a mapped column of the source."""

    feature: Feature
    column: str
    compute: Callable[[_Past, str], np.ndarray]


def _parts(columns: Collection[str]) -> list[_Part]:
    return [part for part in _PARTS if part.needs <= set(columns)]


def _mapped(columns: Collection[str]) -> list[_Mapped]:
    """Features of the segment, and of the columns "entity.<name>", "category.<name>" and
    "number.<name>" in their order."""
    taken = {feature.name for part in _PARTS for feature in part.features} | OWN_LINES
    with_customer = "customer_id" in columns
    found = []
    if SEGMENT in columns:
        description = "the customer's segment, as recorded before the transaction's day"
        feature = Feature(_free(SEGMENT, taken), "category", "context", "", description)
        found.append(_Mapped(feature, SEGMENT, _levels))
    for column in columns:
        kind, _, source = column.partition(".")
        if kind == "entity":
            found += _of_entity(column, source, taken, with_customer)
        if kind == "category":
            name = _free(source, taken)
            feature = Feature(name, "category", "focal", "", source)
            found.append(_Mapped(feature, column, _levels))
        if kind in ("entity", "category") and with_customer:
            description = f"whether this {source} is new to the customer"
            feature = Feature(_free(f"new_{source}", taken), *_LEVEL, description)
            found.append(_Mapped(feature, column, _new_levels))
            description = f"share of the customer's payments with a {source} new to them"
            feature = Feature(_free(f"{feature.name}_share", taken), *_SHARE, description)
            found.append(_Mapped(feature, column, _new_level_share))
        if kind == "number":
            feature = Feature(_free(source, taken), "continuous", "focal", "", source)
            found.append(_Mapped(feature, column, _numbers))
    return found


def _of_entity(column: str, source: str, taken: set[str], with_customer: bool) -> list[_Mapped]:
    """Counts of a further key. All of them stand beside the density: a key without payments is
    new to its customer, so that as its context they would explain the novelty away."""
    table: list[tuple[str, int, str, Callable[[int, _Past, str], np.ndarray]]] = [
        ("count", days, "payments", _entity_count) for days in (1, 7, 30)
    ]
    if with_customer:
        table += [("customers", days, "customers", _entity_customers) for days in (7, 30)]
    found = []
    for what, days, unit, compute in table:
        span = "1 day" if days == 1 else f"{days} days"
        name = _free(f"{source}_{what}_{days}d", taken)
        feature = Feature(name, *_BESIDE, unit, f"{unit} of this {source} in {span}")
        found.append(_Mapped(feature, column, partial(compute, days)))
    return found


def _free(name: str, taken: set[str]) -> str:
    """The name, with underscores at its end as long as it is taken; it is taken from then on.

    One that begins like lines of ours has an underscore in the place of its dot.
    """
    if name.startswith(OWN_PREFIXES):
        name = name.replace(".", "_", 1)
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _levels(past: _Past, column: str) -> np.ndarray:
    return past.rows[column].iloc[past.targets].fillna("").to_numpy(dtype=object)


def _numbers(past: _Past, column: str) -> np.ndarray:
    return past.rows[column].to_numpy(np.float64, na_value=np.nan)[past.targets]


def _new_levels(past: _Past, column: str) -> np.ndarray:
    """Whether the customer's history lacks the level; an empty text is a level like others."""
    known = past.known & (past.codes(column)[past.targets] >= 0)
    return _yes_or_no(past.meetings(column).window(past.history).count() == 0, known)


def _new_level_share(past: _Past, column: str) -> np.ndarray:
    return _new_share(past, past.meetings(column), past.codes(column))


_CUSTOMER = frozenset({"customer_id"})
_COUNTERPARTY = frozenset({"counterparty_id"})
_AMOUNT = frozenset({"amount", "currency"})

_COUNT = ("count", "context", "payments")
# What an attack itself moves stands beside the density: as its context it would explain it away.
_BESIDE = ("continuous", "evidence")
_LEVEL = ("category", "focal", "")
_SHARE = ("share", "context", "share")
_TIMES = ("continuous", "context", "times")
_TYPICAL = ("continuous", "context", "% of typical")


def _features(*table: tuple[str, ...]) -> tuple[Feature, ...]:
    """One row per feature: name, kind, role, unit, description and, unless none, transform."""
    return tuple(Feature(*row) for row in table)


# The scale of each feature is an assumption: what is rare on one scale is common on another.
# Amounts are judged on their own scale, for on that of the logarithm tiny amounts would be rare.
_PARTS = (
    _Part(
        _CUSTOMER | _AMOUNT,
        _customer_amounts,
        _features(
            (
                "amount_ratio",
                "continuous",
                "focal",
                "times",
                "amount over the customer's own median",
            ),
            ("own_amount_median", *_TYPICAL, "the customer's own median amount", "log1p"),
            ("own_amount_q75", *_TIMES, "own upper quartile over the own median", "log1p"),
            ("own_amount_q95", *_BESIDE, "times", "own upper twentieth over the own median"),
            ("mean_amount_1d", *_BESIDE, "% of typical", "the customer's mean amount in 1 day"),
            ("mean_amount_7d", *_BESIDE, "% of typical", "the customer's mean amount in 7 days"),
            ("mean_amount_30d", *_BESIDE, "% of typical", "the customer's mean amount in 30 days"),
        ),
    ),
    _Part(
        _AMOUNT,
        _amount,
        _features(
            (
                "amount_relative",
                "continuous",
                "focal",
                "times",
                "amount over its currency's median",
            ),
            ("refund", *_SHARE, "1 where the amount is negative"),
        ),
    ),
    _Part(
        _CUSTOMER,
        _customer,
        _features(
            (
                "count_1h",
                "count",
                "focal",
                "payments",
                "payments of the customer in the hour before",
                "log1p",
            ),
            ("count_1d", *_BESIDE, "payments", "the customer's payments in 1 day"),
            ("count_7d", *_COUNT, "the customer's payments in 7 days", "log1p"),
            ("count_30d", *_COUNT, "the customer's payments in 30 days", "log1p"),
            ("days_since_last", *_BESIDE, "days", "days since the customer's last payment"),
            ("night_share", *_SHARE, "share of the customer's payments from 0 to 6 o'clock"),
            ("morning_share", *_SHARE, "share of the customer's payments from 6 to 12 o'clock"),
            ("afternoon_share", *_SHARE, "share of the customer's payments from 12 to 18 o'clock"),
            ("evening_share", *_SHARE, "share of the customer's payments from 18 to 24 o'clock"),
        ),
    ),
    _Part(
        _CUSTOMER | _COUNTERPARTY,
        _meeting,
        _features(
            ("new_counterparty", *_LEVEL, "whether the counterparty is new to the customer"),
            ("new_counterparty_share", *_SHARE, "share of payments to counterparties new to them"),
        ),
    ),
    _Part(
        frozenset({"occurred_at"}),
        _clock,
        _features(
            ("time_of_day", *_LEVEL, "local time of day"),
            ("weekend", *_SHARE, "1 on Saturday and Sunday"),
        ),
    ),
    _Part(
        _COUNTERPARTY,
        _counterparty,
        _features(
            ("counterparty_count_1d", *_BESIDE, "payments", "the counterparty's payments in 1 day"),
            ("counterparty_count_7d", *_COUNT, "the counterparty's payments in 7 days", "log1p"),
            ("counterparty_count_30d", *_COUNT, "the counterparty's payments in 30 days", "log1p"),
        ),
    ),
    _Part(
        _COUNTERPARTY | _AMOUNT,
        _counterparty_amounts,
        _features(
            ("counterparty_amount_median", *_TYPICAL, "the counterparty's median amount", "log1p"),
        ),
    ),
    _Part(
        _CUSTOMER | _COUNTERPARTY | _AMOUNT,
        _evidence,
        _features(
            (
                "counterparty_surprise_7d",
                *_BESIDE,
                "nats",
                "how unlike their payers' own the counterparty's amounts of 7 days were",
            ),
        ),
    ),
)
