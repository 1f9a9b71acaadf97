"""The settings of the segmenter: the contract's table [segmenter]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """How customers are grouped. `faults` says everything that is wrong at once."""

    lookback_days: int = 365  # a year holds each season once
    segments: Literal["auto"] | int = "auto"  # the data decide; a person may want a number
    max_segments: int = 12  # more than a dozen names nobody keeps in mind
    min_segment_share: float = 0.02  # a smaller group is rarely worth a campaign of its own
    exclude_features: tuple[str, ...] = ()  # nothing is left out unless a person says so
    names: Mapping[int, str] = field(default_factory=dict)  # a person's names win over ours
    refit_on_drift: bool = False  # a scoring that drifted starts a fit; the gate judges it as any
    seed: int = 0  # of the starts and draws of a fit

    def faults(self) -> list[str]:
        """Every fault, each as one sentence that says what was found and what is expected."""
        return [
            *self._number_faults(),
            *self._segment_faults(),
            *self._list_faults(),
        ]

    def _number_faults(self) -> list[str]:
        found = []
        if not _is_whole(self.lookback_days) or self.lookback_days < 1:
            found.append(
                _fault("lookback_days", self.lookback_days, "a whole number of at least 1")
            )
        if not _is_whole(self.max_segments) or not 1 <= self.max_segments <= 100:
            found.append(_fault("max_segments", self.max_segments, "a whole number from 1 to 100"))
        if not _is_whole(self.seed) or not 0 <= self.seed < 2**32:
            found.append(_fault("seed", self.seed, f"a whole number from 0 to {2**32 - 1}"))
        share = self.min_segment_share
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 0.5:
            found.append(_fault("min_segment_share", share, "a share from 0 to below 0.5"))
        return found

    def _segment_faults(self) -> list[str]:
        if self.segments == "auto":
            return []
        if not _is_whole(self.segments) or int(self.segments) < 1:
            return [_fault("segments", self.segments, '"auto" or a whole number of at least 1')]
        if _is_whole(self.max_segments) and int(self.segments) > self.max_segments:
            wanted = f"at most max_segments ({self.max_segments})"
            return [_fault("segments", self.segments, wanted)]
        return []

    def _list_faults(self) -> list[str]:
        found = []
        if not all(isinstance(name, str) and name for name in self.exclude_features):
            found.append(_fault("exclude_features", self.exclude_features, "names of features"))
        for key, name in self.names.items():
            if not _is_whole(key) or not isinstance(name, str) or not name.strip():
                found.append(_fault("names", {key: name}, "segment number = name"))
        twice = [name for name, count in Counter(self.names.values()).items() if count > 1]
        if twice:
            found.append(_fault("names", twice, "a different name for each segment"))
        return found


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fault(key: str, found: object, expected: str) -> str:
    return f"[segmenter] {key} is {found!r}; expected {expected}."
