"""Groups customers into peers.

`SegmentMixture` is imported when it is first asked for (PEP 562), so that reading a setting or
printing help does not load scikit-learn.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SegmentMixture"]


def __getattr__(name: str) -> Any:
    if name == "SegmentMixture":
        from segmenter.model import SegmentMixture

        return SegmentMixture
    raise AttributeError(f"module 'segmenter' has no attribute {name!r}")
