"""What the segmenter's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import small_bank


@pytest.fixture(scope="module")
def one_family() -> Iterator[None]:
    """For modules that fit often."""
    with small_bank.one_family():
        yield
