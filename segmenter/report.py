"""The segment report: frames of segments, profiles and moves become sections for `shared.reports`.

Frames and their columns are those of the result tables where there is one; every frame may be
missing or empty, and then a sentence says so. Nothing here reads a database or the clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from segmenter.explanations import PROFILE, rfm_reading
from segmenter.features import RFM
from segmenter.publishing import STABLE
from shared import charts
from shared.reports import (
    DRIFT,
    MISSING,
    Bar,
    Card,
    Cards,
    Cell,
    Column,
    Fact,
    Facts,
    Figure,
    Note,
    Section,
    Shaded,
    Table,
    drift_section,
    frame_of,
    identity,
    is_missing,
    number,
    percent,
    plural,
    quantity,
    title_of,
)

MOST_SEGMENTS = 24  # cards, bars and ellipses
MOST_COLUMNS = 12  # segments side by side in the heat map and the table of moves
MOST_FEATURES = 18  # lines of the heat map
MOST_LEFT_OUT = 60
MOST_CURVES = 8  # families per figure, the best; more lines cannot be told apart
SMALL_EFFECT = 0.2  # standard deviations; less is not worth a line (Cohen 1988)

_SEGMENTS = ("segment_id", "name", "description", "customer_count", "share")
_STRATA = {
    "all": "All customers",
    "single": "Customers with one purchase day",
    "repeat": "Customers with several purchase days",
}
_MADE = {
    "parts": "the parts of the chosen model, joined where they overlap",
    "cut": "cells of recency, frequency and money, as these customers form one continuum without "
    "parts that a second fit would find again",
}
_STATES = {
    "assigned": "near enough to one segment",
    "outlier": "like no segment: looked at one by one",
    "too_new": "too little history to tell",
    "inactive": "nothing bought in the look-back window",
}


@dataclass(frozen=True)
class _View:
    """What several sections look at. `segments` is largest first.

    names and places (which fix the colour) are by segment_id, labels by feature.
    """

    segments: pd.DataFrame
    profiles: pd.DataFrame
    names: Mapping[int, str]
    places: Mapping[int, int]
    labels: Mapping[str, str]
    frames: Mapping[str, pd.DataFrame]

    def name(self, segment_id: Any) -> str:
        if is_missing(segment_id):
            return "no segment"
        return self.names.get(int(segment_id), f"Segment {int(segment_id)}")

    def label(self, feature: object) -> str:
        """The feature in words; its name where nothing describes it."""
        return self.labels.get(str(feature), title_of(str(feature)))


def sections(frames: Mapping[str, pd.DataFrame]) -> list[Section]:
    """The report's sections, the answer first.

    frames: segments (segment_id, name, description, customer_count, share), profiles
    (segment_profiles), states (state, customers), picture (x, y, segment_id), ellipses
    (segment_id, cx, cy, a, b, angle in radians), axes (x, y: what grows along them), criterion
    (k, family, criterion, chosen, stratum), published (stratum, segments, by: parts or cut,
    agreement), movements (from_segment_id, to_segment_id,
    customers), features (feature, description, unit, used, reason), rfm (segment_id and its mean
    rfm_recency, rfm_frequency, rfm_monetary), drift (drift_metrics of the newest scoring), model
    and run.
    """
    view = _view(frames)
    return [
        _sizes(view),
        _cards(view),
        _profiles(view),
        _picture(view),
        _movements(view),
        drift_section(
            "Whether the customers are still those of the fit",
            frame_of(frames, "drift", DRIFT),
            view.label,
            "fit again, and let the gate decide",
        ),
        _choice(view),
        _features(view),
        _guide(),
        identity(frames),
    ]


def _view(frames: Mapping[str, pd.DataFrame]) -> _View:
    segments = frame_of(frames, "segments", _SEGMENTS).dropna(subset=["segment_id"])
    segments = segments.sort_values("segment_id").assign(place=range(len(segments)))
    names = [
        f"Segment {key}" if is_missing(name) else str(name)
        for key, name in zip(segments.segment_id, segments.name, strict=True)
    ]
    twice = {name for name, count in Counter(names).items() if count > 1}
    segments = segments.assign(
        name=[
            f"{name} ({key})" if name in twice else name
            for key, name in zip(segments.segment_id, names, strict=True)
        ],
        customer_count=segments.customer_count.astype(float),
        share=segments.share.astype(float),
    )
    segments = segments.sort_values(["customer_count", "segment_id"], ascending=[False, True])
    profiles = frame_of(frames, "profiles", PROFILE)
    profiles = profiles[~profiles.feature.isin(RFM)]  # these stand on the cards
    numbers = ["mean", "median", "population_median", "effect_size", "index_100"]
    profiles = profiles.assign(**{name: profiles[name].astype(float) for name in numbers})
    keys = [int(key) for key in segments.segment_id]
    told = frame_of(frames, "features", ("feature", "description")).dropna(subset=["description"])
    return _View(
        segments=segments.reset_index(drop=True),
        profiles=profiles,
        names=dict(zip(keys, segments.name, strict=True)),
        places=dict(zip(keys, segments.place, strict=True)),
        labels={
            str(feature): title_of(str(description))
            for feature, description in zip(told.feature, told.description, strict=True)
        },
        frames=frames,
    )


def _sizes(view: _View) -> Section:
    title = "The segments and their sizes"
    states = frame_of(view.frames, "states", ("state", "customers"))
    if view.segments.empty:
        return Section(title, "No segments are published yet.", _state_blocks(states))
    shown = view.segments.head(MOST_SEGMENTS)
    svg = charts.horizontal_bars(
        shown.name.tolist(),
        shown.customer_count.tolist(),
        [
            f"{number(count)} ({percent(share)})"
            for count, share in zip(shown.customer_count, shown.share, strict=True)
        ],
        title="Customers per segment",
        colours=[charts.group_colour(int(place)) for place in shown.place],
    )
    left = len(view.segments) - len(shown)
    caption = f"{plural(left, 'smaller segment')} left out here." if left else ""
    total = number(float(view.segments.customer_count.sum()))
    first = view.segments.iloc[0]
    lead = (
        f"{total} customers fall into {plural(len(view.segments), 'segment')}; the largest, "
        f"{first['name']}, holds {percent(first.share)}."
    )
    return Section(title, lead, [Figure(svg, caption), *_state_blocks(states)])


def _state_blocks(states: pd.DataFrame) -> list[Facts | Note]:
    if states.empty:
        return [Note("How many customers have no segment was not counted.")]
    total = float(states.customers.sum())
    return [
        Facts(
            [
                Fact(
                    title_of(str(row.state)),
                    f"{number(row.customers)} ({percent(row.customers / max(total, 1.0))})",
                    _STATES.get(str(row.state), ""),
                )
                for row in states.itertuples()
            ]
        )
    ]


def _cards(view: _View) -> Section:
    title = "Who they are"
    if view.segments.empty:
        return Section(title, "There is no segment to describe.")
    shown = view.segments.head(MOST_SEGMENTS)
    rfm = frame_of(
        view.frames, "rfm", ("segment_id", "rfm_recency", "rfm_frequency", "rfm_monetary")
    )
    cards = [_card(row, view, rfm) for row in shown.itertuples()]
    left = len(view.segments) - len(shown)
    note = f"{plural(left, 'smaller segment')} left out here: see segment_summary." if left else ""
    lead = "Each segment with what sets it apart from the average customer, the strongest first."
    return Section(title, lead, [Cards(cards, note, half=True)])


def _card(segment: Any, view: _View, rfm: pd.DataFrame) -> Card:
    own = view.profiles[view.profiles.segment_id == segment.segment_id]
    own = own[own.effect_size.notna()]
    own = own.assign(size=own.effect_size.abs())
    own = own.sort_values(["size", "feature"], ascending=[False, True])
    own = own[~own[["mean", "median", "population_median"]].round(9).duplicated()]
    clear = own[own["size"] >= SMALL_EFFECT]
    lines = clear.head(5) if len(clear) >= 3 else own.head(3)
    counted = f"{number(segment.customer_count)} customers"
    return Card(
        badge=str(int(segment.segment_id)),
        title=segment.name,
        meta=[counted, f"{percent(segment.share)} of the assigned", *_rfm(segment.segment_id, rfm)],
        text="" if is_missing(segment.description) else str(segment.description),
        bars=[_bar(row, view.label(row.feature)) for row in lines.itertuples()],
        bars_title="Typical of it: medians beside those of all; index of means (all: 100)",
        colour=charts.group_colour(int(segment.place)),
    )


def _rfm(segment_id: object, rfm: pd.DataFrame) -> list[str]:
    row = rfm[rfm.segment_id == segment_id]
    if row.empty:
        return []
    parts = (row.rfm_recency.iloc[0], row.rfm_frequency.iloc[0], row.rfm_monetary.iloc[0])
    shown = [MISSING if is_missing(part) else f"{float(part):.1f}" for part in parts]
    scores = f"recency {shown[0]}, frequency {shown[1]}, money {shown[2]} of 5"
    if is_missing(parts[0]) or is_missing(parts[1]):
        return [f"RFM: {scores}"]
    return [f"RFM: {rfm_reading(float(parts[0]), float(parts[1]))} ({scores})"]


def _bar(profile: Any, label: str) -> Bar:
    """Medians; where those are the same (often 0), means, so that the difference is seen."""
    value, usual, how = profile.median, profile.population_median, ""
    if value == usual and profile.index_100 > 0:
        value, usual, how = profile.mean, 100 * profile.mean / profile.index_100, " on average"
    effect = profile.effect_size
    index = f"index {profile.index_100:,.0f}" if math.isfinite(profile.index_100) else ""
    unit = "" if is_missing(profile.unit) else str(profile.unit)
    return Bar(
        label=label,
        value=quantity(value, unit) + how,
        compared=f"all {quantity(usual, unit)}",
        length=abs(effect) / 2,
        remark=index or f"{effect:+.1f} sd".replace("-", "−"),
        tone="up" if effect > 0 else "down",
    )


def _profiles(view: _View) -> Section:
    title = "How the segments differ"
    known = view.profiles.dropna(subset=["effect_size", "segment_id"])
    known = known[known.segment_id.isin(view.segments.segment_id)]
    if known.empty:
        return Section(title, "No profiles are stored for these segments.")
    segments = view.segments.head(MOST_COLUMNS)
    table = known.pivot_table(
        index="feature", columns="segment_id", values="effect_size", aggfunc="first"
    ).reindex(columns=segments.segment_id)
    strength = table.abs().max(axis=1)
    order = sorted(table.index, key=lambda name: (-float(np.nan_to_num(strength[name])), str(name)))
    shown = table.loc[order[:MOST_FEATURES]]
    svg = charts.heat_map(
        [view.label(name) for name in shown.index],
        segments.name.tolist(),
        shown.to_numpy(dtype=float),
        title="Effect size of each feature in each segment",
        colours=[charts.group_colour(int(place)) for place in segments.place],
    )
    strongest = view.label(shown.index[0])
    lead = (
        f"{strongest}: this separates the segments most. A cell compares a segment with everyone."
    )
    return Section(title, lead, [Figure(svg, _heat_caption(view, table, shown))])


def _heat_caption(view: _View, table: pd.DataFrame, shown: pd.DataFrame) -> str:
    parts = [
        "A number is the distance of the segment's mean from the mean of all customers, in "
        "standard deviations: orange is above, blue below, 0 is average."
    ]
    if len(table) > len(shown):
        parts.append(f"{plural(len(table) - len(shown), 'flatter feature')} left out.")
    if len(view.segments) > MOST_COLUMNS:
        less = len(view.segments) - MOST_COLUMNS
        parts.append(f"{plural(less, 'smaller segment')} left out.")
    return " ".join(parts)


def _picture(view: _View) -> Section:
    title = "The customers in two dimensions"
    points = frame_of(view.frames, "picture", ("x", "y", "segment_id"))
    points = points[np.isfinite(points[["x", "y"]].astype(float)).all(axis=1)]
    if points.empty:
        return Section(title, "No picture was made: there are no points to draw.")
    svg = charts.scatter(
        points.x.astype(float).tolist(),
        points.y.astype(float).tolist(),
        [None if is_missing(key) else view.places.get(int(key)) for key in points.segment_id],
        _ellipses(view),
        title="Customers and segments in two dimensions",
        x_label=_axis(view, "x"),
        y_label=_axis(view, "y"),
    )
    drawn = min(len(points), charts.MOST_POINTS)
    of = f" of {len(points):,}" if drawn < len(points) else ""
    caption = (
        f"{drawn:,}{of} sampled customers, one dot each; grey dots have no segment. An ellipse "
        "holds about four in five customers of its segment. Segments that overlap may be apart in "
        "directions that a flat picture cannot show."
    )
    lead = "Customers near one another are alike in the two directions that show the segments best."
    return Section(title, lead, [Figure(svg, caption)])


def _axis(view: _View, name: str) -> str:
    """What grows along an axis."""
    axes = frame_of(view.frames, "axes", ("x", "y"))
    said = "" if axes.empty or is_missing(axes[name].iloc[0]) else str(axes[name].iloc[0])
    return f"{said} →" if said else {"x": "first direction", "y": "second direction"}[name]


def _ellipses(view: _View) -> list[charts.Ellipse]:
    shapes = ["cx", "cy", "a", "b", "angle"]
    frame = frame_of(view.frames, "ellipses", ("segment_id", *shapes)).head(MOST_SEGMENTS)
    frame = frame[np.isfinite(frame[shapes].astype(float)).all(axis=1)]
    return [
        charts.Ellipse(
            view.name(row.segment_id),
            view.places.get(int(row.segment_id), 0),
            *(float(getattr(row, shape)) for shape in shapes),
        )
        for row in frame.itertuples()
    ]


def _movements(view: _View) -> Section:
    title = "Moves since last time"
    columns = ("from_segment_id", "to_segment_id", "customers")
    moves = frame_of(view.frames, "movements", columns)
    if moves.empty:
        return Section(title, "There is no earlier assignment to compare this one with.")
    before = moves.from_segment_id.map(view.name)
    after = moves.to_segment_id.map(view.name)
    total = float(moves.customers.sum())
    moved = float(moves.customers[before != after].sum())
    lead = (
        f"{number(moved)} of {number(total)} customers ({percent(moved / max(total, 1.0))}) are "
        "elsewhere than last time."
    )
    counts = moves.customers.astype(float).groupby([before, after]).sum()
    return Section(title, lead, [_movement_table(counts, view)])


def _movement_table(counts: pd.Series, view: _View) -> Table:
    ranked = [*view.segments.name.tolist(), "no segment"]
    seen = {str(name) for level in (0, 1) for name in counts.index.get_level_values(level)}
    names = [name for name in ranked if name in seen] + sorted(seen - set(ranked))
    shown = names[:MOST_COLUMNS]
    outward = {
        source: sum(float(counts.get((source, target), 0.0)) for target in names)
        for source in shown
    }
    rows = [
        [source, *(_move(counts, source, target, outward[source]) for target in shown),
         outward[source]]
        for source in shown
    ]  # fmt: skip
    columns = [Column("From \\ to"), *(Column(name, numeric=True) for name in shown)]
    left = len(names) - len(shown)
    note = "Rows are last time, columns now; the deeper the orange, the larger the part that moved."
    if left:
        note += f" {plural(left, 'smaller segment')} left out."
    return Table([*columns, Column("All", numeric=True)], rows, note=note)


def _move(counts: pd.Series, source: str, target: str, outward: float) -> Cell:
    customers = float(counts.get((source, target), 0.0))
    if source == target:
        return Shaded(customers, 0.25, "plain")
    if customers == 0:
        return ""
    return Shaded(customers, 0.1 + 2 * customers / max(outward, 1.0), "up")


def _choice(view: _View) -> Section:
    title = "How the number of segments was chosen"
    rows = frame_of(view.frames, "criterion", ("k", "family", "criterion", "chosen", "stratum"))
    rows = rows[np.isfinite(rows[["k", "criterion"]].astype(float)).all(axis=1)]
    if rows.empty:
        return Section(title, "No search over numbers of segments is recorded for this model.")
    lead = (
        f"{plural(len(rows), 'model')} were compared by the criterion below; what is published is "
        "what a second fit would find again."
    )
    groups = rows.groupby(rows.stratum.fillna("all").astype(str), sort=True)
    figures = [_criterion(part, str(stratum)) for stratum, part in groups]
    return Section(title, lead, [*_published(view), *figures, _families()])


def _published(view: _View) -> list[Note]:
    """How the segments of each stratum came from its model, and how stable they are."""
    columns = ("stratum", "segments", "by", "agreement")
    rows = frame_of(view.frames, "published", columns).dropna(subset=["segments"])
    told = [
        f"{_STRATA.get(str(row.stratum), str(row.stratum))}: "
        f"{plural(int(row.segments), 'segment')}, {_MADE.get(str(row.by), str(row.by))}."
        f"{_agreement(float(row.agreement)) if row.segments > 1 else ''}"
        for row in rows.itertuples()
    ]
    return [Note(told, "What is published")] if told else []


def _agreement(index: float) -> str:
    """How far fits on samples of the customers find the same segments."""
    said = f" Fits on samples of these customers agree to {number(index, 2)} of 1 (adjusted Rand"
    if index >= STABLE:
        return f"{said} index); segments count as stable from {STABLE:g} on."
    return (
        f"{said} index), below {STABLE:g}: who stands near a border could as well stand beyond it."
    )


def _criterion(rows: pd.DataFrame, stratum: str) -> Figure:
    """The curves of one stratum and which model was taken."""
    taken = rows[rows.chosen.fillna(False).astype(bool)]
    best_first = rows.groupby("family").criterion.min().sort_values(kind="stable").index
    shown = {*best_first[:MOST_CURVES], *taken.family.head(1)}
    lines = {
        str(family): list(zip(part.k.astype(float), part.criterion.astype(float), strict=True))
        for family, part in rows[rows.family.isin(shown)].groupby("family", sort=True)
    }
    who = _STRATA.get(stratum, stratum)
    said, chosen = "which model was taken is not recorded.", None
    if not taken.empty:
        best = taken.iloc[0]
        chosen = (str(best.family), float(best.k))
        count = plural(int(best.k), "component")
        said = f"{count} of the family “{best.family}” {'was' if best.k == 1 else 'were'} chosen."
    svg = charts.curves(
        lines, chosen, title=f"Criterion over the number of components, {who.lower()}",
        x_label="number of components", y_label="criterion (lower is better)",
    )  # fmt: skip
    left = len(best_first) - len(shown)
    note = f" {plural(left, 'family', 'families')} further off left out." if left else ""
    return Figure(svg, f"{who}: {said} Each line is a family of shapes.{note}", half=True)


def _families() -> Note:
    return Note(
        [
            "Three letters say how far the components are alike: E equal in all, V of each its "
            "own, I none. The first is for size, the second for shape, the third for direction: "
            "VVV lets each be as it is, EEE makes them all alike, VVI knows no correlation, VII is "
            "equally wide in every direction.",
            "A “t” behind them: with far customers reckoned with, by heavier tails than Gaussian.",
            "The criterion weighs fit against parameters: it falls while further components "
            "explain more than they cost, and rises when they only follow chance.",
        ],
        "The families",
        half=True,
    )


def _features(view: _View) -> Section:
    title = "Columns used and left out"
    features = frame_of(view.frames, "features", ("feature", "unit", "used", "reason"))
    if features.empty:
        return Section(title, "Which columns formed the segments is not recorded.")
    is_used = features.used.fillna(False).astype(bool)
    used, left = features[is_used], features[~is_used]
    names = ", ".join(view.label(name) for name in used.feature.head(40))
    more = f" and {len(used) - 40:,} more" if len(used) > 40 else ""
    blocks: list[Note | Table] = [Note(f"{names}{more}." if names else "None.", "Used")]
    if not left.empty:
        blocks.append(_left_out(left, view))
    lead = f"{plural(len(used), 'column')} formed the segments; {len(left):,} did not."
    return Section(title, lead, blocks)


def _left_out(features: pd.DataFrame, view: _View) -> Table:
    shown = features.head(MOST_LEFT_OUT)
    rows = [
        [
            view.label(row.feature),
            MISSING if is_missing(row.unit) or not row.unit else str(row.unit),
            MISSING if is_missing(row.reason) else str(row.reason),
        ]
        for row in shown.itertuples()
    ]
    rest = len(features) - len(shown)
    note = f"{plural(rest, 'further column')} left out of this table." if rest else ""
    return Table([Column("Column"), Column("Unit"), Column("Why it was left out")], rows, note=note)


def _guide() -> Section:
    texts = [
        "A segment is a group of customers who behave alike. The model gives each customer a "
        "probability for every segment; the customer belongs to the likeliest, and leaves the "
        "segment of before only for one that is clearly likelier.",
        "Index 100 is the average customer: 250 is two and a half times the average. The bar "
        "beside it is the distance from the average in standard deviations, full at two.",
        "RFM sorts all customers into fifths by recency, frequency and money, 5 being best; a card "
        "gives the means of the segment and what marketing calls such customers.",
        "Customers who resemble no segment are outliers, and those with little history too new: "
        "they are counted, not forced into a segment.",
        "Population stability compares how a feature is spread among the customers now and at the "
        "fit: below 0.1 it hardly moved, 0.25 is about half a standard deviation, and with few "
        "customers only more than that is a drift.",
        "Segment numbers stay with their segment from one model to the next, and so do names; a "
        "person may change a name: peerwatch segmenter rename.",
    ]
    lead = "Segments describe behaviour in the past; they promise nothing about one customer."
    return Section("How to read this report", lead, [Note(texts)])
