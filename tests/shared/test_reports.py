"""The page is one file, shows what it was given, and runs nothing whatever it was given."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from shared import charts
from shared.reports import (
    MISSING,
    NO_BREAK,
    Bar,
    Card,
    Cards,
    Column,
    Fact,
    Facts,
    Figure,
    Note,
    Section,
    Shaded,
    Table,
    identity,
    masked,
    moments,
    money,
    number,
    percent,
    quantity,
    render,
)
from tests.pages import HOSTILE, Page, faults_of

AT = datetime(2026, 3, 15, 6, 0, tzinfo=UTC)


def a_page_of(text: str) -> str:
    """A page that has `text` in every place that takes one."""
    bar = Bar(text, text, text, 0.5, text, text)
    svg = charts.sparkline([1.0, 2.0], 1, title=text, texts=(text, text))
    blocks = [
        Facts([Fact(text, text, text)], large=True),
        Facts([Fact(text, text, text, alarm=True)]),
        Note([text, text], text),
        Table([Column(text), Column(text, True, text)], [[text, Shaded(text, 0.5, text)]], text,
              total=[text, None], note=text),
        Figure(svg, text),
        Cards([Card(text, text, [text], text, [bar], text, svg, text, [text], text)], text),
        Figure(charts.horizontal_bars([text], [1.0], [text], title=text), text, half=True),
        Figure(charts.heat_map([text], [text], np.ones((1, 1)), title=text, colours=["#000000"])),
        Figure(charts.scatter([0, 1], [0, 1], [0, None], [charts.Ellipse(text, 0, 0, 0, 1, 1, 0)],
                              title=text, x_label=text, y_label=text)),
        Figure(charts.curves({text: [(1, 2), (2, 3)]}, (text, 1), title=text, x_label=text,
                             y_label=text)),
        Figure(charts.histogram([0, 1], [1, 2], [3, 4], 1.0, title=text, x_label=text)),
        Figure(charts.daily_bars([date(2026, 3, 1)], [1], [2], 3, title=text, front_name=text,
                                 back_name=text)),
    ]  # fmt: skip
    return render(text, text, [Section(text, text, blocks)], AT, [Fact(text, text)])


@pytest.mark.parametrize("text", [*HOSTILE, "half \ud800 of a pair"])
def test_no_text_can_run_load_or_hide_anything(text: str) -> None:
    html = a_page_of(text)

    assert faults_of(html) == []


def test_a_hostile_text_is_still_shown_as_text() -> None:
    page = Page(a_page_of("<script>alert(1)</script>"))

    assert page.texts.count("<script>alert(1)</script>") > 20


def test_the_fault_finder_finds_faults() -> None:
    unsafe = Section("Title", "Lead", [Figure(Markup('<a href="//x" onclick="y">z</a>'))])

    assert len(faults_of(render("t", "s", [unsafe], AT))) == 2


def test_the_page_forbids_everything_but_its_own_styles() -> None:
    elements = Page(render("t", "s", [], AT)).elements

    policy = next(a["content"] for _, a in elements if a.get("http-equiv"))
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    assert ("html", {"lang": "en"}) in elements


def test_a_page_prints_on_a4_with_whole_figures_and_repeated_heads() -> None:
    html = render("t", "s", [], AT)

    assert "@page{size:A4" in html
    assert "thead{display:table-header-group}" in html
    assert re.search(r"figure,\.card,tr[^{]*\{break-inside:avoid\}", html)


def test_every_figure_has_a_role_a_title_and_a_description() -> None:
    page = Page(a_page_of("Amounts"))

    images = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(images) == 8
    assert all(image["role"] == "img" and image["aria-label"] == "Amounts" for image in images)
    assert [tag for tag, _ in page.elements].count("desc") == 8


def test_the_moment_is_shown_in_utc() -> None:
    summer = datetime.fromisoformat("2026-07-01T08:30:00+02:00")

    assert "Made 2026-07-01 06:30 UTC" in Page(render("t", "s", [], summer)).text


@given(
    st.text("0123456789", min_size=13, max_size=24),
    st.sampled_from(["", " ", "-", "\u00a0", "\u200b", "\u2011"]),
    st.text("abc <>#,.", max_size=8),
)
def test_an_account_number_keeps_only_its_first_six_and_last_four_digits(
    digits: str, gap: str, around: str
) -> None:
    shown = masked(around + gap.join(digits) + around)

    stars = "*" * (len(digits) - 10)
    assert f"{digits[:6]}{stars}{digits[-4:]}" in shown
    assert sum(character.isdigit() for character in shown) == 10
    assert masked(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-14 02:13 UTC",
        "1,234,567,890,123.50 EUR",
        "12345678-1234-1234-1234-123456789012",
        "9f" + "1234567890" * 3 + "11" * 16,
        "123456789012",
    ],
)
def test_times_amounts_and_ids_of_ours_are_not_masked(text: str) -> None:
    assert masked(text) == text


def test_a_long_text_is_cut_only_after_it_was_masked() -> None:
    text = "x" * 12 + "4111111111111111"

    assert masked(text, 21) == "x" * 12 + "411111**…"


def test_cells_align_numbers_and_separate_thousands() -> None:
    columns = [Column("Name"), Column("Rows", numeric=True, unit="payments")]
    rows = [["a", 1234567], ["b", None], ["c", math.nan]]
    table = Table(columns, rows, total=["all", 1234567.0])

    page = Page(render("t", "s", [Section("s", "l", [table])], AT))

    assert page.texts.count("1,234,567") == 2
    assert page.texts.count(MISSING) == 2
    cells = [attributes.get("class") for tag, attributes in page.elements if tag == "td"]
    assert cells == ["short", "number"] * 4


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (-3.0, "−3"), (1234.5678, "1,235"), (12.345, "12.3"), (0.012345, "0.0123"),
        (1e-7, "1.00e−07"), (1e300, "1.00e+300"), (math.inf, "∞"), (None, MISSING),
    ],
)  # fmt: skip
def test_numbers_keep_three_significant_digits(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (1234.5, "EUR", "1,234.50 EUR"), (1234.4, "JPY", "1,234 JPY"), (1.2345, "KWD", "1.234 KWD"),
        (-5.0, "", "−5.00"), (7.0, None, "7.00"), (math.nan, "EUR", "no amount"),
    ],
)  # fmt: skip
def test_money_has_the_decimals_of_its_currency(
    amount: float, currency: str | None, shown: str
) -> None:
    assert money(amount, currency).replace(NO_BREAK, " ") == shown


def test_quantities_carry_their_units() -> None:
    shown = [quantity(0.256, "share"), quantity(12.0, "days"), quantity(5.5, "currency")]

    assert [text.replace(NO_BREAK, " ") for text in shown] == ["25.6 %", "12 days", "5.50"]
    assert quantity(None, "days") == percent(math.nan) == MISSING


def test_moments_are_the_same_from_every_kind_of_time() -> None:
    moment = pd.Timestamp("2026-03-14 02:13:04.5", tz="UTC")
    text = pd.Series(["2026-03-14T02:13:04.500000Z"])
    stamp = pd.Series([moment.tz_convert("Asia/Tokyo")])
    microseconds = pd.Series([int(moment.timestamp() * 1_000_000)])

    found = [moments(series).iloc[0] for series in (text, stamp, microseconds)]

    assert found == [moment] * 3


def test_identity_shows_the_model_its_plain_metrics_and_the_run() -> None:
    model = pd.DataFrame(
        [{"model_version_id": "m-1", "trained_from": "2026-01-01T00:00:00.000000Z",
          "trained_to": "2026-03-01T12:30:00.000000Z", "rows": 12345,
          "metrics": '{"held_out_log_likelihood": -8.25, "by_feature": {"a": 1}}'}]
    )  # fmt: skip
    run = pd.DataFrame([{"run_id": "r-1", "job": "fraudwatch.report"}])

    text = Page(render("t", "s", [identity({"model": model, "run": run})], AT)).text

    assert "2026-01-01 to 2026-03-01 12:30 UTC" in text
    assert "12,345 rows" in text
    assert "Held out log likelihood −8.250" in text
    assert "fraudwatch.report" in text
    assert "by_feature" not in text
    assert "No model is recorded" in identity({}).lead


def texts_of(svg: Markup) -> list[str]:
    return Page(f"<div>{svg}</div>").texts


def marks_of(svg: Markup, tag: str, fill: str) -> list[dict[str, str]]:
    elements = Page(f"<div>{svg}</div>").elements
    return [a for name, a in elements if name == tag and a.get("fill") == fill]


def test_bins_from_the_threshold_on_are_set_apart() -> None:
    svg = charts.histogram([0, 1, 2, 3], [1, 2, 3, 4], [5, 6, 7, 0], 2.0, title="Scores")

    assert len(marks_of(svg, "rect", charts.BLUE)) == 2
    assert len(marks_of(svg, "rect", charts.ORANGE)) == 1
    assert "entry level 2" in texts_of(svg)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=500), st.booleans())
def test_a_histogram_of_any_bins_has_bounded_size_and_keeps_the_counts(
    counts: list[int], log: bool
) -> None:
    low = np.arange(len(counts), dtype=float)

    svg = charts.histogram(low, low + 1, counts, title="Scores", log_counts=log)

    assert len(marks_of(svg, "rect", charts.BLUE)) <= charts.MOST_BINS
    assert any(text.endswith(f"{sum(counts):,} values from 0 to {len(counts):,}")
               for text in texts_of(svg))  # fmt: skip
    assert "nan" not in svg and "inf" not in svg


def test_heights_of_daily_bars_are_proportional_to_counts() -> None:
    days = [date(2026, 3, 1) + timedelta(days=place) for place in (0, 1, 3)]

    svg = charts.daily_bars(days, [10, 20, 5], [20, 40, 5], 20, title="Days",
                            front_name="cases", back_name="alerts")  # fmt: skip

    heights = [float(mark["height"]) for mark in marks_of(svg, "rect", charts.BLUE)[:3]]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert heights[1] == pytest.approx(4 * heights[2], abs=0.4)
    assert "budget 20" in texts_of(svg)


def test_horizontal_bars_end_in_proportion_to_their_values() -> None:
    svg = charts.horizontal_bars(["a", "b"], [100, 25], ["100", "25"], title="Sizes")

    widths = [float(mark["width"]) for mark in marks_of(svg, "rect", charts.BLUE)]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.3)


def test_a_heat_map_shows_every_number_and_leaves_missing_cells_blank() -> None:
    values = np.array([[1.26, -0.04], [math.nan, -9.0]])

    texts = texts_of(charts.heat_map(["f", "g"], ["A", "B"], values, title="Profiles"))

    assert texts.count("+1.3") == texts.count("0.0") == texts.count("−9.0") == 1
    assert "nan" not in texts


def test_an_ellipse_keeps_its_half_axes_whatever_its_turn() -> None:
    outline = charts.Ellipse("A", 0, cx=3.0, cy=-1.0, a=2.0, b=0.5, angle=0.7).outline(400)

    distance = np.hypot(outline[:, 0] - 3.0, outline[:, 1] + 1.0)
    assert distance.max() == pytest.approx(2.0)
    assert distance.min() == pytest.approx(0.5)
    far = outline[distance.argmax()] - [3.0, -1.0]
    assert math.atan2(far[1], far[0]) % math.pi == pytest.approx(0.7, abs=1e-6)


def test_a_scatter_draws_at_most_its_share_of_points_and_counts_those_outside() -> None:
    x = np.append(np.linspace(0, 1, 20_000), 1e6)

    svg = charts.scatter(x, x, [0] * len(x), title="Customers")

    dots = marks_of(svg, "circle", charts.group_colour(0))
    assert charts.MOST_POINTS - 20 < len(dots) < charts.MOST_POINTS
    assert any(text.endswith("points lie outside the frame") for text in texts_of(svg))
    assert len(svg) < 200_000


def test_names_of_groups_at_one_place_do_not_cover_each_other() -> None:
    same = [charts.Ellipse(f"Group {place}", place, 0, 0, 1, 1, 0) for place in range(5)]

    svg = charts.scatter([0, 1], [0, 1], [0, 1], same, title="Customers")

    elements = Page(f"<div>{svg}</div>").elements
    heights = sorted(
        float(a["y"]) for tag, a in elements if tag == "text" and a.get("font-size") == "13"
    )
    assert min(np.diff(heights)) >= 16


def test_the_chosen_point_of_a_curve_is_ringed_at_its_place() -> None:
    lines = {"full": [(1, 9.0), (2, 3.0), (3, 5.0)], "tied": [(1, 8.0), (2, math.nan)]}

    svg = charts.curves(lines, ("full", 2), title="Criterion")

    rings = marks_of(svg, "circle", "none")
    dots = marks_of(svg, "circle", charts.group_colour(0))
    assert [(ring["cx"], ring["cy"]) for ring in rings] == [(dots[1]["cx"], dots[1]["cy"])]
    assert "nan" not in svg


def test_names_of_many_curves_stay_apart_and_within_the_picture() -> None:
    lines = {f"line {k}": [(1, float(k)), (2, 1.0 + 0.001 * k)] for k in range(28)}

    svg = charts.curves(lines, ("line 0", 2), title="Criterion")

    elements = Page(f"<div>{svg}</div>").elements
    (height,) = (float(a["height"]) for tag, a in elements if tag == "svg")
    names = sorted(float(a["y"]) for tag, a in elements if a.get("font-weight") == "600")
    assert len(names) == 28 and min(np.diff(names)) >= 14.9
    assert names[0] > 0 and names[-1] < height - 30, "above the axis"


def test_a_heat_maps_names_and_legend_are_within_the_picture() -> None:
    svg = charts.heat_map(
        ["share of the leading Verwendungszweck"], ["A"], np.ones((1, 1)), title=""
    )

    elements = Page(f"<div>{svg}</div>").elements
    (width,) = (float(a["width"]) for tag, a in elements if tag == "svg")
    (label,) = (float(a["x"]) for tag, a in elements if a.get("text-anchor") == "end")
    legend = next(float(a["x"]) for tag, a in elements[::-1] if tag == "text")
    assert label > 7 * len("share of the leading Verwendungszweck")
    assert legend + 7 * len("−2 to +2 standard deviations from the average customer") < width


def test_a_sparkline_marks_one_amount_and_draws_refunds_below_the_line() -> None:
    svg = charts.sparkline([4.0, -2.0, 8.0], 2, title="Amounts", texts=("high", "last"))

    base = next(a for tag, a in Page(f"<div>{svg}</div>").elements if tag == "line")["y1"]
    refund = marks_of(svg, "rect", charts.PALE)[1]
    alerted = marks_of(svg, "rect", charts.ORANGE)
    assert refund["y"] == base
    assert len(alerted) == 1
    assert float(alerted[0]["height"]) == pytest.approx(4 * float(refund["height"]), abs=0.3)
