"""What the segmenter's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import small_bank


@pytest.fixture(scope="module")
def few_fits() -> Iterator[None]:
    """For modules that fit often."""
    with small_bank.few_fits():
        yield
