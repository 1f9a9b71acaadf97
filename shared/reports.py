"""A report: sections of plain blocks, rendered to one self-contained HTML file.

The domains turn frames into sections; this module turns sections into HTML. There is one way to
the page, the template `report.html` with autoescape on, and every text on it passes `masked`.
Plots come from `shared.charts`.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import ClassVar

import jinja2
import pandas as pd
from markupsafe import Markup

from shared.masking import masked

CELL_LENGTH = 160  # characters of one text in a table or chart: bounds the file whatever is given
MISSING = "–"
DRIFT = ("feature", "statistic", "value", "threshold", "drifted")
MOST_DRIFTS = 45
NO_BREAK = "\N{NO-BREAK SPACE}"  # between a number and its unit


@dataclass(frozen=True)
class Shaded:
    """A table cell with a background: strength in [0, 1], tone "plain", "up" or "down"."""

    value: str | int | float | None
    strength: float
    tone: str = "up"


Cell = str | int | float | None | Shaded


@dataclass(frozen=True)
class Column:
    """Head of a table column; numbers stand right-aligned, `unit` is printed under the title."""

    title: str
    numeric: bool = False
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """Rows in the order given; `total` is a last row set apart; `note` says what was left out."""

    kind: ClassVar[str] = "table"
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    total: Sequence[Cell] = ()
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A plot with its caption; two halves stand side by side where there is room."""

    kind: ClassVar[str] = "figure"
    svg: Markup
    caption: str = ""
    half: bool = False


@dataclass(frozen=True)
class Note:
    """A paragraph, or several under a small title."""

    kind: ClassVar[str] = "note"
    text: str | Sequence[str]
    title: str = ""
    half: bool = False

    @property
    def paragraphs(self) -> Sequence[str]:
        return [self.text] if isinstance(self.text, str) else self.text


@dataclass(frozen=True)
class Fact:
    """One named value with, if need be, a remark; `alarm` sets it apart."""

    label: str
    value: str
    remark: str = ""
    alarm: bool = False


@dataclass(frozen=True)
class Facts:
    """Facts side by side: large tiles for a headline, else a quiet list."""

    kind: ClassVar[str] = "facts"
    items: Sequence[Fact]
    large: bool = False


@dataclass(frozen=True)
class Bar:
    """One line of a card: a value, what it is compared with, and a bar of length [0, 1]."""

    label: str
    value: str
    compared: str
    length: float
    remark: str = ""
    tone: str = "up"


@dataclass(frozen=True)
class Card:
    """One alert or one segment. `badge` is its rank or number, `colour` that of its plots."""

    badge: str
    title: str
    meta: Sequence[str] = ()
    text: str = ""
    bars: Sequence[Bar] = ()
    bars_title: str = ""
    figure: Markup | None = None
    figure_caption: str = ""
    tags: Sequence[str] = ()
    colour: str = ""


@dataclass(frozen=True)
class Cards:
    """Cards one below the other, or two abreast where they are narrow."""

    kind: ClassVar[str] = "cards"
    items: Sequence[Card]
    note: str = ""
    half: bool = False


Block = Table | Figure | Note | Facts | Cards


@dataclass(frozen=True)
class Section:
    """A heading, one sentence that gives the answer, and the blocks that show it."""

    title: str
    lead: str
    blocks: Sequence[Block] = ()


def render(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    generated_at: datetime,
    footer: Sequence[Fact] = (),
) -> str:
    """The whole report as one HTML document without scripts, links or assets.

    `generated_at` must carry its zone. Same arguments, same text.
    """
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=title,
            subtitle=subtitle,
            sections=sections,
            generated_at=f"{generated_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            footer=footer,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shared", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        masked=masked, cell=_cell_text, shade=_shade, colour=_colour, bar_width=_bar_width
    )
    environment.tests["shaded"] = lambda cell: isinstance(cell, Shaded)
    return environment


def _cell_text(cell: Cell) -> str:
    value = cell.value if isinstance(cell, Shaded) else cell
    if isinstance(value, str):
        return masked(value, CELL_LENGTH)
    return number(value)


def _shade(cell: Shaded) -> str:
    """Background of a shaded cell as a CSS declaration of our own making."""
    red, green, blue = {"up": (213, 94, 0), "down": (0, 114, 178)}.get(cell.tone, (90, 100, 115))
    strength = cell.strength if math.isfinite(cell.strength) else 0.0
    return f"background:rgba({red},{green},{blue},{0.55 * min(max(strength, 0.0), 1.0):.3f})"


def _colour(value: str) -> str:
    """`value` if it is a hex colour, else the neutral one: no other text reaches a style."""
    return value if re.fullmatch(r"#[0-9A-Fa-f]{6}", value) else "#5b6776"


def _bar_width(value: float) -> str:
    return f"{100 * min(max(value, 0.0), 1.0):.1f}" if math.isfinite(value) else "0"


def number(value: float | None, digits: int = 3) -> str:
    """A number to read: whole numbers in full, others to `digits` significant digits.

    >>> number(1234567), number(1234.5678), number(0.012345), number(None)
    ('1,234,567', '1,235', '0.0123', '–')
    """
    if is_missing(value):
        return MISSING
    amount = float(value)  # type: ignore[arg-type]
    if not math.isfinite(amount):
        return "∞" if amount > 0 else "−∞"
    if amount == int(amount) and abs(amount) < 1e15:
        text = f"{int(amount):,}"
    elif abs(amount) >= 1e15 or abs(amount) < 1e-4:
        text = f"{amount:.{digits - 1}e}"
    else:
        decimals = max(digits - 1 - math.floor(math.log10(abs(amount))), 0)
        text = f"{amount:,.{decimals}f}"
    return text.replace("-", "−")


def compact(value: float) -> str:
    """A number short enough for an axis: 1.5k, 20M; to three significant digits."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share in [0, 1] as per cent, to one decimal where it is not small.

    >>> [percent(share).replace(NO_BREAK, " ") for share in (0.1234, 0.00012, 1.0)]
    ['12.3 %', '0.012 %', '100 %']
    """
    if is_missing(share):
        return MISSING
    value = 100 * float(share)  # type: ignore[arg-type]
    if value == round(value):
        shown = f"{value:.0f}"
    else:
        shown = f"{value:.1f}" if abs(value) >= 0.1 else f"{value:.2g}"
    return f"{shown}{NO_BREAK}%".replace("-", "−")


def quantity(value: float | None, unit: str) -> str:
    """A value with its unit; shares become per cent, money has no sign of its own here."""
    if is_missing(value):
        return MISSING
    if unit == "share":
        return percent(value)
    shown = number(value)
    unit = unit.removesuffix("s") if shown == "1" else unit
    return shown if unit in ("", "currency") else f"{shown}{NO_BREAK}{unit}"


# Exponents other than two of the commoner currencies (ISO 4217).
_MINOR_DIGITS = dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"), 0)
_MINOR_DIGITS |= dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3)


def money(amount: float | None, currency: object = "") -> str:
    """An amount with the decimals of its currency, and the currency where there is one."""
    if is_missing(amount):
        return "no amount"
    code = "" if is_missing(currency) else str(currency)
    shown = f"{float(amount):,.{_MINOR_DIGITS.get(code, 2)}f}".replace("-", "−")  # type: ignore[arg-type]
    return f"{shown}{NO_BREAK}{code}" if code else shown


def day_text(day: object) -> str:
    """A day as 2026-03-14; rows without a valid time stand under no day."""
    return "no valid time" if is_missing(day) else as_day(day).isoformat()


def as_day(value: object) -> date:
    """A date from a date, a timestamp or ISO text."""
    return pd.Timestamp(value).date()


def title_of(name: str) -> str:
    """A column's name as words: `days_since_last` becomes Days since last."""
    words = name.replace("_", " ").replace(".", " ").strip()
    return words[:1].upper() + words[1:]


def plural(count: int, word: str, many: str = "") -> str:
    """`1 case`, `1,204 cases`."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def is_missing(value: object) -> bool:
    """None, NaN, NaT or NA."""
    return value is None or bool(pd.isna(value))


def moments(times: pd.Series) -> pd.Series:
    """UTC timestamps from timestamps, ISO text or integer microseconds since 1970."""
    if pd.api.types.is_integer_dtype(times.dtype):
        return pd.to_datetime(times, unit="us", utc=True)
    return pd.to_datetime(times, utc=True, format=None if len(times) == 0 else "ISO8601")


def frame_of(frames: Mapping[str, pd.DataFrame], name: str, columns: Sequence[str]) -> pd.DataFrame:
    """The frame `name` with at least `columns`, empty or filled with missing values if absent."""
    frame = frames.get(name)
    if frame is None:
        return pd.DataFrame(columns=list(columns))
    absent = [column for column in columns if column not in frame.columns]
    return frame.assign(**dict.fromkeys(absent)) if absent else frame


def settings_of(frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """The frame `settings` (key, value) as a dict of texts."""
    settings = frame_of(frames, "settings", ("key", "value"))
    return {str(key): str(value) for key, value in zip(settings.key, settings.value, strict=True)}


def drift_section(
    title: str, drift: pd.DataFrame, label: Callable[[object], str], advice: str
) -> Section:
    """What drifted and what is steady, the drifted first; drift: the DRIFT columns of one run."""
    if drift.empty:
        return Section(title, "No drift was measured.")
    drifted = drift.drifted.fillna(False).astype(bool)
    order = drift.assign(drifted=drifted, name=[label(name) for name in drift.feature])
    order = order.sort_values(["drifted", "value", "name"], ascending=[False, False, True])
    rows = [
        [
            row.name,
            MISSING if is_missing(row.statistic) else str(row.statistic).replace("_", " "),
            number(row.value),
            number(row.threshold),
            Shaded("drifted", 0.4) if row.drifted else "steady",
        ]
        for row in order.head(MOST_DRIFTS).itertuples(index=False)
    ]
    columns = [
        Column("What"), Column("Statistic"), Column("Value", numeric=True),
        Column("Threshold", numeric=True), Column("State"),
    ]  # fmt: skip
    lead = f"None of {plural(len(drift), 'measure')} drifted."
    if drifted.any():
        count = f"{int(drifted.sum())} of {plural(len(drift), 'measure')}"
        lead = f"{count} drifted: {advice}."
    left = len(order) - len(rows)
    note = f"{plural(left, 'further measure')} left out here: see drift_metrics." if left else ""
    return Section(title, lead, [Table(columns, rows, note=note)])


def identity(frames: Mapping[str, pd.DataFrame]) -> Section:
    """Which model and which run made the report, from `model` and `run` (one row each)."""
    items = _model_facts(frames) + _run_facts(frames)
    if not items:
        return Section("Model and run", "No model is recorded for this report.")
    lead = "What is needed to find this model and this run again in model_versions and "
    return Section("Model and run", f"{lead}pipeline_runs.", [Facts(items)])


def _model_facts(frames: Mapping[str, pd.DataFrame]) -> list[Fact]:
    columns = ("model_version_id", "trained_from", "trained_to", "rows", "metrics", "sha256")
    model = frame_of(frames, "model", columns)
    if model.empty:
        return []
    row = model.iloc[0]
    trained = f"{_moment_text(row.trained_from)} to {_moment_text(row.trained_to)}"
    facts = [
        Fact("Model", _text_or_dash(row.model_version_id)),
        Fact("Trained on", trained, f"{number(row['rows'])} rows"),
    ]
    if not is_missing(row.sha256):
        facts.append(Fact("SHA-256 of the model", str(row.sha256)))
    return facts + _metric_facts(row.metrics)


def _metric_facts(metrics: object) -> list[Fact]:
    """Single numbers and words among the metrics (a dict or JSON text), at most 18."""
    values = json.loads(metrics) if isinstance(metrics, str) else metrics
    if not isinstance(values, Mapping):
        return []
    plain = sorted((str(k), v) for k, v in values.items() if isinstance(v, str | int | float))
    return [
        Fact(title_of(name), value if isinstance(value, str) else number(value, 4))
        for name, value in plain[:18]
    ]


def _run_facts(frames: Mapping[str, pd.DataFrame]) -> list[Fact]:
    columns = ("run_id", "job", "started_at", "rows_read", "rows_written", "rows_quarantined")
    run = frame_of(frames, "run", columns)
    if run.empty:
        return []
    row = run.iloc[0]
    facts = [Fact("Run", _text_or_dash(row.run_id), _text_or_dash(row.job))]
    if is_missing(row.started_at):  # a report leaves no record
        return facts
    counts = f"{number(row.rows_read)} rows read, {number(row.rows_written)} written, "
    return [
        *facts,
        Fact("Started", _moment_text(row.started_at)),
        Fact("Rows", f"{counts}{number(row.rows_quarantined)} quarantined"),
    ]


def _text_or_dash(value: object) -> str:
    return MISSING if is_missing(value) else str(value)


def _moment_text(value: object) -> str:
    """A moment to the minute; a midnight is a day."""
    if is_missing(value):
        return MISSING
    moment = pd.Timestamp(value)
    midnight = moment == moment.normalize()
    return f"{moment:%Y-%m-%d}" if midnight else f"{moment:%Y-%m-%d %H:%M} UTC"
