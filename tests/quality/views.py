"""Columns that a detector beside peerwatch is given on the handbook's payments, and their views.

Every column is a function of the payments alone, from rows before the payment's moment; a column
of `LABELLED` also uses labels, and only those that are at least `DELAY_DAYS` old. The book's own
windows are (t − w, t] with the present payment inside, and (t − 7 d − w, t − 7 d] for its risks;
ours are [t − w, t).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fraudwatch.features import FLOOR, HISTORY_DAYS, PRIOR_PAYMENTS, RECENT
from shared.windows import DAY, Ledger, Window
from tests.quality import datasets
from tests.quality.fingerprints import source_of

DELAY_DAYS = 7
EVER = 400  # days: longer than the data
OPENING_DAYS = 28  # typical amounts come from here, before every test week
PRIOR = 5  # typical payments that a customer's own history is drawn to
UNITS = 1_000_000  # of a z-score, in exact sums
MOST = 3.0  # of a z-score in a mean, so that one large payment does not stand for many
NIGHT_ENDS = 6  # the book's night: hours 0 to 6

Column = Callable[["Payments"], np.ndarray]


class Payments:
    """The handbook's payments in order of time, as arrays, with the columns made so far.

    A column made once is kept in `folder`, under a name that tells the code and data it came from.
    """

    def __init__(self, rows: pd.DataFrame, folder: Path | None = None) -> None:
        self.times = rows["TX_DATETIME"].astype("datetime64[us]").astype("int64").to_numpy()
        self.day = rows["TX_TIME_DAYS"].to_numpy(np.int64)
        self.customer = rows["CUSTOMER_ID"].to_numpy(np.int64)
        self.terminal = rows["TERMINAL_ID"].to_numpy(np.int64)
        self.amount = rows["TX_AMOUNT"].to_numpy(np.float64)
        self.fraud = rows["TX_FRAUD"].to_numpy(np.int64)
        self.scenario = rows["TX_FRAUD_SCENARIO"].to_numpy(np.int64)
        self.identifier = rows["TRANSACTION_ID"].to_numpy(np.int64)
        self._folder = folder
        self._columns: dict[str, np.ndarray] = {}

    @classmethod
    def read(cls, folder: Path | None = None) -> Payments:
        return cls(datasets.frame("handbook/transactions.parquet"), folder)

    def column(self, name: str) -> np.ndarray:
        """(n,) float32, without NaN."""
        if name not in self._columns:
            self._columns[name] = self._kept(name)
        return self._columns[name]

    def matrix(self, view: str, part: slice) -> np.ndarray:
        """(rows of the part, columns of the view) float64."""
        columns = [self.column(name)[part] for name in VIEWS[view]]
        return np.column_stack(columns).astype(np.float64)

    def _kept(self, name: str) -> np.ndarray:
        if self._folder is None:
            return self._made(name)
        path = self._folder / f"{name}-{self._version}.npy"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npy")
            np.save(partial, self._made(name), allow_pickle=False)
            partial.replace(path)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def _made(self, name: str) -> np.ndarray:
        made = COLUMNS[name](self).astype(np.float32)
        if not np.isfinite(made).all():
            raise ValueError(f"column {name} holds {(~np.isfinite(made)).sum()} values not finite")
        return made

    @cached_property
    def _version(self) -> str:
        of_data = hashlib.sha256(self.times.tobytes() + self.amount.tobytes())
        of_data.update(source_of(Path(__file__)).encode())
        return of_data.hexdigest()[:12]

    @cached_property
    def cents(self) -> np.ndarray:
        return np.rint(self.amount * 100).astype(np.int64)

    @cached_property
    def opening(self) -> np.ndarray:
        """Amounts of the opening days, in cents."""
        return self.cents[self.day < self.day[0] + OPENING_DAYS]

    @cached_property
    def capped(self) -> np.ndarray:
        """Cents, winsorised at the opening's 99 % point: one large fraud is not a habit."""
        return np.minimum(self.cents, int(np.quantile(self.opening, 0.99)))

    @cached_property
    def of_customer(self) -> Ledger:
        return Ledger(self.customer, self.times)

    @cached_property
    def of_terminal(self) -> Ledger:
        return Ledger(self.terminal, self.times)

    @cached_property
    def z_score(self) -> np.ndarray:
        """(n,) the amount in the customer's own winsorised history, as a z-score."""
        own = self.of_customer.window(EVER * DAY)
        opening = np.minimum(self.opening, self.capped.max()) / 100
        n, mean = own.count(), _mean(self, own, self.capped)
        squares = own.total(self.capped**2) / 1e4 + PRIOR * (opening**2).mean()
        deviation = np.sqrt(np.maximum(squares / (n + PRIOR) - mean**2, 1.0))
        return (self.amount - mean) / deviation

    @cached_property
    def surprise(self) -> np.ndarray:
        """(n,) the same in whole millionths, at most `MOST` in size: what means are taken of."""
        return np.rint(UNITS * np.clip(self.z_score, -MOST, MOST)).astype(np.int64)


def _mean(payments: Payments, own: Window, cents: np.ndarray) -> np.ndarray:
    """Mean amount of a window as if `PRIOR` typical payments stood in it."""
    typical = np.minimum(payments.opening, cents.max()).mean() / 100
    return (own.total(cents) / 100 + PRIOR * typical) / (own.count() + PRIOR)


def _share(part: np.ndarray, of: np.ndarray) -> np.ndarray:
    return part / np.maximum(of, 1)


# --- the book's columns -------------------------------------------------------------------------


def _weekend(payments: Payments) -> np.ndarray:
    return (payments.times // DAY + 3) % 7 >= 5  # 1970-01-01 was a Thursday; Monday is 0


def _night(payments: Payments) -> np.ndarray:
    return payments.times % DAY // (DAY // 24) <= NIGHT_ENDS


def _customer_count(days: int) -> Column:
    return lambda payments: payments.of_customer.window(days * DAY).count() + 1


def _customer_mean(days: int) -> Column:
    def column(payments: Payments) -> np.ndarray:
        window = payments.of_customer.window(days * DAY)
        return (window.total(payments.cents) + payments.cents) / (window.count() + 1) / 100

    return column


def _book_window(payments: Payments, days: int) -> Window:
    return payments.of_terminal.window(days * DAY, DELAY_DAYS * DAY - 1)


def _terminal_count(days: int) -> Column:
    return lambda payments: _book_window(payments, days).count()


def _terminal_risk(days: int) -> Column:
    def column(payments: Payments) -> np.ndarray:
        window = _book_window(payments, days)
        return _share(window.total(payments.fraud), window.count())

    return column


# --- our own: relative to the customer, and what a terminal has seen -----------------------------


def _ratio_to_mean(payments: Payments) -> np.ndarray:
    own = payments.of_customer.window(EVER * DAY)
    return payments.amount / _mean(payments, own, payments.cents)


def _ratio_to_maximum(payments: Payments) -> np.ndarray:
    """Over the largest of the last `RECENT` payments; a customer's first over the typical one."""
    largest = payments.of_customer.window(EVER * DAY).quantiles(payments.cents, RECENT, (1.0,))
    typical = np.quantile(payments.opening, 0.5)
    return payments.cents / np.maximum(np.where(np.isnan(largest), typical, largest)[:, 0], 100)


def _log_days_since_last(payments: Payments) -> np.ndarray:
    gap = payments.of_customer.window(HISTORY_DAYS * DAY).since_last()
    return np.log1p(np.where(np.isnan(gap), HISTORY_DAYS * DAY, gap) / DAY)


def _visits(payments: Payments) -> np.ndarray:
    pairs = payments.customer * (payments.terminal.max() + 1) + payments.terminal
    return Ledger(pairs, payments.times).window(EVER * DAY).count()


def _surprise_of_customer(days: int) -> Column:
    def column(payments: Payments) -> np.ndarray:
        window = payments.of_customer.window(days * DAY)
        return _share(window.total(np.maximum(payments.surprise, 0)), window.count()) / UNITS

    return column


def _surprise_of_terminal(days: int) -> Column:
    def column(payments: Payments) -> np.ndarray:
        window = payments.of_terminal.window(days * DAY)
        return _share(window.total(payments.surprise), window.count()) / UNITS

    return column


def _burst(ledger: Ledger) -> np.ndarray:
    """Payments of the last day over those of a usual day."""
    return (ledger.window(DAY).count() + 1) / (ledger.window(30 * DAY).count() / 30 + 1)


def _focal_ratio(payments: Payments) -> np.ndarray:
    """peerwatch's `amount_ratio`: over the own median, drawn to the typical payment."""
    window = payments.of_customer.window(HISTORY_DAYS * DAY)
    typical = np.quantile(payments.opening, 0.5)
    median = window.quantiles(payments.cents, RECENT, (0.5,))[:, 0] / typical
    size = np.minimum(window.count(), RECENT)
    own = (np.where(size > 0, size * median, 0.0) + PRIOR_PAYMENTS) / (size + PRIOR_PAYMENTS)
    return payments.cents / typical / (own + FLOOR)


# --- labels at least a week old ------------------------------------------------------------------


def _known_frauds(ledger: str, days: int) -> Column:
    def column(payments: Payments) -> np.ndarray:
        window = getattr(payments, ledger).window(days * DAY, DELAY_DAYS * DAY)
        return window.total(payments.fraud)

    return column


def _known_rate(ledger: str, days: int) -> Column:
    def column(payments: Payments) -> np.ndarray:
        window = getattr(payments, ledger).window(days * DAY, DELAY_DAYS * DAY)
        return _share(window.total(payments.fraud), window.count())

    return column


def _newest_known(payments: Payments) -> np.ndarray:
    """Frauds among the terminal's three newest payments that are known."""
    known = payments.of_terminal.window(EVER * DAY, DELAY_DAYS * DAY)
    return np.nansum(known.recent(payments.fraud, 3), axis=1)


def _weight_of_risk(payments: Payments) -> np.ndarray:
    """The terminal's risk over 7 days, weighed with the logarithm of its payments."""
    window = _book_window(payments, 7)
    return _share(window.total(payments.fraud), window.count()) * np.log1p(window.count())


_WEEKS = (1, 7, 30)
_AT_TERMINAL, _OF_CUSTOMER = (3, 7, 14, 21), (7, 14)
COLUMNS: dict[str, Column] = {
    "amount": lambda payments: payments.amount,
    "weekend": _weekend,
    "night": _night,
    **{f"customer_count_{days}d": _customer_count(days) for days in _WEEKS},
    **{f"customer_mean_{days}d": _customer_mean(days) for days in _WEEKS},
    **{f"terminal_count_{days}d": _terminal_count(days) for days in _WEEKS},
    **{f"terminal_risk_{days}d": _terminal_risk(days) for days in _WEEKS},
    "z_score": lambda payments: payments.z_score,
    "ratio_to_mean": _ratio_to_mean,
    "ratio_to_maximum": _ratio_to_maximum,
    "log_days_since_last": _log_days_since_last,
    "visits": _visits,
    **{f"customer_surprise_{days}d": _surprise_of_customer(days) for days in (1, 7, 14)},
    "customer_burst": lambda payments: _burst(payments.of_customer),
    **{f"terminal_surprise_{days}d": _surprise_of_terminal(days) for days in (1, 7)},
    "terminal_burst": lambda payments: _burst(payments.of_terminal),
    "focal_ratio": _focal_ratio,
    **{f"known_rate_{days}d": _known_rate("of_terminal", days) for days in _AT_TERMINAL},
    **{f"known_frauds_{days}d": _known_frauds("of_terminal", days) for days in _AT_TERMINAL},
    **{f"own_known_rate_{days}d": _known_rate("of_customer", days) for days in _OF_CUSTOMER},
    **{f"own_known_frauds_{days}d": _known_frauds("of_customer", days) for days in _OF_CUSTOMER},
    "newest_known": _newest_known,
    "weight_of_risk": _weight_of_risk,
}
LABELLED = frozenset(
    name for name in COLUMNS if "risk" in name or "known" in name
)  # labels are among what these are made of
_names = tuple(COLUMNS)
_BOOK = _names[:15]
_FREE = tuple(name for name in _BOOK if name not in LABELLED)
_RICH = _FREE + _names[_names.index("z_score") : _names.index("focal_ratio")]
_KNOWN = _names[_names.index("known_rate_3d") : _names.index("weight_of_risk")]
VIEWS: dict[str, tuple[str, ...]] = {
    "book15": _BOOK,
    "free12": _FREE,
    "rich24": _RICH,
    "rich+known": _RICH + _KNOWN,
    "small9": (
        *("amount", "z_score", "ratio_to_mean", "ratio_to_maximum"),
        *("known_rate_14d", "own_known_rate_14d", "newest_known"),
        *("terminal_risk_7d", "terminal_risk_30d"),
    ),
    "focal2": ("focal_ratio", "amount"),
}


def uses_labels(view: str) -> bool:
    return not LABELLED.isdisjoint(VIEWS[view])
