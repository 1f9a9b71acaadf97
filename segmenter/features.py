"""One row per customer as of a moment: what the customer did, in real units.

A purchase is a row with a positive amount, or without an amount where none is mapped; a return is
a row with a negative amount; a row of zero is neither. Where more than ACCOUNT_SHARE of the amounts
are negative they are movements of an account, for no shop takes so much back: money out is then the
purchase, money in neither.
An order is what shares an `order_id`, else what a customer bought at one moment.

Amounts in several currencies are compared by their typical size: each is divided by the median
absolute amount of its currency and multiplied by that of the most frequent one, which gives the
unit. With one currency nothing changes.

Recency is the time from the last purchase to `as_of` (marketing's sense; the "recency" of models
of customer lifetime runs from the first purchase to the last). Everything is seen through the
lookback window: tenure is the time since the first purchase *within* it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from shared.encoding import Feature

DAY_US = 86_400_000_000
TREND_DAYS = 90
LEVELS_SHOWN = 8  # levels per category whose share is a feature; more would crowd a profile
LEVEL_SHARE = 0.02  # of all rows; a rarer level is typical of hardly anyone
ACCOUNT_SHARE = 1 / 3  # of negative amounts: shops stay far below, accounts far above
TELLING = 4  # letters; a shorter level (DE, 7) says little without its column's name
NIGHT_ENDS = 6  # local hour
LONGEST_NAME = 60  # PostgreSQL cuts identifiers at 63 bytes

FEATURES: tuple[Feature, ...] = (
    Feature("recency_days", "continuous", "shape", "days", "days since the last purchase", "log1p"),
    Feature("purchase_days", "count", "shape", "days", "purchase days", "log1p"),
    Feature("basket_amount", "continuous", "shape", "currency", "median order amount", "log1p"),
    Feature("net_amount", "continuous", "shape", "currency", "net amount", "log1p"),
    Feature("lines_per_basket", "continuous", "shape", "lines", "lines per order", "log1p"),
    Feature("tenure_days", "continuous", "shape", "days", "days since the first purchase", "log1p"),
    Feature("gap_days", "continuous", "shape", "days", "days between purchases", "log1p"),
    Feature("gap_variation", "continuous", "shape", "", "irregularity of purchases", "log1p"),
    Feature("active_months", "count", "descriptor", "months", "months with a purchase", "log1p"),
    Feature("return_share", "share", "shape", "share", "returned share of the value", "logit"),
    Feature("weekend_share", "share", "shape", "share", "share of orders at weekends", "logit"),
    Feature("night_share", "share", "shape", "share", "share of orders from 0 to 6 h", "logit"),
    Feature(
        "amount_trend",
        "continuous",
        "shape",
        "log ratio",
        "spending trend over 90 days",
    ),
)
RFM = ("rfm_recency", "rfm_frequency", "rfm_monetary")  # quintiles, 5 is best
RFM_FEATURES = tuple(
    Feature(name, "count", "descriptor", "of 5", f"{said}, 5 is best")
    for name, said in zip(RFM, ("recency", "frequency", "money"), strict=True)
)  # described in profiles, for those who know them
RESERVED = ("customer_id", "as_of", *RFM)  # columns beside the features in customer_features


def build(
    rows: pd.DataFrame,
    as_of: int,
    timezone: str,
    customers: pd.DataFrame | None = None,
    levels: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """The feature frame as of `as_of` (microseconds), with column `customer_id`, sorted by it.

    rows: transactions of the lookback window in any order, all before `as_of`; rows without a
    customer are left out. customers: mapped columns by customer_id; a customer there without a
    row gets one whose purchase_days is 0 and whose other features are NaN. levels: of each
    category, those whose shares are wanted; `typical_levels(rows)` where not given.
    """
    if len(rows) and int(rows["occurred_at"].max()) >= as_of:
        raise ValueError(
            f"features as of {as_of} were given a row at {rows['occurred_at'].max()}; "
            "expected only rows before"
        )
    rows = rows[rows["customer_id"].notna()]
    codes, keys = pd.factorize(rows["customer_id"], sort=True)
    lines = _lines(rows, codes, timezone)
    wanted = typical_levels(rows) if levels is None else levels
    parts = [
        _time_features(lines, as_of),
        _amount_features(lines, as_of),
        _moment_features(lines),
        *(
            _category_features(lines, rows[f"category.{name}"], name, wanted.get(name, ()))
            for name in _categories(rows)
        ),
    ]
    frame = pd.concat(parts, axis=1).reindex(pd.RangeIndex(len(keys))).astype(np.float64) + 0.0
    frame.insert(0, "customer_id", keys)
    frame = _with_customers(frame, customers)
    frame = frame.rename(columns=plain_names(c for c in frame if c != "customer_id"))
    frame["purchase_days"] = frame["purchase_days"].fillna(0.0)
    return pd.concat([frame, _rfm(frame)], axis=1)


def declared(
    rows: pd.DataFrame,
    customers: pd.DataFrame | None = None,
    levels: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Feature, ...]:
    """The features that `build` makes of the same arguments: FEATURES and the mapped columns'."""
    wanted = typical_levels(rows) if levels is None else levels
    brought = [
        feature
        for name in _categories(rows)
        for feature in _category_declarations(name, wanted.get(name, ()), rows[f"category.{name}"])
    ]
    if customers is not None:
        brought += [
            _customer_feature(c, pd.api.types.is_numeric_dtype(customers[c]))
            for c in customers.columns
            if c != "customer_id"
        ]
    names = plain_names(feature.name for feature in (*FEATURES, *brought))
    return (*FEATURES, *(replace(feature, name=names[feature.name]) for feature in brought))


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Each name as analysts can write it in SQL: lower-case snake_case, unique, 60 signs at most.

    A name that is another's, or a column of ours, once it is plain, gets a digest of what it was.

    >>> plain_names(["country_share_United Kingdom"])
    {'country_share_United Kingdom': 'country_share_united_kingdom'}
    """
    plain = {name: _plain(name) for name in names}
    taken = Counter([*plain.values(), *RESERVED])
    return {
        name: short
        if taken[short] == 1 or (name == short and short not in RESERVED)
        else f"{short[:51].strip('_')}_{sha256(name.encode()).hexdigest()[:8]}"
        for name, short in plain.items()
    }


def _plain(name: str) -> str:
    """Accents, case and signs gone: what is left of a name in ASCII."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "_", letters).strip("_")
    return (words if words[:1].isalpha() else f"f_{words}")[:LONGEST_NAME].strip("_")


def typical_levels(rows: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Of each category its most frequent levels: at most LEVELS_SHOWN, each with its share."""
    found = {}
    for name in _categories(rows):
        values = rows[f"category.{name}"]
        counts = values[values != ""].value_counts()
        frequent = counts[counts >= LEVEL_SHARE * counts.sum()]
        ranked = sorted(frequent.items(), key=lambda item: (-item[1], item[0]))
        found[name] = tuple(str(level) for level, _ in ranked[:LEVELS_SHOWN])
    return found


def _categories(rows: pd.DataFrame) -> list[str]:
    return [c.removeprefix("category.") for c in rows.columns if c.startswith("category.")]


def _category_declarations(name: str, levels: Sequence[str], values: pd.Series) -> list[Feature]:
    """Entropy, level shares and top share.

    Where the levels are all there are, their shares say everything: entropy and top share follow
    from them, along a curve that no Gaussian holds, and are described only.
    """
    plain = name.replace("_", " ")
    role = "descriptor" if values.isin([*levels, ""]).all() else "shape"
    shares = [
        Feature(_share_name(name, level), "share", "shape", "share", f"share of {said}", "logit")
        for level in levels
        for said in [level if len(level) >= TELLING else f"{plain} {level}"]
    ]
    top = f"share of the leading {plain}"
    return [
        *shares,
        Feature(f"{name}_entropy", "continuous", role, "nats", f"variety of {plain}"),
        Feature(f"{name}_top_share", "share", "descriptor", "share", top, "logit"),
    ]


def _share_name(name: str, level: str) -> str:
    return f"{name}_share_{level}"


def _customer_feature(column: str, numeric: bool) -> Feature:
    """The declaration of a column of the customers' table; its amounts keep their own unit."""
    kind, _, name = column.partition(".")
    role = "descriptor" if kind == "descriptor" else "shape"
    form = "continuous" if numeric else "category"
    return Feature(_customer_name(column), form, role, "", name.replace("_", " "))


def _customer_name(column: str) -> str:
    return "customer_" + column.partition(".")[2]


def _with_customers(frame: pd.DataFrame, customers: pd.DataFrame | None) -> pd.DataFrame:
    if customers is None:
        return frame
    names = {c: _customer_name(c) for c in customers.columns if c != "customer_id"}
    merged = frame.merge(customers.rename(columns=names), on="customer_id", how="outer")
    return merged.sort_values("customer_id", ignore_index=True)


def _rfm(frame: pd.DataFrame) -> pd.DataFrame:
    """Quintiles 1..5 among customers who bought; equal values get equal scores; else NA."""
    bought = frame["purchase_days"] > 0
    values = (-frame["recency_days"], frame["purchase_days"], frame["net_amount"])
    ranks = {
        name: np.ceil(5 * value.where(bought).rank(pct=True)).astype("Int64")
        for name, value in zip(RFM, values, strict=True)
    }
    return pd.DataFrame(ranks, index=frame.index)


def _lines(rows: pd.DataFrame, codes: np.ndarray, timezone: str) -> pd.DataFrame:
    """Rows as plain columns: customer code, moment, local moment, amount, kind and order."""
    amount = _signed(_one_currency(rows))
    moment = rows["occurred_at"].to_numpy(dtype=np.int64)
    lines = pd.DataFrame(
        {
            "customer": codes,
            "moment": moment,
            "local": _local(moment, timezone),
            "amount": amount,
            "bought": ~(amount <= 0),
            "order": _orders(rows, codes, moment),
        }
    )
    lines["day"] = lines["local"] // DAY_US
    return lines


def _one_currency(rows: pd.DataFrame) -> np.ndarray:
    """Amounts (n,) in the most frequent currency, by the ratio of typical amounts."""
    amount = rows["amount"].to_numpy(dtype=np.float64)
    currency = rows["currency"].astype("str").fillna("")
    if currency.nunique() <= 1:
        return amount
    counts = currency.value_counts()
    main = min(counts[counts == counts.max()].index)
    typical = pd.Series(np.abs(amount), index=rows.index).groupby(currency).median()
    typical = typical.where(typical > 0, 1.0)
    return amount * (typical[main] / currency.map(typical).to_numpy())


def _signed(amount: np.ndarray) -> np.ndarray:
    """Amounts (n,) with purchases positive; of an account what went out, and zero for what came
    in."""
    out, moved = int((amount < 0).sum()), int((amount != 0).sum() - np.isnan(amount).sum())
    return np.where(amount > 0, 0.0, -amount) if out > ACCOUNT_SHARE * moved else amount


def _local(moment: np.ndarray, timezone: str) -> np.ndarray:
    """Local wall-clock time in microseconds since 1970-01-01 00:00 local, (n,) int64."""
    zone = ZoneInfo(timezone)
    times = pd.DatetimeIndex(moment.astype("datetime64[us]"), tz="UTC").tz_convert(zone)
    return times.tz_localize(None).as_unit("us").asi8


def _orders(rows: pd.DataFrame, codes: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """A number per order, (n,): customer and order_id, else customer and moment."""
    named = rows["order_id"].notna().to_numpy()
    names = pd.factorize(rows["order_id"])[0]
    return (
        pd.DataFrame({"c": codes, "o": names, "m": np.where(named, 0, moment)})
        .groupby(["c", "o", "m"], sort=False)
        .ngroup()
        .to_numpy()
    )


def _time_features(lines: pd.DataFrame, as_of: int) -> pd.DataFrame:
    """Recency, frequency, tenure, gaps and months of purchases, of customers who bought.

    One gap is no habit (and is tenure less recency over again): gaps need three purchase days.
    """
    bought = lines[lines["bought"]]
    moments = bought.groupby("customer")["moment"].agg(["min", "max"])
    days = bought[["customer", "day"]].drop_duplicates().sort_values(["customer", "day"])
    gaps = days["day"].diff().where(days["customer"].diff() == 0).groupby(days["customer"])
    month = days["day"].to_numpy().astype("datetime64[D]").astype("datetime64[M]").astype(int)
    months = days.assign(month=month)[["customer", "month"]].drop_duplicates()
    return pd.DataFrame(
        {
            "recency_days": (as_of - moments["max"]) / DAY_US,
            "purchase_days": days.groupby("customer").size(),
            "tenure_days": (as_of - moments["min"]) / DAY_US,
            "gap_days": gaps.median().where(gaps.count() >= 2),
            "gap_variation": (gaps.std(ddof=0) / gaps.mean()).where(gaps.count() >= 2),
            "active_months": months.groupby("customer").size(),
        }
    )


def _amount_features(lines: pd.DataFrame, as_of: int) -> pd.DataFrame:
    """Net amount, orders, returns and trend; NaN where no amount is known."""
    bought = lines[lines["bought"]]
    amounts = lines.groupby("customer")["amount"]
    inward = lines["amount"].clip(lower=0).groupby(lines["customer"]).sum()
    back = -lines["amount"].clip(upper=0).groupby(lines["customer"]).sum()
    turned = (inward + back).where(inward + back > 0)
    orders = bought.groupby(["customer", "order"])["amount"]
    basket = orders.sum(min_count=1).groupby("customer").median()
    return pd.DataFrame(
        {
            "net_amount": amounts.sum(min_count=1),
            "basket_amount": basket,
            "lines_per_basket": orders.size().groupby("customer").mean(),
            "return_share": back / turned,
            "amount_trend": _trend(bought, basket, as_of),
        }
    )


def _trend(bought: pd.DataFrame, basket: pd.Series, as_of: int) -> pd.Series:
    """log((last 90 days + one basket) / (90 days before + one basket)).

    The basket keeps the ratio finite. NaN for customers of fewer than 180 days: they had no time
    before to compare with.
    """
    age = (as_of - bought["moment"]) / DAY_US
    customer = bought["customer"]
    last = bought["amount"].where(age <= TREND_DAYS, 0.0).groupby(customer).sum()
    inside = (age > TREND_DAYS) & (age <= 2 * TREND_DAYS)
    before = bought["amount"].where(inside, 0.0).groupby(customer).sum()
    long_known = age.groupby(customer).max() > 2 * TREND_DAYS
    return np.log((last + basket) / (before + basket)).where(long_known)


def _moment_features(lines: pd.DataFrame) -> pd.DataFrame:
    """Shares of orders at weekends and at night, by the order's first line.

    Where every row lies at midnight the source keeps dates only, and nights are unknown (NaN).
    """
    orders = lines[lines["bought"]].groupby(["customer", "order"])["local"].min()
    weekday = (orders // DAY_US + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    in_day = orders % DAY_US
    night = (in_day < NIGHT_ENDS * DAY_US // 24).astype(float)
    shares = pd.DataFrame({"weekend_share": (weekday >= 5).astype(float), "night_share": night})
    shares = shares.groupby("customer").mean()
    if not (lines["local"] % DAY_US).any():
        shares["night_share"] = np.nan
    return shares


def _category_features(
    lines: pd.DataFrame, values: pd.Series, name: str, levels: Sequence[str]
) -> pd.DataFrame:
    """Entropy, top share and shares of `levels` among the bought rows with a value."""
    kept = lines["bought"].to_numpy() & (values != "").to_numpy()
    cells = pd.DataFrame(
        {"customer": lines["customer"].to_numpy()[kept], "level": values.to_numpy()[kept]}
    )
    counts = cells.groupby(["customer", "level"]).size()
    shares = counts / counts.groupby("customer").sum()
    by_customer = shares.groupby("customer")
    frame = pd.DataFrame(
        {
            f"{name}_entropy": -(shares * np.log(shares)).groupby("customer").sum(),
            f"{name}_top_share": by_customer.max(),
        }
    )
    for level in levels:
        share = shares[shares.index.get_level_values("level") == level].droplevel("level")
        frame[_share_name(name, level)] = share.reindex(frame.index, fill_value=0.0)
    return frame
