"""The settings of fraudwatch: what a rate, an exploration and a time span may be."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fraudwatch.config import Settings, span


def test_the_defaults_have_no_fault_and_ask_for_no_rate():
    assert Settings().faults() == []
    assert Settings().false_discovery_rate is None
    assert Settings().exploration_per_day == 0


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 20.0, float("nan")])
def test_a_rate_is_a_share_between_0_and_1(rate):
    (fault,) = Settings(false_discovery_rate=rate).faults()

    assert fault == (f"[fraudwatch] false_discovery_rate is a share between 0 and 1, found {rate}.")


@pytest.mark.parametrize("rate", [1e-6, 0.1, 0.999])
def test_a_rate_within_is_no_fault(rate):
    assert Settings(false_discovery_rate=rate).faults() == []


def test_fewer_than_no_explorations_are_a_fault():
    assert Settings(exploration_per_day=-1).faults() == [
        "[fraudwatch] exploration_per_day should be at least 0, found -1."
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6 hours", timedelta(hours=6)), ("1 hour", timedelta(hours=1)),
        ("90 minutes", timedelta(minutes=90)), ("0 minutes", timedelta()),
        ("2 days", timedelta(days=2)), ("soon", None), ("-1 hours", None), ("1.5 hours", None),
    ],
)  # fmt: skip
def test_a_span_is_a_whole_number_of_minutes_hours_or_days(text, expected):
    assert span(text) == expected
    assert (Settings(close_after=text).faults() == []) == (expected is not None)
