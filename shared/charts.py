"""Plots as inline SVG: pure functions from numbers to markup.

Every value enters through `Markup.format`, which escapes it, and every text through `masked`.
Colours are told apart by people with any colour vision (Okabe and Ito 2008; Tol 2021), and no
plot needs them alone: thresholds, bars and groups carry words. Inputs may hold NaN; such points
are left out. A plot of nothing is the caller's to avoid: say it in a sentence instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from markupsafe import Markup

from shared.masking import masked
from shared.reports import compact, number

INK, MUTED, RULE, PALE = "#1b2430", "#5b6776", "#dde2e9", "#b9c3d0"
BLUE, ORANGE = "#0072b2", "#d55e00"
GROUP_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#56b4e9",
    "#332288", "#882255", "#117733", "#8a8a1f", "#44aa99", "#aa4499",
)  # fmt: skip
MOST_POINTS = 1_500
MOST_BINS = 120
_CHARACTER = 6.3  # mean width of a 12-pixel character of the system fonts, in pixels


@dataclass(frozen=True)
class Ellipse:
    """Half-axes `a` and `b` of a group around its centre; `angle` of `a` in radians."""

    name: str
    group: int
    cx: float
    cy: float
    a: float
    b: float
    angle: float

    def outline(self, steps: int = 64) -> np.ndarray:
        """(steps, 2) points of the curve in data coordinates: axes may scale differently."""
        turn = np.linspace(0.0, 2 * np.pi, steps, endpoint=False)
        along, across = self.a * np.cos(turn), self.b * np.sin(turn)
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        return np.column_stack(
            (self.cx + along * cosine - across * sine, self.cy + along * sine + across * cosine)
        )


@dataclass(frozen=True)
class _Plot:
    """A plotting area inside an image, and the way from data to pixels."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 56
    right: float = 16
    top: float = 18
    bottom: float = 46

    def x(self, value: float) -> float:
        low, high = self.x_range
        inner = self.width - self.left - self.right
        return self.left + inner * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_range
        inner = self.height - self.top - self.bottom
        return self.height - self.bottom - inner * (value - low) / (high - low)

    @property
    def floor(self) -> float:
        return self.height - self.bottom

    @property
    def edge(self) -> float:
        return self.width - self.right


def histogram(
    low: Sequence[float],
    high: Sequence[float],
    counts: Sequence[float],
    threshold: float | None = None,
    *,
    title: str,
    x_label: str = "",
    log_counts: bool = False,
) -> Markup:
    """Bars of counts per bin [low, high); bins from `threshold` on are set apart.

    With `log_counts` the height is the logarithm, so that the few beyond the threshold are seen.
    """
    left, right, height = _merged_bins(low, high, counts)
    base = 0.5 if log_counts else 0.0
    top = max(float(height.max()), 1.0)
    y_range = (math.log10(base), math.log10(2 * top)) if log_counts else (0.0, 1.08 * top)
    ends = [float(left.min()), float(right.max())]
    if threshold is not None and math.isfinite(threshold):
        ends.append(threshold)
    plot = _Plot(470, 270, (min(ends), max(ends)), y_range)
    level: Callable[[float], float] = _log_height if log_counts else float
    bars = []
    for start, stop, count in zip(left, right, height, strict=True):
        beyond = threshold is not None and start >= threshold
        if count > 0:
            colour = ORANGE if beyond else BLUE
            top_of_bar = level(float(count))
            bars.append(_bar(plot, float(start), float(stop), top_of_bar, colour, y_range[0]))
    ticks = _powers(top) if log_counts else _ticks(0.0, top, 4)
    parts = [_y_axis(plot, ticks, level), *bars, _x_axis(plot, x_label)]
    if threshold is not None and math.isfinite(threshold):
        parts.append(_vertical_mark(plot, threshold, f"entry level {number(threshold)}"))
    scale = "Logarithmic heights. " if log_counts else ""
    described = f"{scale}{number(float(height.sum()))} values from {number(ends[0])} to "
    return _image(plot.width, plot.height, title, described + number(ends[1]), parts)


def _merged_bins(
    low: Sequence[float], high: Sequence[float], counts: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins in order, neighbours joined until at most MOST_BINS are left."""
    bins = np.column_stack([np.asarray(side, dtype=float) for side in (low, high, counts)])
    bins = bins[np.isfinite(bins).all(axis=1)]
    bins = bins[np.argsort(bins[:, 0], kind="stable")]
    starts = np.arange(0, len(bins), max(1, math.ceil(len(bins) / MOST_BINS)))
    ends = np.append(starts[1:], len(bins)) - 1
    return bins[starts, 0], bins[ends, 1], np.add.reduceat(bins[:, 2], starts)


def _log_height(count: float) -> float:
    return math.log10(max(count, 0.5))


def daily_bars(
    days: Sequence[date],
    front: Sequence[float],
    back: Sequence[float],
    budget: float | None = None,
    *,
    title: str,
    front_name: str,
    back_name: str,
) -> Markup:
    """Two counts per day, the smaller before the larger, with the budget as a line.

    Days without a row stay empty places on the axis.
    """
    first, last = min(days).toordinal(), max(days).toordinal()
    top = max([1.0, *front, *back, budget or 0.0])
    plot = _Plot(470, 270, (first - 0.6, last + 0.6), (0.0, 1.08 * top), top=34)
    parts = [_y_axis(plot, _ticks(0.0, top, 4, whole=True))]
    for day, less, more in zip(days, front, back, strict=True):
        place = day.toordinal()
        parts.append(_bar(plot, place - 0.4, place + 0.4, more, PALE))
        parts.append(_bar(plot, place - 0.4, place + 0.4, less, BLUE))
    parts.append(_day_axis(plot, first, last))
    if budget is not None:
        parts.append(_budget_line(plot, budget))
    parts.append(_legend(plot.left, 14, [(BLUE, front_name), (PALE, back_name)]))
    described = f"{min(days)} to {max(days)}; the most on one day: {number(max(back))} {back_name}"
    return _image(plot.width, plot.height, title, described, parts)


def _budget_line(plot: _Plot, budget: float) -> Markup:
    """The line across the days; its name stands above the plot, clear of the bars."""
    name = f"budget {number(budget)}"
    start = plot.edge - 1.25 * _CHARACTER * len(name) - 10
    return _joined(
        [
            _line(plot.left, plot.y(budget), plot.edge, plot.y(budget), ORANGE, 1.6, "6 4"),
            _line(start - 26, 10, start - 2, 10, ORANGE, 1.6, "6 4"),
            _text(plot.edge, 14, name, anchor="end", colour="#a84800", weight=600),
        ]
    )


def _day_axis(plot: _Plot, first: int, last: int) -> Markup:
    step = max(1, math.ceil((last - first + 1) / 7))
    parts = [_line(plot.left, plot.floor, plot.edge, plot.floor, MUTED)]
    for place in range(last, first - 1, -step):
        day = date(1, 1, 1) + timedelta(days=place - 1)
        parts.append(_text(plot.x(place), plot.floor + 18, f"{day:%d %b}", anchor="middle"))
    parts.append(_text(plot.edge, plot.floor + 38, f"{_year(last)}", anchor="end", colour=MUTED))
    return _joined(parts)


def _year(ordinal: int) -> int:
    return (date(1, 1, 1) + timedelta(days=ordinal - 1)).year


def horizontal_bars(
    labels: Sequence[str],
    values: Sequence[float],
    texts: Sequence[str],
    *,
    title: str,
    colours: Sequence[str] = (),
    width: float = 1080,
) -> Markup:
    """One bar per label from zero, longest value full width, `texts` at the ends of the bars."""
    left = min(0.42 * width, 24 + 1.15 * _CHARACTER * max(len(_short(text, 44)) for text in labels))
    right = 20 + 1.15 * _CHARACTER * max(len(_short(text, 44)) for text in texts)
    top = max([*(value for value in values if math.isfinite(value)), 1e-12])
    row = 30.0
    parts = []
    for place, (label, value, text) in enumerate(zip(labels, values, texts, strict=True)):
        middle = 8 + row * (place + 0.5)
        length = (width - left - right) * max(value, 0.0) / top if math.isfinite(value) else 0.0
        colour = colours[place] if colours else BLUE
        parts.append(_text(left - 10, middle + 4, _short(label, 44), anchor="end", size=13))
        parts.append(_rect(left, middle - 9, max(length, 1.0), 18, colour, 3))
        parts.append(_text(left + length + 8, middle + 4, _short(text, 44), size=13, colour=MUTED))
    described = "; ".join(f"{label}: {text}" for label, text in zip(labels, texts, strict=True))
    return _image(width, 16 + row * len(labels), title, described, parts)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    *,
    title: str,
    limit: float = 2.0,
    colours: Sequence[str] = (),
    width: float = 1080,
) -> Markup:
    """values (rows, columns) as coloured cells with their numbers; colours end at ±`limit`.

    Blue is below zero and orange above; NaN is a blank cell. `colours` are dots by the columns.
    """
    longest = max((len(_short(name, 44)) for name in rows), default=0)
    left, row = max(190.0, 20 + 1.15 * _CHARACTER * longest), 30.0
    cell = min((width - left - 8) / len(columns), 150.0)
    wide = left + cell * len(columns) + 8
    names = [_wrapped(masked(name), max(int(cell / (1.15 * _CHARACTER)), 5), 4) for name in columns]
    head = 28.0 + 14 * max(len(lines) for lines in names)
    parts = [
        _column_head(left + cell * (j + 0.5), head, lines, colours[j] if colours else "")
        for j, lines in enumerate(names)
    ]
    for i, name in enumerate(rows):
        y = head + row * i
        parts.append(_text(left - 12, y + 20, _short(name, 44), anchor="end"))
        parts += [
            _heat_cell(left + cell * j, y, cell, row, float(values[i, j]), limit)
            for j in range(len(columns))
        ]
    parts.append(_heat_scale(left, head + row * len(rows) + 18, limit))
    described = f"{len(rows)} features by {len(columns)} segments; every cell shows its number"
    return _image(
        max(wide, left + _SCALE_WIDTH), head + row * len(rows) + 52, title, described, parts
    )


def _column_head(x: float, bottom: float, lines: Sequence[str], colour: str) -> Markup:
    first = bottom - 12 - 14 * (len(lines) - 1)
    texts = [
        _text(x, first + 14 * place, line, anchor="middle", weight=600)
        for place, line in enumerate(lines)
    ]
    dot = _rect(x - 12, first - 20, 24, 5, colour, 2) if colour else Markup("")
    return _joined([dot, *texts])


def _heat_cell(
    x: float, y: float, width: float, height: float, value: float, limit: float
) -> Markup:
    if not math.isfinite(value):
        return _rect(x + 1, y + 1, width - 2, height - 2, "#f1f3f6", 2)
    strength = min(abs(value) / limit, 1.0)
    ink = "#ffffff" if strength > 0.68 else INK
    sign = "+" if round(value, 1) > 0 else ""
    shown = f"{sign}{value:.1f}".replace("-0.0", "0.0").replace("-", "−")
    fill = _diverging(value, limit)
    return _rect(x + 1, y + 1, width - 2, height - 2, fill, 2) + _text(
        x + width / 2, y + height / 2 + 4, shown, anchor="middle", colour=ink
    )


def _diverging(value: float, limit: float) -> str:
    """From white to deep blue below zero, to deep orange above; the root lifts small values."""
    strength = min(abs(value) / limit, 1.0) ** 0.8
    end = (178, 78, 0) if value > 0 else (0, 92, 150)
    red, green, blue = (round(250 + (part - 250) * strength) for part in end)
    return f"#{red:02x}{green:02x}{blue:02x}"


_SCALE_WIDTH = 640.0  # of the legend below


def _heat_scale(x: float, y: float, limit: float) -> Markup:
    steps = np.linspace(-limit, limit, 21)
    parts = [
        _rect(x + 9 * place, y, 9.2, 10, _diverging(value, limit), 0)
        for place, value in enumerate(steps)
    ]
    text = f"−{number(limit)} to +{number(limit)} standard deviations from the average customer"
    return _joined([*parts, _text(x + 9 * len(steps) + 10, y + 9, text, colour=MUTED)])


def scatter(
    x: Sequence[float],
    y: Sequence[float],
    groups: Sequence[int | None],
    ellipses: Sequence[Ellipse] = (),
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
) -> Markup:
    """Points coloured by group, groups named at their ellipses; group None is grey.

    At most MOST_POINTS are drawn, evenly taken in the order given. The frame holds the ellipses
    and 99 % of the points on each axis; the image counts those outside.
    """
    points = np.column_stack((np.asarray(x, dtype=float), np.asarray(y, dtype=float)))
    kept = np.flatnonzero(np.isfinite(points).all(axis=1))
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, min(len(kept), MOST_POINTS)).astype(int))]
    outlines = [ellipse.outline() for ellipse in ellipses]
    x_range, y_range = _scatter_ranges(points[kept], outlines)
    plot = _Plot(1080, 560, x_range, y_range, left=40, bottom=40)
    parts, outside = [_frame(plot, x_label, y_label)], 0
    for place in kept:
        if _inside(points[place], x_range, y_range):
            parts.append(_dot(plot, points[place], groups[place]))
        else:
            outside += 1
    parts += [_outline(plot, e, line) for e, line in zip(ellipses, outlines, strict=True)]
    parts += _group_names(plot, ellipses)
    if outside:
        text = f"{outside} of {len(kept)} points lie outside the frame"
        parts.append(_text(plot.edge, plot.floor + 26, text, anchor="end", colour=MUTED))
    described = f"{len(kept)} customers in {len(ellipses)} groups"
    return _image(plot.width, plot.height, title, described, parts)


def _scatter_ranges(
    points: np.ndarray, outlines: Sequence[np.ndarray]
) -> tuple[tuple[float, float], tuple[float, float]]:
    corners = np.vstack([np.quantile(points, [0.005, 0.995], axis=0), *outlines])
    low, high = corners.min(axis=0), corners.max(axis=0)
    room = np.where(high > low, 0.05 * (high - low), 1.0)
    low, high = low - room, high + room
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def _inside(point: np.ndarray, x_range: tuple[float, float], y_range: tuple[float, float]) -> bool:
    return bool(x_range[0] <= point[0] <= x_range[1] and y_range[0] <= point[1] <= y_range[1])


def group_colour(group: int | None) -> str:
    """The colour of the group at this place, 0 for the first; None is grey."""
    return "#9aa5b1" if group is None else GROUP_COLOURS[group % len(GROUP_COLOURS)]


def _dot(plot: _Plot, point: np.ndarray, group: int | None) -> Markup:
    return Markup('<circle cx="{}" cy="{}" r="2.6" fill="{}" fill-opacity=".5"/>').format(
        _px(plot.x(float(point[0]))), _px(plot.y(float(point[1]))), group_colour(group)
    )


def _outline(plot: _Plot, ellipse: Ellipse, line: np.ndarray) -> Markup:
    points = " ".join(f"{_px(plot.x(float(a)))},{_px(plot.y(float(b)))}" for a, b in line)
    colour = group_colour(ellipse.group)
    return Markup(
        '<polygon points="{}" fill="{}" fill-opacity=".07" stroke="{}" stroke-width="2"/>'
    ).format(points, colour, colour)


def _group_names(plot: _Plot, ellipses: Sequence[Ellipse]) -> list[Markup]:
    """Names at the centres, pushed down where they would cover one another."""
    taken: list[tuple[float, float, float]] = []
    parts = []
    for ellipse in sorted(ellipses, key=lambda item: (-item.cy, item.cx)):
        name = _short(ellipse.name, 40)
        half = _CHARACTER * 1.15 * len(name) / 2
        x = min(max(plot.x(ellipse.cx), plot.left + half), plot.edge - half)
        y = min(max(plot.y(ellipse.cy), plot.top + 12), plot.floor - 6)
        while any(abs(x - a) < half + b and abs(y - c) < 17 for a, b, c in taken):
            y += 4
        taken.append((x, half, y))
        parts.append(_text(x, y + 4, name, anchor="middle", size=13, weight=700, halo=True))
    return parts


def _frame(plot: _Plot, x_label: str, y_label: str) -> Markup:
    inner = Markup('<rect x="{}" y="{}" width="{}" height="{}" fill="#fbfcfd" stroke="{}"/>')
    box = inner.format(
        _px(plot.left), _px(plot.top), _px(plot.edge - plot.left), _px(plot.floor - plot.top), RULE
    )
    turned = Markup('<text transform="translate(16 {}) rotate(-90)" fill="{}">{}</text>')
    return _joined(
        [
            box,
            _text(plot.left, plot.floor + 26, _short(x_label, 100), colour=MUTED),
            turned.format(_px(plot.floor), MUTED, _short(y_label, 70)),
        ]
    )


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    chosen: tuple[str, float] | None = None,
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
) -> Markup:
    """Named lines over a whole-numbered x, each named at the right; `chosen` is (name, x)."""
    clean = {
        name: sorted((a, b) for a, b in line if math.isfinite(a) and math.isfinite(b))
        for name, line in lines.items()
    }
    clean = {name: line for name, line in clean.items() if line}
    xs = [a for line in clean.values() for a, _ in line]
    ys = [b for line in clean.values() for _, b in line]
    room = 0.08 * (max(ys) - min(ys)) or max(abs(max(ys)), 1.0) * 0.1
    span = (min(xs) - 0.4, max(xs) + 0.4)
    y_range = (min(ys) - room, max(ys) + room)
    height = max(290.0, 72 + _NAME_ROW * len(clean))
    plot = _Plot(470, height, span, y_range, left=56, right=88, top=26)
    parts = [_y_axis(plot, _ticks(*plot.y_range, 5)), _x_axis(plot, x_label, whole=True)]
    parts.append(_text(8, 14, _short(y_label, 70), colour=MUTED))
    parts += [_curve(plot, place, line) for place, line in enumerate(clean.values())]
    parts += _curve_names(plot, clean)
    for name, x in [chosen] if chosen else []:
        parts += [_chosen_mark(plot, a, b) for a, b in clean.get(name, []) if a == x]
    described = f"{len(clean)} lines: {', '.join(clean)}"
    return _image(plot.width, plot.height, title, described, parts)


_NAME_ROW = 15.0
_DASHES = ("", "7 3", "3 3", "9 3 2 3")


def _curve(plot: _Plot, place: int, line: Sequence[tuple[float, float]]) -> Markup:
    points = " ".join(f"{_px(plot.x(a))},{_px(plot.y(b))}" for a, b in line)
    colour = group_colour(place)
    path = Markup(
        '<polyline points="{}" fill="none" stroke="{}" stroke-width="2" stroke-dasharray="{}"/>'
    ).format(points, colour, _DASHES[place % len(_DASHES)])
    dot = Markup('<circle cx="{}" cy="{}" r="2.8" fill="{}"/>')
    return _joined([path, *(dot.format(_px(plot.x(a)), _px(plot.y(b)), colour) for a, b in line)])


def _curve_names(plot: _Plot, lines: Mapping[str, Sequence[tuple[float, float]]]) -> list[Markup]:
    """Names beside the plot in the order of the lines' ends, none over another."""
    names = list(lines)
    heights = np.array([plot.y(lines[name][-1][1]) for name in names])
    order = np.argsort(heights, kind="stable")
    steps = _NAME_ROW * np.arange(len(names))
    down = np.maximum.accumulate(heights[order] - steps) + steps
    highest = plot.floor - _NAME_ROW * np.arange(len(names))[::-1]
    parts = []
    for place, y in zip(order, np.minimum(down, highest), strict=True):
        name, colour = names[place], group_colour(int(place))
        short = _short(name, 14)
        parts.append(_text(plot.edge + 8, float(y) + 4, short, colour=colour, weight=600))
    return parts


def _chosen_mark(plot: _Plot, x: float, y: float) -> Markup:
    ring = Markup('<circle cx="{}" cy="{}" r="7" fill="none" stroke="{}" stroke-width="2.5"/>')
    beside = plot.y(y) + 22 if plot.y(y) + 26 < plot.floor else plot.y(y) - 14
    return ring.format(_px(plot.x(x)), _px(plot.y(y)), INK) + _text(
        plot.x(x), beside, "chosen", anchor="middle", weight=700, halo=True
    )


def sparkline(
    values: Sequence[float], marked: int | None = None, *, title: str, texts: tuple[str, str]
) -> Markup:
    """Small bars from zero in the order given, the one at `marked` set apart.

    `texts` name the largest value and the last place, as they are to be read.
    """
    finite = [value if math.isfinite(value) else 0.0 for value in values]
    top, low = max([0.0, *finite]), min([0.0, *finite])
    span = (low, top) if top > low else (0.0, 1.0)
    # At least 24 places: two lone payments should not look like walls.
    x_range = (min(0.0, len(finite) - 24.0), float(len(finite)))
    plot = _Plot(260, 92, x_range, span, left=4, right=4, top=18, bottom=18)
    parts = [
        _bar(plot, place + 0.12, place + 0.88, value, ORANGE if place == marked else PALE)
        for place, value in enumerate(finite)
    ]
    parts.append(_line(plot.left, plot.y(0.0), plot.edge, plot.y(0.0), MUTED))
    parts.append(_text(plot.left, 12, texts[0], size=11, colour=MUTED))
    parts.append(_text(plot.edge, plot.height - 4, texts[1], size=11, colour=MUTED, anchor="end"))
    described = f"{len(finite)} amounts, the largest {number(top)}, the last {number(finite[-1])}"
    return _image(plot.width, plot.height, title, described, parts)


def _image(
    width: float, height: float, title: str, description: str, parts: Sequence[Markup]
) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}" font-size="12">'
        "<title>{}</title><desc>{}</desc>{}</svg>"
    ).format(
        _px(width), _px(height), _px(width), _px(height),
        masked(title), masked(title), masked(description), _joined(parts),
    )  # fmt: skip


def _joined(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(parts)


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _rect(x: float, y: float, width: float, height: float, colour: str, round_: float) -> Markup:
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="{}" fill="{}"/>').format(
        _px(x), _px(y), _px(width), _px(height), _px(round_), colour
    )


def _bar(
    plot: _Plot, left: float, right: float, value: float, colour: str, base: float = 0.0
) -> Markup:
    """A bar from `base` to `value`, with a hair of room to its neighbours."""
    x, start, end = plot.x(left), plot.y(base), plot.y(value)
    width = max(plot.x(right) - x - 0.6, 0.6)
    return _rect(x + 0.3, min(start, end), width, abs(start - end), colour, 0)


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0, dash: str = ""
) -> Markup:
    return Markup(
        '<line x1="{}" y1="{}" x2="{}" y2="{}" '
        'stroke="{}" stroke-width="{}" stroke-dasharray="{}"/>'
    ).format(_px(x1), _px(y1), _px(x2), _px(y2), colour, width, dash)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 12,
    colour: str = INK,
    weight: int = 400,
    halo: bool = False,
) -> Markup:
    around = Markup(
        ' stroke="#fff" stroke-width="3.5" stroke-linejoin="round" paint-order="stroke"'
    )
    return Markup(
        '<text x="{}" y="{}" text-anchor="{}" font-size="{}" fill="{}" font-weight="{}"{}>{}</text>'
    ).format(
        _px(x), _px(y), anchor, size, colour, weight, around if halo else Markup(""), masked(text)
    )


def _legend(x: float, y: float, entries: Sequence[tuple[str, str]]) -> Markup:
    parts = []
    for colour, name in entries:
        parts += [_rect(x, y - 9, 11, 11, colour, 2), _text(x + 17, y, name, colour=MUTED)]
        x += 40 + _CHARACTER * len(name)
    return _joined(parts)


def _vertical_mark(plot: _Plot, value: float, text: str) -> Markup:
    x = plot.x(value)
    anchor, shift = ("end", -7) if x > (plot.left + plot.edge) / 2 else ("start", 7)
    return _line(x, plot.top - 6, x, plot.floor, ORANGE, 1.8, "6 4") + _text(
        x + shift, plot.top + 6, text, anchor=anchor, colour="#a84800", weight=600, halo=True
    )


def _y_axis(plot: _Plot, ticks: Sequence[float], place: Callable[[float], float] = float) -> Markup:
    parts = []
    for tick in ticks:
        y = plot.y(place(tick))
        parts.append(_line(plot.left, y, plot.edge, y, RULE))
        parts.append(_text(plot.left - 8, y + 4, compact(tick), anchor="end", colour=MUTED))
    return _joined(parts)


def _x_axis(plot: _Plot, label: str, whole: bool = False) -> Markup:
    parts = [_line(plot.left, plot.floor, plot.edge, plot.floor, MUTED)]
    for tick in _ticks(*plot.x_range, 7, whole=whole):
        parts.append(_text(plot.x(tick), plot.floor + 18, compact(tick), anchor="middle"))
    middle = (plot.left + plot.edge) / 2
    parts.append(_text(middle, plot.floor + 38, _short(label, 80), anchor="middle", colour=MUTED))
    return _joined(parts)


def _ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Round values in [low, high], about `most` of them, steps of 1, 2 or 5 times ten to n."""
    raw = (high - low) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(top: float) -> list[float]:
    return [10.0**power for power in range(math.floor(math.log10(max(top, 1.0))) + 1)]


def _short(text: str, most: int) -> str:
    shown = masked(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _wrapped(text: str, width: int, most: int) -> list[str]:
    """Words on at most `most` lines of `width` characters."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    lines = [_short(line, width) for line in lines]
    return (
        lines if len(lines) <= most else [*lines[: most - 1], _short(lines[most - 1] + "……", width)]
    )
