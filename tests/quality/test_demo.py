"""The planted world, found again by the real command, with the seed of the demo and three others.

Run: python -m pytest tests/quality/test_demo.py -s
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.quality import commands

SEEDS = range(4)
SEEN: list[dict[str, Any]] = []


@pytest.fixture(scope="module", autouse=True)
def printed() -> Iterator[None]:
    """The table of what every seed has shown, at the end."""
    yield
    print(commands.markdown(SEEN, "The demo's planted worlds"))


@pytest.fixture(scope="module", params=SEEDS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `peerwatch demo` found of what it planted."""
    folder: Path = tmp_path_factory.mktemp(f"world_{request.param}")
    done = commands.peerwatch(folder, "demo", "world", "--seed", str(request.param))
    shares = done.data["found_in_top_1_percent"]
    SEEN.append(
        {
            "seed": request.param,
            "ARI": done.data["adjusted_rand_index"],
            "segments": done.data["segments"],
            "visible": shares["visible"],
            **{kind: share for kind, share in shares.items() if kind != "visible"},
            "alerts": done.data["alerts"],
            "without reason": done.data["alerts_without_reason"],
            "planted reason": done.data["true_alerts_with_planted_reason"],
            "CPU s": round(done.cpu_seconds, 1),
            "wall s": round(done.wall_seconds, 1),
        }
    )
    return done.data


def test_planted_segments_are_found_without_their_number(found: dict[str, Any]) -> None:
    assert found["adjusted_rand_index"] >= 0.8
    assert found["customers_assigned"] >= 0.9  # leaving the hard ones out would be no finding


def test_visible_frauds_are_among_the_top_scores(found: dict[str, Any]) -> None:
    assert found["found_in_top_1_percent"]["visible"] >= 0.6


def test_every_alert_has_a_reason(found: dict[str, Any]) -> None:
    assert found["alerts"] > 0
    assert found["alerts_without_reason"] == 0


def test_the_reasons_of_true_alerts_name_what_was_planted(found: dict[str, Any]) -> None:
    assert found["true_alerts_with_planted_reason"] >= 0.8


def test_every_row_is_accounted_for(found: dict[str, Any]) -> None:
    (sums,) = found["queries"]["Every row accounted for"]

    parts = ("before_scope", "scored", "quarantined", "pending")
    assert sums["source_rows"] == sum(sums[part] for part in parts)
