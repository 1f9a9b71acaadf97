"""What a segment is like: profiles in real units, plain names, one sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from segmenter.features import LEVEL_SHARE, RFM_FEATURES, plain_names
from shared.encoding import Encoder, Feature

DISTINCT = 0.35  # standard deviations from the population from which a feature is worth a word
STRONG = 1.0  # standard deviations from which "very" is deserved
WORDS = 2  # of a name, where these tell the segments apart
TOLD = 3  # features in a description
LEVELS_TOLD = 8  # of a customers' category; more would crowd a profile
PROFILE = (
    "segment_id",
    "feature",
    "unit",
    "mean",
    "median",
    "p10",
    "p90",
    "population_median",
    "effect_size",
    "index_100",
)


@dataclass(frozen=True)
class Phrase:
    """How a high and a low value are said; adjectives stand before the noun, in slot order.

    One word of each slot is enough: net amount and basket say much the same.
    """

    slot: str
    high: str
    low: str


PACE, AGE, TIME, VALUE = "1 pace", "2 age", "3 time", "5 value"  # slots, in the order said
PHRASES = {
    "purchase_days": Phrase(PACE, "frequent", "occasional"),
    "gap_days": Phrase("6 gaps", "long gaps", "short gaps"),
    "tenure_days": Phrase(AGE, "long-standing", "new"),
    "recency_days": Phrase(TIME, "lapsing", "active"),
    "weekend_share": Phrase("4 weekday", "weekend", "weekday"),
    "night_share": Phrase("4 hour", "night", "daytime"),
    "basket_amount": Phrase(VALUE, "high baskets", "low baskets"),
    "net_amount": Phrase(VALUE, "high value", "low value"),
    "lines_per_basket": Phrase("6 lines", "many lines per order", "few lines per order"),
    "return_share": Phrase("7 returns", "many returns", "few returns"),
    "amount_trend": Phrase("8 trend", "growing", "declining"),
    "gap_variation": Phrase("9 rhythm", "irregular", "regular"),
}
RFM_READINGS = {
    1: ("hibernating", "hibernating", "at risk", "at risk", "not to be lost"),
    2: ("hibernating", "hibernating", "at risk", "at risk", "not to be lost"),
    3: ("about to sleep", "about to sleep", "in need of attention", "loyal", "loyal"),
    4: ("promising", "potentially loyal", "potentially loyal", "loyal", "loyal"),
    5: ("new", "potentially loyal", "potentially loyal", "champions", "champions"),
}  # marketing's map: by recency the row, by frequency the column, each 1 to 5
UNREAD = ("nats", "log ratio")  # units in which nobody thinks: last in a sentence
ADJECTIVES = "4~"  # slots up to here stand before the noun
ONE_TIME = "one-time"


def profiles(frame: pd.DataFrame, segments: pd.Series, features: Sequence[Feature]) -> pd.DataFrame:
    """One row per segment and numeric feature, the columns of PROFILE, in real units; the RFM
    scores come last.

    segments: segment_id per row of the frame, null where not assigned. The population is the
    assigned customers; missing values are left out. effect_size is NaN where nothing varies,
    index_100 where the population's mean is not positive. A category is described by the shares
    of its levels.
    """
    frame, features = with_levels(frame, features)
    assigned = segments.notna().to_numpy()
    ids = segments[assigned].astype(int).to_numpy()
    parts = [
        _profile(frame.loc[assigned, feature.name].astype(np.float64), ids, feature)
        for feature in (*features, *RFM_FEATURES)
        if feature.kind != "category" and feature.name in frame
    ]
    result = pd.concat(parts, ignore_index=True)
    return result.sort_values("segment_id", kind="stable", ignore_index=True)[list(PROFILE)]


def rfm_reading(recency: float, frequency: float) -> str:
    """What marketing calls customers of these mean scores, each from 1 to 5.

    >>> rfm_reading(4.6, 4.2), rfm_reading(1.2, 2.4)
    ('champions', 'hibernating')
    """
    return RFM_READINGS[round(recency)][round(frequency) - 1]


def with_levels(
    frame: pd.DataFrame, features: Sequence[Feature]
) -> tuple[pd.DataFrame, list[Feature]]:
    """Categories of the customers as one share per frequent level, 1 for who has it and else 0."""
    plain = [f for f in features if f.kind != "category"]
    columns: dict[str, pd.Series] = {}
    for feature in features:
        if feature.kind != "category" or feature.name not in frame:
            continue
        values = frame[feature.name].astype("str").fillna("")
        shares = values[values != ""].value_counts(normalize=True)
        for level in shares[shares >= LEVEL_SHARE].index[:LEVELS_TOLD]:
            name = f"{feature.name}_{level}"
            columns[name] = (values == level).astype(np.float64)
            said = f"share with {feature.description} {level}"
            plain.append(Feature(name, "share", "descriptor", "share", said, "none"))
    names = plain_names([*(f.name for f in features), *columns])
    renamed = {names[name]: values for name, values in columns.items()}
    described = [replace(f, name=names.get(f.name, f.name)) for f in plain]
    return frame.assign(**renamed), described


def _profile(values: pd.Series, ids: np.ndarray, feature: Feature) -> pd.DataFrame:
    groups = values.groupby(ids)
    mean, spread = float(values.mean()), float(values.std(ddof=0))
    table = pd.DataFrame(
        {
            "mean": groups.mean(),
            "median": groups.median(),
            "p10": groups.quantile(0.1),
            "p90": groups.quantile(0.9),
        }
    )
    table["population_median"] = values.median()
    table["effect_size"] = (table["mean"] - mean) / spread if spread > 0 else np.nan
    table["index_100"] = 100 * table["mean"] / mean if mean > 0 else np.nan
    table["feature"], table["unit"] = feature.name, feature.unit
    return table.rename_axis("segment_id").reset_index()


def effects(frame: pd.DataFrame, segments: pd.Series, features: Sequence[Feature]) -> pd.DataFrame:
    """Standardised differences, one row per segment_id and one column per numeric feature.

    On the features' transformed scale, where one great customer does not speak for a segment.
    """
    assigned = segments.notna().to_numpy()
    told = [f for f in features if f.kind != "category" and f.name in frame]
    known = frame[assigned]
    matrix = Encoder.fit(known, told).transform(known)
    table = pd.DataFrame(matrix, columns=[f.name for f in told])
    return table.groupby(segments[assigned].astype(int).to_numpy()).mean()


def name_segments(
    frame: pd.DataFrame,
    segments: pd.Series,
    features: Sequence[Feature],
    overrides: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """segment_id, name and description per segment; names are unique, overrides win.

    A name says the most distinctive features of those that shape segments; where that would name
    two alike, also what sets them apart from one another.
    """
    frame, features = with_levels(frame, features)
    table = effects(frame, segments, features)
    shape = [f for f in features if f.role == "shape"]
    given = {i: name for i, name in (overrides or {}).items() if i in table.index}
    once = _one_time(frame, segments)
    names = dict(given)
    open_ids = [int(i) for i in table.index if i not in given]
    names |= {i: _name(table.loc[i], shape, WORDS, i in once) for i in open_ids}
    base = dict(names)
    for count in range(WORDS + 1, len(shape) + 1):
        open_ids = [i for i in open_ids if list(names.values()).count(names[i]) > 1]
        for i in open_ids:
            alike = table.loc[[j for j in base if j != i and base[j] == base[i]]]
            names[i] = _name(table.loc[i], shape, count, i in once, alike)
    for i in open_ids:
        if list(names.values()).count(names[i]) > 1:
            names[i] = f"{names[i]} ({i})"
    profile = profiles(frame, segments, features)
    return pd.DataFrame(
        {
            "segment_id": table.index,
            "name": [names[i] for i in table.index],
            "description": [_description(profile, table.loc[i], features) for i in table.index],
        }
    )


def _one_time(frame: pd.DataFrame, segments: pd.Series) -> set[int]:
    """Segments whose customers all bought on a single day."""
    days = frame["purchase_days"].groupby(segments.to_numpy()).max()
    return {int(i) for i in days[days == 1].index}


def _name(
    effect: pd.Series,
    features: Sequence[Feature],
    count: int,
    once: bool,
    alike: pd.DataFrame | None = None,
) -> str:
    """ "Frequent weekend buyers, high baskets": adjectives, noun, additions; the noun only where
    an adjective needs it.

    alike: the effects of the segments of which the first WORDS say the same; the further words are
    then those that they do not share.
    """
    taken = {PACE: ONE_TIME, AGE: ""} if once else {}  # their age is their recency
    told = _by_distinction(effect, features)
    _take(taken, told, effect, count - once if alike is None else WORDS - once)
    if alike is not None:
        _take(taken, _by_contrast(effect, told, alike), effect, count - WORDS)
    said = [word for _, word in sorted(taken.items()) if word]
    before = [taken[slot] for slot in sorted(taken) if slot < ADJECTIVES and taken[slot]]
    after = said[len(before) :]
    head = [" ".join([*before, "buyers"])] if before else []
    text = ", ".join([*head, *after]) or "typical buyers"
    return text[0].upper() + text[1:]


def _take(
    taken: dict[str, str], features: Sequence[Feature], effect: pd.Series, count: int
) -> None:
    """Adds the words of the first features whose slot is free, at most so many."""
    for feature in features:
        phrase = _phrase(feature)
        if count > 0 and phrase.slot not in taken:
            taken[phrase.slot] = _word(phrase, float(effect[feature.name]))
            count -= 1


def _by_contrast(effect: pd.Series, told: Sequence[Feature], alike: pd.DataFrame) -> list[Feature]:
    """The features whose word none of those alike would get, the widest gap first."""

    def shared(feature: Feature) -> bool:
        own, others = effect[feature.name], alike[feature.name]
        return bool(((others.abs() >= DISTINCT) & (np.sign(others) == np.sign(own))).any())

    gap = {f.name: abs(float(effect[f.name] - alike[f.name].mean())) for f in told}
    return sorted((f for f in told if not shared(f)), key=lambda f: -gap[f.name])


def _word(phrase: Phrase, effect: float) -> str:
    word = phrase.high if effect > 0 else phrase.low
    strong = abs(effect) >= STRONG and phrase.slot in (PACE, VALUE)
    return f"very {word}" if strong else word


def _by_distinction(effect: pd.Series, features: Sequence[Feature]) -> list[Feature]:
    told = [f for f in features if f.name in effect and abs(effect[f.name]) >= DISTINCT]
    return sorted(told, key=lambda f: -abs(effect[f.name]))


def _phrase(feature: Feature) -> Phrase:
    """The words of a feature; those of a mapped column come from its description."""
    if feature.name in PHRASES:
        return PHRASES[feature.name]
    plain = feature.description
    if plain.startswith("share of "):
        what, column = plain.removeprefix("share of "), feature.name.partition("_share_")[0]
        return Phrase(f"A {column}", f"often {what}", f"rarely {what}")
    if plain.startswith("variety of "):
        what, column = plain.removeprefix("variety of "), feature.name.removesuffix("_entropy")
        return Phrase(f"A {column}", f"{what} varies", f"{what} stays the same")
    return Phrase(f"C {plain}", f"high {plain}", f"low {plain}")


def _description(profile: pd.DataFrame, effect: pd.Series, features: Sequence[Feature]) -> str:
    """One sentence of the most distinctive features: median here and over all customers."""
    own = profile[profile["segment_id"] == effect.name].set_index("feature")
    ranked = sorted(
        (f for f in features if f.name in effect and np.isfinite(effect[f.name])),
        key=lambda f: (f.role != "shape", f.unit in UNREAD, -abs(effect[f.name])),
    )
    told = [
        f"{f.description} {_figure(own.loc[f.name, 'median'], f)} "
        f"(all customers {_figure(own.loc[f.name, 'population_median'], f)})"
        for f in ranked[:TOLD]
    ]
    return "Typically " + ", ".join(told) + "."


def _figure(value: float, feature: Feature) -> str:
    """A number as a person writes it: shares in percent, large numbers without decimals."""
    if feature.kind == "share":
        return f"{value:.0%}"
    if feature.kind == "count" or abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.2f}"
