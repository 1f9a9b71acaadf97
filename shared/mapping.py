"""The mapping that `peerwatch init` proposes: which column plays which role, and why.

Pure decisions over what `shared.looks` has seen. A guess stands with its reason, a masked sample
where it may be personal, and the alternatives that were not taken; a column that plays no role
stands with the reason for leaving it out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from shared.cells import is_iso
from shared.config import Customers, Transactions
from shared.errors import ConfigurationError
from shared.frames import masked
from shared.looks import KEYS, NEARLY, NUMERIC, Column, Look
from shared.source import key_mismatch, quoted, quoted_table
from shared.vocabulary import (
    ACCOUNT,
    ARRIVED,
    ASIDE,
    BEGINS,
    CODE,
    CURRENCY,
    ENDS,
    ENTITY,
    ENTITY_OF,
    EVENT,
    FILL,
    HOLDS,
    JUDGED,
    KEY,
    KIND,
    LABEL,
    LABEL_FOR_SURE,
    MEASURE,
    MONEY,
    NAME_OF,
    NAMED,
    NOT_MONEY,
    NOT_WHEN,
    ORDER,
    OTHER_SIDE,
    OUTCOME,
    PERSON,
    PERSONAL,
    PLACE,
    REPORTED,
    SCORE,
    SCORE_BY,
    TRAIT,
    TRAIT_OF_PERSON,
    WHEN,
    WORTH,
    words_of,
)

if TYPE_CHECKING:
    pass

LEVELS = 200  # a category with more is a key or free text
MANY = 20  # a key of cards or devices has more values
FEW = 12  # whole numbers with so few values are codes
NO_END = ("9999", "2999", "infinity")  # how the open end of a period begins, if it is not null
DIRECTIONS = ({"debit", "credit"}, {"dr", "cr"}, {"in", "out"}, {"d", "c"})


@dataclass(frozen=True)
class Guess:
    """One line of the mapping, why it was taken, and what else could have been."""

    key: str  # e.g. "source.transactions.amount"
    column: str  # or table, or format
    reason: str
    sample: tuple[str, ...] = ()  # at most three; masked where it may be personal
    alternatives: tuple[str, ...] = ()

    @property
    def choice(self) -> str:
        """The guess as a sentence that says what was not taken and how to change it."""
        section, _, name = self.key.rpartition(".")
        return (
            f"[{section}] {name} is {self.column} ({self.reason}); it could also be "
            f"{', '.join(self.alternatives)}. To change it, edit {name} in the file."
        )


@dataclass(frozen=True)
class LeftOut:
    """A column without a role, and why."""

    table: str
    column: str
    reason: str


@dataclass(frozen=True)
class Proposal:
    """The whole mapping; with `refusals` it cannot be used before their views are made."""

    transactions: Transactions | None
    customers: Customers | None = None
    guesses: tuple[Guess, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: list[str] = field(default_factory=list)  # what should be said aloud
    refusals: tuple[str, ...] = ()


def propose(looks: Sequence[Look]) -> Proposal:
    """The transactions, the customers and the roles of their columns; raises where none can be."""
    drafts, passed = [], []
    for seen in looks:
        draft = _Draft(seen, looks)
        why = draft.fill()
        if why:
            passed.append(f"{seen.table} ({why})")
        else:
            drafts.append(draft)
    if not drafts:
        raise ConfigurationError(_nothing(passed))
    drafts.sort(key=lambda draft: (draft.score, draft.look.rows), reverse=True)
    return drafts[0].proposal(drafts[1:])


def _nothing(passed: Sequence[str]) -> str:
    looked = "; ".join(passed[:12]) + ("; …" if len(passed) > 12 else "")
    found = f"Looked at {looked}." if passed else "It has no tables or views that can be read."
    return (
        f"There is nothing in the database that could be transactions. {found} Needed is one "
        "table or view with an id (one column, a value of its own in each row), a time, and an "
        "amount, a category or a number."
    )


class _Draft:
    """A table read as the transactions: roles are given one after the other."""

    section = "source.transactions"

    def __init__(self, seen: Look, looks: Sequence[Look]) -> None:
        self.look = seen
        self.looks = looks
        self.roles: dict[str, str] = {}
        self.several: dict[str, list[str]] = {"categories": [], "numbers": []}
        self.guesses: list[Guess] = []
        self.left: dict[str, str] = {}
        self.notes: list[str] = []
        self.refusals: list[str] = []
        self.score = 0.0

    @property
    def free(self) -> list[Column]:
        """Columns without a role, in the order of the table."""
        several = {name for names in self.several.values() for name in names}
        taken = {*self.roles.values(), *self.left, *several}
        return [column for column in self.look.columns if column.name not in taken]

    def all_differ(self, column: Column) -> bool:
        """Whether a column is an id rather than a key that repeats; few rows cannot tell."""
        return column.unique or (self.look.rows >= FEW and self.look.is_unique(column))

    def column(self, role: str) -> Column | None:
        return next((c for c in self.look.columns if c.name == self.roles.get(role)), None)

    @property
    def summary(self) -> str:
        roles = [
            f"{role} {self.roles[role]}"
            for role in ("id", "time", "customer", "amount", "counterparty")
            if role in self.roles
        ]
        return f"{self.look.table}: {self.look.rows:,} rows with {', '.join(roles)}"

    def fill(self) -> str:
        """Gives all roles; returns why the table cannot be the transactions, or nothing."""
        if not self.look.rows:
            return "no rows"
        for column in self.look.columns:
            if re.search(r"\$\{\w+\}", column.name):
                self.left[column.name] = "its name reads as a variable of the environment"
        if not self._time():
            return self._no_time()
        self._id()
        if self._one_row_per_person():
            return "one row per customer or account"
        self._label()
        self.choose("customer", _customer, personal=True)
        self.choose("counterparty", _counterparty, personal=True)
        self.choose("order", _order, personal=True)
        self.choose("amount", _amount)
        self.choose("currency", _currency)
        self._entities()
        self.choose("baseline_score", _baseline_score)
        self.choose("arrived_at", _arrived)
        self._rest()
        if not (self.roles.get("amount") or self.several["categories"] or self.several["numbers"]):
            return f"no amount, category or number.{self._amount_in_text()}".rstrip(".")
        if "id" not in self.roles:
            self.refusals.append(_without_id(self.look))
        self.score = self._evidence()
        self._remarks()
        return ""

    def choose(
        self,
        role: str,
        judge: Callable[[_Draft, Column], tuple[float, str]],
        *,
        personal: bool = False,
    ) -> Column | None:
        """Takes the column with the highest mark above zero; the others are its alternatives."""
        marks = [(judge(self, column), column) for column in self.free]
        marks = sorted((m for m in marks if m[0][0] > 0), key=lambda m: m[0][0], reverse=True)
        if not marks:
            return None
        (_, reason), taken = marks[0]
        self.roles[role] = taken.name
        others = tuple(column.name for _, column in marks[1:])
        self.guess(role, taken, reason, others, personal=personal)
        return taken

    def guess(
        self,
        role: str,
        column: Column,
        reason: str,
        alternatives: tuple[str, ...] = (),
        *,
        personal: bool = False,
    ) -> None:
        sample = _shown(column, personal=personal)
        key = f"{self.section}.{role}"
        self.guesses.append(Guess(key, column.name, reason, sample, alternatives))

    def _time(self) -> bool:
        taken = self.choose("time", _time)
        if taken is None or taken.times is None:
            return False
        if taken.kind == "text" and taken.times.format:
            reason = taken.times.note or "it reads the whole sample"
            key = f"{self.section}.time_format"
            self.guesses.append(Guess(key, taken.times.format, reason))
        if taken.times.note:
            self.notes.append(f"{self.look.table}.{taken.name}: {taken.times.note}.")
        return True

    def _no_time(self) -> str:
        unusable = [
            f"{column.name} may be its time, but {column.times.unusable}"
            for column in self.look.columns
            if column.times is not None and column.times.unusable
        ]
        return unusable[0] if unusable else "no column of times"

    def _id(self) -> None:
        taken = self.choose("id", _id, personal=True)
        if taken is None or taken.distinct is None or taken.distinct >= self.look.rows:
            return
        self.notes.append(
            f"{self.look.table}.{taken.name}: {self.look.rows:,} rows have {taken.distinct:,} "
            "different ids; those without one of their own will be quarantined."
        )

    def _one_row_per_person(self) -> bool:
        """Whether the table holds people or accounts rather than what they did."""
        if self.look.words & EVENT:
            return False
        taken = self.column("id")
        owners = taken.words if taken is not None else frozenset()
        if owners & PERSON or self.look.words & PERSON:
            return not owners & EVENT
        return bool(owners & ACCOUNT and self.look.words & ACCOUNT)

    def _label(self) -> None:
        taken = self.choose("label", _label)
        if taken is None:
            return
        self.choose("label_kind", _label_kind)
        self.choose("label_time", _label_time)

    def _entities(self) -> None:
        """Keys of what a customer pays with or from: cards, accounts, devices."""
        found = [(column, reason) for column in self.free if (reason := _entity(self, column))]
        self.several["entities"] = [column.name for column, _ in found]
        for column, reason in found:
            self.guess("entities", column, reason, personal=True)

    def _rest(self) -> None:
        """Each column without a role becomes a category or a number, or is left out."""
        for column in self.free:
            why = next((why for rule in REASONS if (why := rule(self, column))), "")
            role, reason = ("", why) if why else kind_of(column)
            if not role:
                self.left[column.name] = reason
                continue
            self.several[role].append(column.name)
            self.guess(role, column, reason)

    def _evidence(self) -> float:
        """How much the table looks like the transactions; only compared with other tables."""
        customer, time = self.column("customer"), self.column("time")
        strong = customer is not None and _customer(self, customer)[0] >= 4
        return (
            (3.0 if strong else 1.5 if customer else 0.0)
            + 3.0 * ("amount" in self.roles)
            + 1.0 * ("counterparty" in self.roles)
            + 2.0 * bool(self.look.words & EVENT)
            + 0.5 * bool(time and time.times and not time.times.to_the_day)
            - 3.0 * bool(self.look.words & ASIDE)
            - 3.0 * ("id" not in self.roles)
            + 0.5 * math.log10(self.look.rows)
        )

    def _remarks(self) -> None:
        if "customer" not in self.roles:
            self.notes.append(
                f"No column of {self.look.table} looks like the customer: each row will stand "
                "alone and nothing can be segmented. Name one with customer = "
                "in [source.transactions]."
            )
        if "amount" not in self.roles:
            self.notes.append(
                f"No column of {self.look.table} looks like the amount.{self._amount_in_text()}"
            )
        amount = self.column("amount")
        if amount is None or (amount.numbers < 0).any():
            return
        for name in self.several["categories"]:
            column = next(c for c in self.look.columns if c.name == name)
            if {level.lower() for level in column.levels} in DIRECTIONS:
                self.notes.append(
                    f"{amount.name} is never negative while {name} gives its direction: a view "
                    "with a minus for money out would tell net amounts."
                )

    def _amount_in_text(self) -> str:
        """The view that would give an amount that is written as text; empty without one."""
        name = next((name for name, reason in self.left.items() if reason == AMOUNT_IN_TEXT), None)
        if name is None:
            return ""
        number = f"CAST(REPLACE(t.{quoted(name)}, ',', '.') AS NUMERIC)"
        return f" {name} is one in text; {_mending_view(self.look.table, f'{number} AS amount')}"

    def proposal(self, others: Sequence[_Draft]) -> Proposal:
        near = [d for d in others if d.score > self.score - 4 and not d.refusals]
        reason = "; less in ".join(draft.summary for draft in (self, *near[:2]))
        names = tuple(draft.look.table for draft in near)
        table = Guess(f"{self.section}.table", self.look.table, reason, (), names)
        customers, guesses, left = self._customers()
        guesses = [table, *self.guesses, *guesses]
        mapped = None
        if "id" in self.roles:
            time = self.column("time")
            form = time.times.format if time and time.times and time.kind == "text" else None
            lists = {role: tuple(names) for role, names in self.several.items()}
            mapped = Transactions(self.look.table, time_format=form, **self.roles, **lists)  # type: ignore[arg-type]
        own = [LeftOut(self.look.table, name, reason) for name, reason in self.left.items()]
        return Proposal(
            mapped,
            customers,
            tuple(guesses),
            (*own, *left),
            [*(guess.choice for guess in guesses if guess.alternatives), *self.notes],
            tuple(self.refusals),
        )

    def _customers(self) -> tuple[Customers | None, list[Guess], list[LeftOut]]:
        customer = self.column("customer")
        if customer is None:
            return None, [], []
        found = [
            (seen, best)
            for seen in self.looks
            if seen.table != self.look.table and seen.rows
            if (best := self._person(customer, seen)) is not None
        ]
        if not found:
            self._without_period(customer)
            return None, [], []
        # A view that casts the key comes before the table that it was made to mend, and what
        # holds one row per customer before a history of, perhaps, some of the columns.
        found.sort(
            key=lambda item: (
                item[1].column.kind == customer.kind, item[1].period is None, item[1].mark
            ),
            reverse=True,
        )  # fmt: skip
        seen, (_, column, period) = found[0]
        if column.kind != customer.kind:
            self.refusals.append(
                key_mismatch(
                    (seen.table, column.name, column.kind),
                    (self.look.table, customer.name, customer.kind),
                )
            )
        others = [other.said(table.table) for table, other in found[1:]]
        return _People(seen, self.looks).fill_from(column, customer, others, period)

    def _without_period(self, customer: Column) -> None:
        """Says which tables would be the customers' own if it were known when their rows hold."""
        self.notes += [
            f"{seen.table} has several rows for one {column.name}, which joins to {customer.name}, "
            "and no columns that say from when to when each holds; it is not mapped. If it keeps a "
            "history, name them with valid_from and valid_to in [source.customers]; else map a "
            "view with one row per customer."
            for seen in self.looks
            if seen.table != self.look.table and seen.rows and seen.words & PERSON
            for column in seen.columns
            if column.kind in KEYS
            and _same_person(self, customer, seen, column) >= 3
            and not seen.is_unique(column)
        ]

    def _person(self, customer: Column, seen: Look) -> _Person | None:
        """The column of a table that joins to the customer best, and when its rows are valid where
        there are several of one customer."""
        found = [
            _Person(mark, column, period)
            for column in seen.columns
            if column.kind in KEYS and (mark := _same_person(self, customer, seen, column)) >= 3
            if (period := _period(self, seen, column)) or seen.is_unique(column)
        ]
        return max(found, key=lambda p: (p.column.kind == customer.kind, p.mark), default=None)


class _Person(NamedTuple):
    """How well the key of a table joins to the customer, and its (valid_from, valid_to)."""

    mark: float
    column: Column
    period: tuple[Column, Column] | None

    def said(self, table: str) -> str:
        kept = "" if self.period is None else ", with its history"
        return f"{table} (id {self.column.name}{kept})"


class _People(_Draft):
    """A table read as the customers' own."""

    section = "source.customers"

    def fill_from(
        self,
        column: Column,
        customer: Column,
        others: list[str],
        period: tuple[Column, Column] | None,
    ) -> tuple[Customers, list[Guess], list[LeftOut]]:
        self.several["descriptors"] = []
        self.roles["id"] = column.name
        each = "one row each" if period is None else "its rows follow one another"
        self.guess("id", column, f"{each}, joins to {customer.name}", personal=True)
        if period is not None:
            self._validity(column, *period)
        for other in self.free:
            why = next((why for rule in PEOPLE_REASONS if (why := rule(self, other))), "")
            role, reason = ("", why) if why else _kind_in_people(other)
            if not role:
                self.left[other.name] = reason
                continue
            self.several[role].append(other.name)
            self.guess(role, other, reason)
        per = f"one per {column.name}" if period is None else f"the history of each {column.name}"
        reason = f"{self.look.rows:,} rows, {per}"
        table = Guess(f"{self.section}.table", self.look.table, reason, (), tuple(others))
        lists = {role: tuple(names) for role, names in self.several.items()}
        left = [LeftOut(self.look.table, name, reason) for name, reason in self.left.items()]
        validity = {role: self.roles.get(role) for role in ("valid_from", "valid_to")}
        return (
            Customers(self.look.table, column.name, **lists, **validity),  # type: ignore[arg-type]
            [table, *self.guesses],
            left,
        )

    def _validity(self, key: Column, begin: Column, end: Column) -> None:
        """The history: customers are then as they were at the moment, not as they are now."""
        self.roles |= {"valid_from": begin.name, "valid_to": end.name}
        self.guess(
            "valid_from", begin, f"with each {key.name} it occurs once: a row begins to hold"
        )
        still = 1 - _share_known(end)
        self.guess("valid_to", end, f"never before {begin.name}; {still:.0%} are open, as of now")


def _shown(column: Column, *, personal: bool) -> tuple[str, ...]:
    """Up to three different values of the sample, the commonest first; shapes if personal."""
    plain = [str(value) for value, _ in column.levels.most_common(12)]
    values = [masked(value) for value in plain] if personal else plain
    return tuple(_line(value) for value in list(dict.fromkeys(values))[:3])


def _line(text: str) -> str:
    """The text on one line of at most 40 printable signs."""
    clean = "".join(sign if sign.isprintable() else "?" for sign in text)
    return clean if len(clean) <= 40 else f"{clean[:39]}…"


# --- marks: how well a column fits a role (0 = not at all), and the sentence that says why -----


def _only(words: frozenset[str], *allowed: frozenset[str]) -> bool:
    """Whether a name is made of nothing but these words: merchant_id is, merchant_state is not."""
    return words <= frozenset().union(*allowed, KEY, FILL, EVENT)


def _share_known(column: Column) -> float:
    return len(column.known) / max(len(column.values), 1)


def _time(_: _Draft, column: Column) -> tuple[float, str]:
    times = column.times
    if times is None or times.unusable or _share_known(column) < 0.9:
        return 0, ""
    if column.words & (LABEL_FOR_SURE | {"birth", "birthday", "dob"}):
        return 0, ""
    known = times.seconds[~np.isnan(times.seconds)]
    ordered = len(known) > 1 and bool((np.diff(known) >= 0).mean() > 0.95)
    mark = 1 + 2 * bool(column.words & WHEN) - 4 * bool(column.words & NOT_WHEN)
    mark += 3 * (not times.to_the_day) + ordered + (column.kind not in NUMERIC)
    first, last = (pd.Timestamp(v, unit="s").date() for v in (known.min(), known.max()))
    detail = "to the day" if times.to_the_day else "with time of day"
    return max(mark, 0.1), f"times from {first} to {last} in the sample, {detail}"


def _id(draft: _Draft, column: Column) -> tuple[float, str]:
    if column.kind not in KEYS or column.times is not None or not draft.look.is_unique(column):
        return 0, ""
    mark = 1 + 3 * ((column.name,) == draft.look.primary_key) + 2 * column.unique
    mark += bool(column.words & KEY) + 2 * bool(column.words & EVENT & draft.look.words)
    mark += bool(column.words & EVENT) - 2 * bool(column.words & (PERSON | ACCOUNT))
    how = "the primary key" if (column.name,) == draft.look.primary_key else "a unique constraint"
    if not column.unique:
        how = "a value of its own in each row"
    return max(mark, 0.1), how


def _customer(draft: _Draft, column: Column) -> tuple[float, str]:
    if column.kind not in KEYS or draft.all_differ(column) or column.times is not None:
        return 0, ""
    refers = draft.look.refers(column.name)
    referred = words_of(refers.table) if refers else frozenset()
    mark = 0.0
    if column.words & PERSON and _only(column.words, PERSON, ACCOUNT):
        mark = 5.0 if column.words & KEY else 4.5
    elif referred & PERSON:
        mark = 4.0
    elif column.words & ACCOUNT and _only(column.words, ACCOUNT):
        mark = 2.0 + bool(column.words & KEY)
    if not mark or _share_known(column) < 0.3:
        return 0, ""
    text = f"the name says so; {_repeats(column)}"
    if refers:
        text = f"refers to {refers.table}.{refers.referred}; {_repeats(column)}"
    return mark + 0.5 * bool(refers), text


def _repeats(column: Column) -> str:
    values, rows = len(column.levels), len(column.known)
    if values == rows:
        return f"no value repeats in the {rows:,} rows of the sample"
    return f"{values:,} values in {rows:,} rows of the sample"


def _counterparty(draft: _Draft, column: Column) -> tuple[float, str]:
    refers = draft.look.refers(column.name)
    words = column.words | (words_of(refers.table) if refers else frozenset())
    if column.kind not in KEYS or draft.all_differ(column) or column.times is not None:
        return 0, ""
    if not words & OTHER_SIDE or not _only(column.words, OTHER_SIDE, ACCOUNT, NAMED):
        return 0, ""
    if len(column.levels) < 2:
        return 0, ""
    mark = 3 + bool(column.words & KEY) + bool(refers) + bool({"merchant", "payee"} & words)
    mark -= 2 * bool(NAMED & column.words) + (len(column.levels) <= FEW)
    return max(mark, 0.1), f"the name says so; {_repeats(column)}"


def _entity(draft: _Draft, column: Column) -> str:
    """Why a column is the key of a card, an account, a device; nothing where it is none."""
    if column.kind not in KEYS or draft.all_differ(column) or column.times is not None:
        return ""
    if not column.words & ENTITY or not _only(column.words, ENTITY, ENTITY_OF):
        return ""
    others = [draft.column("customer"), draft.column("counterparty")]
    if len(column.levels) <= MANY or any(other and _same(column, other) for other in others):
        return ""
    customer = others[0]
    if customer and _seldom_repeats(column) and not _seldom_repeats(customer):
        return ""  # of one payment each, as a session
    return f"a key of its own, beside the customer's; {_repeats(column)}"


def _seldom_repeats(column: Column) -> bool:
    return len(column.levels) >= 0.95 * len(column.known)


def _same(column: Column, other: Column) -> bool:
    """Whether two keys name the same things: both repeat, and nearly always together."""
    both = [
        (a, b)
        for a, b in zip(column.values, other.values, strict=True)
        if a not in (None, "") and b not in (None, "")
    ]
    pairs = len(set(both))
    levels = [len({pair[at] for pair in both}) for at in (0, 1)]
    if len(both) - max(levels, default=0) < MANY:
        return False  # too few repeats to tell
    return all(pairs - one <= (1 - NEARLY) * (len(both) - one) for one in levels)


def _order(draft: _Draft, column: Column) -> tuple[float, str]:
    if column.kind not in KEYS or draft.all_differ(column) or column.times is not None:
        return 0, ""
    if not column.words & ORDER or not _only(column.words, ORDER):
        return 0, ""
    if len(column.levels) <= FEW < len(column.known) / 4:
        return 0, ""  # a code: ticket = "single", "return"
    mark = 2 + bool(column.words & KEY) + bool({"order", "invoice"} & column.words)
    return mark, f"lines of one purchase share it; {_repeats(column)}"


def _amount(_: _Draft, column: Column) -> tuple[float, str]:
    if not column.numeric or column.words & NOT_MONEY or column.words & (KEY | JUDGED):
        return 0, ""
    if _share_known(column) < 0.5 or column.binary:
        return 0, ""
    mark = 4.0 if column.words & MONEY else 2.0 if column.words & WORTH else 0.0
    if not mark:
        return 0, ""
    extra = column.words - MONEY - WORTH - EVENT - FILL
    known = column.numbers[~np.isnan(column.numbers)]
    low, middle, high = (f"{v:,.2f}" for v in (known.min(), np.median(known), known.max()))
    mark += 0.5 * (column.kind == "number") - 0.5 * len(extra)
    return max(mark, 0.1), f"the name says so; from {low} to {high}, half below {middle}"


def _currency(_: _Draft, column: Column) -> tuple[float, str]:
    if column.kind != "text" or not column.words & CURRENCY or len(column.levels) > 100:
        return 0, ""
    codes = bool(column.levels) and all(len(level) == 3 for level in column.levels)
    if not codes and not column.words & {"currency", "ccy"}:
        return 0, ""
    return 1 + codes, f"the name says so; {_count(column)} in the sample"


def _label(_: _Draft, column: Column) -> tuple[float, str]:
    hints = [word for word in LABEL if word in column.words]
    if not hints or not column.binary or column.words & (KIND | {"flagged"}):
        return 0, ""
    if hints[0] not in LABEL_FOR_SURE and not column.known:
        return 0, ""
    ones = float(np.nansum(column.numbers)) / max(len(column.known), 1)
    mark = len(LABEL) - LABEL.index(hints[0])
    return mark, f"the name says so; 0 or 1, of the sample {ones:.2%} are 1"


def _label_kind(draft: _Draft, column: Column) -> tuple[float, str]:
    label = draft.column("label")
    if label is None or not column.words & (LABEL_FOR_SURE | label.words - EVENT - {"is"}):
        return 0, ""
    if not column.words & KIND or len(column.levels) > 50 or column.times is not None:
        return 0, ""
    if column.kind not in (*KEYS, "boolean"):
        return 0, ""
    innocent = {
        value
        for value, one in zip(column.values, label.numbers, strict=True)
        if one == 0 and value not in (None, "")
    }
    if len(innocent) > 1:
        return 0, ""  # it says something about rows that are no fraud: not the label's kind
    return 2, f"goes with {label.name}; {_count(column)} in the sample"


def _label_time(draft: _Draft, column: Column) -> tuple[float, str]:
    label = draft.column("label")
    if label is None or column.times is None or column.times.unusable:
        return 0, ""
    if not column.words & (LABEL_FOR_SURE | REPORTED):
        return 0, ""
    if column.kind == "text" and not _known_format(draft, column):
        return 0, ""
    return 1, f"when {label.name} was known"


def _baseline_score(_: _Draft, column: Column) -> tuple[float, str]:
    """What another system thought of the payment: a number with several values."""
    if not column.numeric or column.binary or len(column.levels) <= 2:
        return 0, ""
    if not column.words & SCORE or not _only(column.words, SCORE, SCORE_BY):
        return 0, ""
    known = column.numbers[~np.isnan(column.numbers)]
    reason = (
        "another system's opinion, higher being more suspicious: the density never sees it, "
        f"evaluate sets peerwatch beside it; from {known.min():,.4g} to {known.max():,.4g}"
    )
    return 1 + bool(column.words & SCORE_BY) + bool(column.words & {"risk", "fraud"}), reason


def _arrived(draft: _Draft, column: Column) -> tuple[float, str]:
    """When the row came to the table: hardly ever before its time, and usually after it.

    A copy of the time would find no late row.
    """
    time = draft.column("time")
    if not column.words & ARRIVED or not _readable(draft, column) or _share_known(column) < 0.9:
        return 0, ""
    assert time is not None and time.times is not None  # noqa: S101 - given before all others
    assert column.times is not None  # noqa: S101 - it is readable
    if column.kind == "text" and not is_iso(column.times.format):
        return 0, ""
    delay = column.times.seconds - time.times.seconds
    delay = delay[~np.isnan(delay)]
    if not len(delay) or (delay < 0).mean() > 1 - NEARLY or (delay > 0).mean() < 0.5:
        return 0, ""
    middle = pd.Timedelta(seconds=round(float(np.median(delay))))
    mark = 1 + bool(column.words & (ARRIVED - {"created", "received"}))
    return mark, (
        f"the name says so, and it is after {time.name}, by {middle} in the middle: late rows are "
        "found by it, best with an index on it"
    )


def _same_person(draft: _Draft, customer: Column, seen: Look, column: Column) -> float:
    """How well a unique column of another table joins to the customer of the transactions."""
    refers = draft.look.refers(customer.name)
    declared = refers is not None and (refers.table, refers.referred) == (seen.table, column.name)
    mark = 5.0 * declared + 3.0 * (column.name.lower() == customer.name.lower())
    both = any(column.words & group and customer.words & group for group in (PERSON, ACCOUNT))
    mark += 2.0 * both + 1.0 * bool(seen.words & PERSON)
    if seen.words & PERSON and column.words <= KEY:
        mark += 2.0  # clients.id
    if column.words & EVENT or seen.words & EVENT:
        mark -= 3.0
    if not mark > 0:
        return 0.0
    return mark - 4.0 * (not _overlap(customer, seen, column))


def _period(draft: _Draft, seen: Look, key: Column) -> tuple[Column, Column] | None:
    """The columns that say from when to when a row of a person holds, where the key repeats.

    The names go together (valid_from and valid_to), and in the sample the periods of one key hardly
    ever overlap; or, whatever the names, one row of a key ends as the next begins.
    """
    if seen.is_unique(key) or not seen.words & PERSON:
        return None
    return _period_by_name(draft, seen, key) or _period_by_value(draft, seen, key)


def _period_by_name(draft: _Draft, seen: Look, key: Column) -> tuple[Column, Column] | None:
    begins = [c for c in seen.columns if c.words & BEGINS and not c.words & ENDS]
    ends = [_ended(c) for c in seen.columns if c.words & ENDS]
    beside = BEGINS | ENDS | HOLDS
    return next(
        (
            (begin, end)
            for begin in begins
            for end in ends
            if begin.words - beside == end.words - beside
            and _follow(draft, key, begin, end)
        ),
        None,
    )  # fmt: skip


def _period_by_value(draft: _Draft, seen: Look, key: Column) -> tuple[Column, Column] | None:
    times = [(column, _ended(column)) for column in seen.columns if column is not key]
    return next(
        (
            (begin, end)
            for begin, _ in times
            for _, end in times
            if begin.name != end.name
            and begin.times is not None
            and end.times is not None
            and _follow(draft, key, begin, end)
            and _meet(key, begin, end)
        ),
        None,
    )  # fmt: skip


def _meet(key: Column, begin: Column, end: Column) -> bool:
    """Whether a row of a key nearly always ends as the next begins, or on the day before."""
    periods = _periods(key, begin, end)
    following = periods.shift(-1)
    gap = (following.begin - periods.end)[periods.key == following.key]
    return len(gap) >= FEW and bool(gap.between(0, 86_400).mean() >= NEARLY)


def _ended(column: Column) -> Column:
    """The column with its open ends as nulls."""
    values = (None if str(v).startswith(NO_END) else v for v in column.values)
    return replace(column, values=tuple(values))


def _follow(draft: _Draft, key: Column, begin: Column, end: Column) -> bool:
    """Whether the rows of each key follow one another, in times that the reader knows."""
    if not _readable(draft, begin) or (end.known and not _readable(draft, end)):
        return False
    periods = _periods(key, begin, end)
    earlier = periods.shift()
    same = (periods.key == earlier.key) & periods.begin.notna()
    wrong = (periods.end < periods.begin) | (
        same & ~((periods.begin >= earlier.end) & (periods.begin > earlier.begin))
    )
    return bool(same.any() and wrong.mean() <= 1 - NEARLY)


def _periods(key: Column, begin: Column, end: Column) -> pd.DataFrame:
    """key, begin, end (seconds; NaN where open) of each row, by key and begin."""
    unknown = np.full(len(key.values), np.nan)
    found = {
        name: unknown if column.times is None else column.times.seconds
        for name, column in (("begin", begin), ("end", end))
    }
    keys = [str(value) for value in key.values]
    return pd.DataFrame({"key": keys, **found}).sort_values(["key", "begin"])


def _readable(draft: _Draft, column: Column) -> bool:
    """Whether the reader of periods knows the column: as it knows those of labels."""
    if column.times is None or column.times.unusable:
        return False
    return column.kind != "text" or _known_format(draft, column)


def _known_format(draft: _Draft, column: Column) -> bool:
    """The reader of moments beside the transactions' own knows ISO and the format of the times."""
    time = draft.column("time")
    forms = {time.times.format} if time is not None and time.times is not None else set()
    return column.times is not None and (
        is_iso(column.times.format) or column.times.format in forms
    )


def _overlap(customer: Column, seen: Look, column: Column) -> bool:
    """Whether values may meet: by value where the sample is the table, else by range or form."""
    if seen.complete and customer.kind != column.kind:
        theirs = {str(value).lstrip("0") for value in column.levels}  # 7 and "000007"
        return any(str(value).lstrip("0") in theirs for value in customer.levels)
    if seen.complete:
        return any(value in column.levels for value in customer.levels)
    if customer.kind == column.kind == "integer":
        low, high = np.nanmin(column.numbers), np.nanmax(column.numbers)
        return bool(((customer.numbers >= low) & (customer.numbers <= high)).any())
    return customer.kind != column.kind or bool(
        {masked(v) for v in customer.levels} & {masked(v) for v in column.levels}
    )


# --- reasons for leaving a column out ----------------------------------------------------------


def _empty(_: _Draft, column: Column) -> str:
    if column.kind == "other":
        return "of a type that is not read"
    return "" if column.known else "only nulls in the sample"


def _constant(_: _Draft, column: Column) -> str:
    if len(column.levels) == 1:
        return "always the same value"
    most = column.levels.most_common(1)[0][1]
    if _share_known(column) < 0.5 and most >= NEARLY * len(column.known):
        return "nearly always null or the same value"
    return ""


def _personal(_: _Draft, column: Column) -> str:
    words = column.words
    named = words <= {"first", "last", "name"} or ("name" in words and bool(words & NAME_OF))
    mails = column.kind == "text" and sum("@" in level for level in column.levels)
    written = bool(mails) and mails > len(column.levels) / 2
    if named or written or (words & PERSONAL and not column.binary):
        return "personal data"
    return ""


def _trait(_: _Draft, column: Column) -> str:
    if not column.words & TRAIT_OF_PERSON or not _only(column.words, TRAIT, PERSON, CODE):
        return ""  # account_age tells about the payment's account
    return (
        "describes the customer, not the payment; a view with one row per customer could "
        "give it as a descriptor"
    )


def _leaks(draft: _Draft, column: Column) -> str:
    if column.words & JUDGED and "credit" not in column.words:
        return "looks like a label or another system's opinion, which the density must not see"
    label = draft.column("label")
    if label is None or (column.numeric and len(column.levels) > LEVELS):
        return ""
    pairs = list(zip(column.values, label.numbers, strict=True))
    bad = [value for value, one in pairs if one == 1]
    good = {value for value, one in pairs if one == 0}
    if len(bad) >= 5 and len(set(bad)) <= len(bad) / 2 and not good & set(bad):
        return f"says {label.name} in other words, which the density must not see"
    return ""


def _moment(draft: _Draft, column: Column) -> str:
    if column.times is None:
        return ""
    return f"a second time; {draft.roles['time']} is the one that is read"


def _date(_: _Draft, column: Column) -> str:
    if column.times is None:
        return ""
    return "a date; a view could give it as a number of days"


def _place(_: _Draft, column: Column) -> str:
    pair = re.compile(r"-?\d+(\.\d+)?( *; *|, +| +)-?\d+(\.\d+)?|-?\d+\.\d+,-?\d+\.\d+")
    texts = column.kind == "text" and all(pair.fullmatch(level) for level in column.levels)
    if texts or (column.words & PLACE and column.numeric):
        return "coordinates; a view could give a distance"
    return ""


def _counter(draft: _Draft, column: Column) -> str:
    """Columns that only tell the time again: they rise with it and hardly ever fall."""
    time = draft.column("time")
    if not column.numeric or time is None or time.times is None:
        return ""
    pairs = pd.DataFrame({"time": time.times.seconds, "value": column.numbers}).dropna()
    if len(pairs) < 10 or pairs["time"].nunique() < 3 or pairs["value"].nunique() < 3:
        return ""
    ranks = pairs.rank()
    alike = float(np.corrcoef(ranks["time"], ranks["value"])[0, 1]) > 0.9
    steps = np.diff(pairs.sort_values(["time", "value"])["value"])
    falls = float((steps < 0).sum() / max((steps != 0).sum(), 1))
    return "only counts up with time" if alike and falls < 0.02 else ""


def _own_key(draft: _Draft, column: Column) -> str:
    """Keys of things below the customer: each value belongs to one customer."""
    customer = draft.column("customer")
    if customer is None or column.kind not in KEYS or column.words & (MEASURE | MONEY):
        return ""
    if len(column.levels) <= MANY:
        return ""
    if _same(column, customer):
        return f"it names the same as {customer.name}"
    pairs = {
        (value, who)
        for value, who in zip(column.values, customer.values, strict=True)
        if value is not None and who is not None
    }
    owned = len(pairs) <= 1.02 * len(column.levels)
    if owned and len(column.levels) >= 0.9 * len(customer.levels):
        return (
            "a key of its own: each value belongs to one customer; if it is one of cards, accounts "
            "or devices, name it in entities"
        )
    return ""


def _other_key(draft: _Draft, column: Column) -> str:
    if column.kind == "uuid" or (draft.look.refers(column.name) and len(column.levels) > LEVELS):
        return "a key of something else"
    return ""


AMOUNT_IN_TEXT = "an amount written as text; a view should cast it to a number"
Rule = Callable[[_Draft, Column], str]
REASONS: tuple[Rule, ...] = (
    _empty, _personal, _trait, _leaks, _constant, _moment, _place, _counter, _own_key, _other_key,
)  # fmt: skip


def _outcome(_: _Draft, column: Column) -> str:
    if column.words & (OUTCOME | JUDGED) and "credit" not in column.words:
        return "looks like an outcome or another system's opinion"
    return ""


PEOPLE_REASONS: tuple[Rule, ...] = (
    _empty, _personal, _outcome, _constant, _date, _place, _other_key,
)  # fmt: skip


# --- category or number ------------------------------------------------------------------------


def kind_of(column: Column) -> tuple[str, str]:
    """("categories" or "numbers" or "", the reason) for a column without another role."""
    if column.kind in ("text", "boolean"):
        return _text_kind(column)
    if not column.numeric:
        return "", "of a type that is not read"
    known = column.numbers[~np.isnan(column.numbers)]
    whole = bool((known == np.round(known)).all())
    levels = len(column.levels)
    if column.words & MEASURE or not whole:
        return "numbers", f"a number, from {known.min():,.4g} to {known.max():,.4g} in the sample"
    if column.words & CODE:
        if levels <= LEVELS:
            return "categories", f"a code; {_count(column)} in the sample"
        return "", f"a code with more than {LEVELS} values"
    if column.words & (KEY | PERSON | ACCOUNT) and column.kind == "integer" and levels > 50:
        return "", "a key of something else"
    if levels <= FEW or (column.words & KEY and levels <= 50):
        return "categories", f"whole numbers that may be codes; {_count(column)} in the sample"
    if column.kind == "integer" and levels == len(known) > 50:
        return "", "nearly every row has a value of its own"
    return "numbers", f"a number, from {known.min():,.4g} to {known.max():,.4g} in the sample"


def _text_kind(column: Column) -> tuple[str, str]:
    levels, known = len(column.levels), len(column.known)
    numbers = sum(1 for level in column.levels if re.fullmatch(r"-?\d+([.,]\d+)?", level))
    if column.words & MONEY and numbers == levels:
        return "", AMOUNT_IN_TEXT
    if levels > max(10, 0.95 * known) or np.mean([len(level) for level in column.levels]) > 60:
        return "", "free text or a key: nearly every row has a value of its own"
    if levels > LEVELS or levels > max(10, known / 2):
        return "", f"too many values for a category: {_count(column)} in {known:,} rows"
    return "categories", f"{_count(column)} in the sample"


def _count(column: Column) -> str:
    return "1 value" if len(column.levels) == 1 else f"{len(column.levels):,} values"


def _kind_in_people(column: Column) -> tuple[str, str]:
    """As `kind_of`; what describes a person or a place is a descriptor."""
    role, reason = kind_of(column)
    if not column.words & TRAIT:
        return role, reason
    if column.numeric and ("age" in column.words or column.binary):
        return "descriptors", "describes the customer; no segment is formed by it"
    if column.numeric:
        return "", "the code of a place or trait; a view that casts it to text could describe it"
    if not role:
        return role, reason
    return "descriptors", f"describes the customer, no segment is formed by it; {reason}"


# --- refusals ----------------------------------------------------------------------------------


def _without_id(seen: Look) -> str:
    """Why the table cannot be mapped yet, and the view that would mend it."""
    if len(seen.primary_key) > 1:
        key = " || '-' || ".join(f"CAST(t.{quoted(part)} AS TEXT)" for part in seen.primary_key)
        why = f"its key has {len(seen.primary_key)} columns ({', '.join(seen.primary_key)})"
    elif len(seen.primary_key) == 1:
        key = f"CAST(t.{quoted(seen.primary_key[0])} AS TEXT)"
        why = f"its key {seen.primary_key[0]} is no whole number, text or UUID"
    else:
        rowid = seen.dialect == "sqlite" and not seen.view
        key = "t.rowid" if rowid else "<columns that tell rows apart, joined as text>"
        why = "no column has a value of its own in each row"
    return (
        f"{seen.table} looks like the transactions, but {why}; one column should be the id: "
        f"{_mending_view(seen.table, f'{key} AS transaction_key')}"
    )


def _mending_view(table: str, column: str) -> str:
    """What to do where a view with one more column would mend a table; column: its SQL over t."""
    view = quoted(f"{table.rpartition('.')[2]}_peerwatch")
    return (
        f"make a view and run init again: CREATE VIEW {view} AS SELECT {column}, t.* "
        f"FROM {quoted_table(table)} t"
    )
