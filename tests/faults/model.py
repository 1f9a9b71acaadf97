"""What peerwatch promises of scores, as a few sets in memory: the other way to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

MICROSECOND = timedelta(microseconds=1)


@dataclass
class Books:
    """The valid rows of a source, which of them are scored, by whom, and how high."""

    scope: datetime
    lateness: timedelta
    champion: str
    rows: dict[int, datetime] = field(default_factory=dict)
    scored: dict[int, tuple[str, float]] = field(default_factory=dict)
    verdicts: set[tuple[int, str, str]] = field(default_factory=set)
    reached: datetime | None = None  # up to where the last whole run has looked
    perhaps: datetime | None = None  # the same of a run that was killed, if it came so far

    @property
    def newest(self) -> datetime:
        return max(self.rows.values())

    def since(self, reached: datetime | None) -> datetime:
        """From where a run looks for rows that are not scored."""
        done = [self.rows[key] for key in self.scored]
        if reached is None or not done:
            return self.scope
        newest = min(max(done), reached) - self.lateness
        return max(self.scope, newest.replace(hour=0, minute=0, second=0, microsecond=0))

    def between(self, since: datetime, until: datetime) -> set[int]:
        return {key for key, moment in self.rows.items() if since <= moment < until}

    def due(self) -> tuple[set[int], set[int]]:
        """Rows that a run must have scored when it ends, and those that it may have."""
        until = self.newest + MICROSECOND
        surely = self.since(self.reached)
        later = surely if self.perhaps is None else max(surely, self.since(self.perhaps))
        return self.between(later, until), self.between(surely, until)

    def ran(self) -> None:
        """A run came to its end."""
        self.reached = max(filter(None, (self.reached, self.newest + MICROSECOND)))
        self.perhaps = None

    def fell(self) -> None:
        """A run was killed: it may have come to where it remembers how far it has looked."""
        self.perhaps = self.newest + MICROSECOND

    def amiss(
        self, found: dict[int, tuple[str, float]], must: set[int], may: set[int]
    ) -> list[str]:
        """What is wrong with the scores that are there; they become those that are known."""
        told = [f"{key} is lost" for key in (self.scored.keys() | must) - found.keys()]
        told += [f"{key} has another score" for key, said in self.scored.items()
                 if found.get(key, said) != said]  # fmt: skip
        new = found.keys() - self.scored.keys()
        told += [f"{key} was not to be scored" for key in new - must - may]
        told += [f"{key} is of {found[key][0]}" for key in new if found[key][0] != self.champion]
        self.scored = dict(found)
        return told
