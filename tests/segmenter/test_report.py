"""The segment report shows the numbers it was given, small and safe whatever they hold."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from segmenter.report import sections
from shared.reports import render
from tests.pages import HOSTILE, Page, faults_of

AT = datetime(2026, 3, 1, tzinfo=UTC)


def a_profile(segment_id: int, feature: str, **changes: object) -> dict[str, object]:
    profile = {
        "segment_id": segment_id, "feature": feature, "unit": "days", "mean": 30.0,
        "median": 20.0, "p10": 5.0, "p90": 60.0, "population_median": 40.0, "effect_size": 1.0,
        "index_100": 75.0,
    }  # fmt: skip
    return {**profile, **changes}


def frames_of() -> dict[str, pd.DataFrame]:
    return {
        "segments": pd.DataFrame({
            "segment_id": [1, 4], "name": ["Regulars", "Night owls"],
            "description": ["Buy weekly.", "Buy after ten."],
            "customer_count": [3000, 1000], "share": [0.75, 0.25],
        }),
        "profiles": pd.DataFrame([
            a_profile(1, "recency_days", effect_size=-1.26),
            a_profile(1, "night_share", unit="share", median=0.0, population_median=0.0,
                      mean=0.01, effect_size=-0.4, index_100=20.0),
            a_profile(1, "net_amount", unit="currency", median=1234.5, effect_size=0.3,
                      index_100=math.nan),
            a_profile(1, "tenure_days", effect_size=0.05),
            a_profile(4, "recency_days", effect_size=0.9),
        ]),
        "states": pd.DataFrame({"state": ["assigned", "too_new"], "customers": [4000, 1000]}),
        "picture": pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 0.5],
                                 "segment_id": [1, 4, None]}),
        "ellipses": pd.DataFrame({"segment_id": [1, 4], "cx": [0.0, 1.0], "cy": [0.0, 1.0],
                                  "a": [1.0, 0.5], "b": [0.5, 0.2], "angle": [0.3, 1.0]}),
        "criterion": pd.DataFrame({"k": [1, 2, 3], "family": "full",
                                   "criterion": [900.0, 700.0, 750.0],
                                   "chosen": [False, True, False]}),
        "movements": pd.DataFrame({"from_segment_id": [1, 1, 4, None],
                                   "to_segment_id": [1, 4, 4, 1],
                                   "customers": [2900, 30, 970, 100]}),
        "features": pd.DataFrame({"feature": ["recency_days", "currency_count"],
                                  "unit": ["days", ""], "used": [True, False],
                                  "reason": ["", "constant"]}),
        "rfm": pd.DataFrame({"segment_id": [1], "rfm_recency": [4.26], "rfm_frequency": [3.0],
                             "rfm_monetary": [2.0]}),
    }  # fmt: skip


def page_of(frames: dict[str, pd.DataFrame]) -> Page:
    return Page(render("Segment report", "shop", sections(frames), AT))


def test_sizes_and_states_are_those_given() -> None:
    text = page_of(frames_of()).text

    assert "4,000 customers fall into 2 segments; the largest, Regulars, holds 75 %." in text
    assert "3,000 (75 %)" in text
    assert "Too new 1,000 (20 %) too little history to tell" in text


def test_a_card_says_in_real_units_what_is_typical_strongest_first() -> None:
    text = page_of(frames_of()).text

    lines = [
        "Recency days 20 days all 40 days index 75",
        "Night share 1 % on average all 5 % index 20",
        "Net amount 1,234 all 40 +0.3 sd",
    ]
    places = [text.index(line) for line in lines]
    assert places == sorted(places)
    assert "medians beside those of all; index of means (all: 100)" in text
    assert "Tenure days 20 days" not in text, "too weak for a line of the card"
    assert "RFM: potentially loyal (recency 4.3, frequency 3.0, money 2.0 of 5)" in text
    assert "Buy weekly." in text


def test_the_heat_map_shows_effect_sizes_and_blanks() -> None:
    page = page_of(frames_of())

    assert {"−1.3", "+0.9", "+0.3", "−0.4", "+0.1"} <= set(page.texts)
    assert "Recency days: this separates the segments most." in page.text


def test_moves_are_a_table_with_totals() -> None:
    text = page_of(frames_of()).text

    assert "130 of 4,000 customers (3.2 %) are elsewhere than last time." in text
    assert "Regulars 2,900 30 2,930" in text
    assert "no segment 100 0 100" in text


def test_segments_of_one_name_are_kept_apart() -> None:
    frames = frames_of()
    frames["segments"]["name"] = "Same"

    text = page_of(frames).text

    assert "Same (1) 2,900 30 2,930" in text


def test_a_segment_that_is_gone_is_named_by_its_number() -> None:
    frames = frames_of()
    frames["movements"] = pd.DataFrame({"from_segment_id": [7, None], "to_segment_id": [1, 1],
                                        "customers": [5, 1]})  # fmt: skip

    assert "Segment 7 5 0 5" in page_of(frames).text


def test_the_chosen_number_of_segments_is_said_and_marked() -> None:
    page = page_of(frames_of())

    assert "3 models were compared" in page.text
    assert "All customers: 2 components of the family “full” were chosen." in page.text
    assert "chosen" in page.texts


def test_columns_left_out_have_their_reasons() -> None:
    text = page_of(frames_of()).text

    assert "1 column formed the segments; 1 did not." in text
    assert "Currency count – constant" in text


def test_every_segment_is_named_in_the_picture_and_outliers_are_grey() -> None:
    page = page_of(frames_of())

    fills = [a.get("fill") for tag, a in page.elements if tag == "circle" and a.get("r") == "2.6"]
    assert len(set(fills)) == 3
    assert "#9aa5b1" in fills


def test_without_any_frame_every_section_says_so() -> None:
    found = sections({})

    assert all(section.lead for section in found)
    kinds = {block.kind for section in found for block in section.blocks}
    assert not kinds & {"figure", "table", "cards"}
    assert "There is no earlier assignment to compare this one with." in page_of({}).text


@pytest.mark.parametrize("name", list(frames_of()))
def test_a_frame_that_is_empty_or_absent_takes_nothing_else_down(name: str) -> None:
    frames = frames_of()
    empty = {**frames, name: frames[name].iloc[:0]}
    absent = {key: frame for key, frame in frames.items() if key != name}

    assert page_of(empty).text == page_of(absent).text
    assert "How to read this report" in page_of(empty).text


def test_missing_numbers_are_never_shown_as_nan() -> None:
    frames = frames_of()
    numbers = ["mean", "median", "population_median", "effect_size", "index_100"]
    frames["profiles"].loc[0, numbers] = math.nan
    frames["segments"]["name"] = None
    frames["segments"]["share"] = math.nan
    frames["picture"].loc[0, "x"] = math.nan
    frames["ellipses"].loc[0, "a"] = math.nan
    frames["criterion"].loc[0, "criterion"] = math.inf

    html = render("t", "s", sections(frames), AT)

    assert "nan" not in Page(html).text.lower().split()
    assert '"nan' not in html
    assert "Segment 4" in html


@pytest.mark.parametrize("text", HOSTILE)
def test_no_value_of_a_table_can_run_load_or_hide_anything(text: str) -> None:
    frames = frames_of()
    frames["segments"] = frames["segments"].assign(name=text, description=text)
    frames["profiles"] = frames["profiles"].assign(feature=text, unit=text)
    frames["states"] = frames["states"].assign(state=text)
    frames["criterion"] = frames["criterion"].assign(family=text)
    frames["features"] = frames["features"].assign(feature=text, unit=text, reason=text)
    frames["model"] = pd.DataFrame([{"model_version_id": text, "metrics": {text: text}}])

    html = render(text, text, sections(frames), AT)

    assert faults_of(html) == []


def test_the_order_of_rows_does_not_matter() -> None:
    frames = frames_of()
    kept = {"picture", "states", "features", "ellipses"}  # drawn or listed as they come

    turned = {name: f if name in kept else f.iloc[::-1] for name, f in frames.items()}

    assert render("t", "s", sections(turned), AT) == render("t", "s", sections(frames), AT)


def test_any_number_of_customers_segments_and_columns_stays_under_two_megabytes() -> None:
    count, long = 300, "&" * 1_000
    ids = np.arange(count)
    features = [f"{place} {long}" for place in range(100)]
    profiles = pd.DataFrame([a_profile(1, "x")]).loc[np.zeros(count * 100, dtype=int)]
    profiles = profiles.assign(segment_id=np.repeat(ids, 100), feature=features * count)
    pairs = pd.MultiIndex.from_product([ids, ids], names=["from_segment_id", "to_segment_id"])
    frames = {
        "segments": pd.DataFrame({"segment_id": ids, "name": long, "description": long,
                                  "customer_count": 10, "share": 1 / count}),
        "profiles": profiles,
        "picture": pd.DataFrame({"x": np.linspace(0, 1, 100_000), "y": np.linspace(0, 1, 100_000),
                                 "segment_id": 1}),
        "ellipses": pd.DataFrame({"segment_id": ids, "cx": 0.5, "cy": 0.5, "a": 0.1, "b": 0.1,
                                  "angle": 0.0}),
        "movements": pairs.to_frame(index=False).assign(customers=1),
        "features": pd.DataFrame({"feature": features * 10, "unit": long, "reason": long,
                                  "used": [True, False] * 500}),
    }  # fmt: skip

    html = render("Segment report", "shop", sections(frames), AT)

    assert len(html.encode()) < 2_000_000
    assert "276 smaller segments left out here" in html
    assert "82 flatter features left out" in html
    assert "1,500 of 100,000 sampled customers" in html
    assert "440 further columns left out of this table" in html


def test_what_is_published_says_how_it_was_made_and_how_stable_it_is() -> None:
    frames = frames_of()
    frames["published"] = pd.DataFrame({
        "stratum": ["single", "repeat", "all"], "segments": [1, 4, 3],
        "by": ["parts", "cut", "parts"], "agreement": [1.0, 0.62, 0.914],
    })  # fmt: skip

    text = page_of(frames).text

    made = "the parts of the chosen model, joined where they overlap."
    assert f"Customers with one purchase day: 1 segment, {made} Customers with" in text
    assert "Customers with several purchase days: 4 segments, cells of recency" in text
    assert "agree to 0.62 of 1 (adjusted Rand index), below 0.8" in text
    assert f"All customers: 3 segments, {made} Fits on samples of these" in text
    assert "agree to 0.91 of 1 (adjusted Rand index); segments count as stable" in text


def test_drift_is_told_in_words_and_the_rfm_scores_stay_out_of_the_profiles() -> None:
    frames = frames_of()
    frames["drift"] = pd.DataFrame({
        "feature": ["net_amount", "recency_days"], "statistic": "population stability index",
        "value": [0.031, 0.7], "threshold": [0.25, 0.25], "drifted": [False, True],
    })  # fmt: skip
    more = pd.DataFrame([a_profile(1, "rfm_recency", unit="of 5", effect_size=9.0)])
    frames["profiles"] = pd.concat([frames["profiles"], more], ignore_index=True)

    text = page_of(frames).text

    assert "1 of 2 measures drifted: fit again, and let the gate decide." in text
    assert "Recency days population stability index 0.700 0.250 drifted Net amount" in text
    assert "Rfm recency" not in text


def test_only_the_best_families_are_drawn() -> None:
    frames = frames_of()
    names = [f"F{at:02}" for at in range(20)]
    frames["criterion"] = pd.DataFrame({
        "k": [1, 2] * 20, "family": np.repeat(names, 2), "criterion": np.arange(40.0),
        "chosen": [at == 39 for at in range(40)],
    })  # fmt: skip

    text = page_of(frames).text

    drawn = [name for name in names if f"{name} " in text]
    assert drawn[:8] == names[:8] and "F19" in text and "F12" not in text
    assert "11 families further off left out." in text
