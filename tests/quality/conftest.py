"""Development data for the quality suites; where they are absent, a suite says so and is skipped.

The suites print what they saw: run them with `-s`, as `make quality` does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.quality import datasets


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of its own that holds a set of the development data as `bank.db`."""

    def made(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        try:
            datasets.BUILDERS[name](folder).rename(folder / "bank.db")
        except datasets.DataAbsent as absent:
            pytest.skip(str(absent))
        return folder

    return made
