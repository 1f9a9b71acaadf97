"""What a fraud team may tell fraudwatch; section [fraudwatch] of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

ROLES = ("focal", "context", "evidence", "none")  # of features, as an expert may give them
UNITS = {"minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True)
class Settings:
    """Each default stands with its reason."""

    training_days: int = 90  # a season of habits; calibration_days are part of it
    calibration_days: int = 28  # four whole weeks, so that every weekday counts alike
    history_days: int = 30  # the longest window of the features
    reviews_per_day: int = 20  # what one analyst or two can read
    false_discovery_rate: float | None = None  # none is asked: the budget alone limits the queue
    exploration_per_day: int = 0  # a team that has time for it says so
    case_days: int = 7  # a stolen card is used for days, not months
    close_after: str = "6 hours"  # late bookings of the evening still count to their day
    score_from: date | None = None  # seven days before the end of the first training window
    allowed_lateness_days: int = 7  # how far behind the newest row a new row is looked for
    label_delay_days: int = 45  # a chargeback's usual delay
    quarantine_limit: float = 0.05  # more bad rows than this are a broken feed
    segment_context: bool = False  # the customer's segment as context of the density
    seed: int = 0  # of training and of the fixed draws
    roles: Mapping[str, str] = field(default_factory=dict)  # by feature; else as the mapping has it

    def faults(self) -> list[str]:
        found = [
            f"[fraudwatch] {name} should be at least {least}, found {getattr(self, name)}."
            for name, least in (
                ("training_days", 2),
                ("calibration_days", 1),
                ("history_days", 30),
                ("reviews_per_day", 1),
                ("exploration_per_day", 0),
                ("case_days", 1),
                ("allowed_lateness_days", 0),
                ("label_delay_days", 0),
            )
            if getattr(self, name) < least
        ]
        if not 0 <= self.seed < 2**32:
            found.append(f"[fraudwatch] seed should be from 0 to {2**32 - 1}, found {self.seed}.")
        if not 0 <= self.quarantine_limit <= 1:
            found.append(
                f"[fraudwatch] quarantine_limit is a share from 0 to 1, found "
                f"{self.quarantine_limit}."
            )
        rate = self.false_discovery_rate
        if rate is not None and not 0 < rate < 1:
            found.append(
                f"[fraudwatch] false_discovery_rate is a share between 0 and 1, found {rate}."
            )
        found += [
            f"[fraudwatch.roles] {name} should be {', '.join(ROLES[:-1])} or {ROLES[-1]}, found "
            f"{role}."
            for name, role in self.roles.items()
            if role not in ROLES
        ]
        if span(self.close_after) is None:
            found.append(
                f'[fraudwatch] close_after should be like "6 hours", found "{self.close_after}".'
            )
        return found


def span(text: str) -> timedelta | None:
    """ "6 hours", "90 minutes" or "1 day" as a time span; None where it is none."""
    match = re.fullmatch(r"(\d+) (minute|hour|day)s?", text.strip())
    return timedelta(seconds=int(match[1]) * UNITS[match[2]]) if match else None
