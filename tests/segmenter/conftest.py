"""What the segmenter's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from segmenter import model


@pytest.fixture(scope="module")
def one_family() -> Iterator[None]:
    """Fits that are short: what is tested here is not which family is best."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "FAMILIES", ("VVI",))
        yield
