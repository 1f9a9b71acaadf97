"""What can go wrong, as one tree.

PeerwatchError            exit 1   failed
├── ConfigurationError    exit 2   the file, the command or the mapping
├── SchemaError           exit 2   our tables are older, newer or not ours
├── HeldError             exit 3   another runner holds the job
├── DataQualityError      exit 4   too many bad rows, or too little data
└── TemporaryError        exit 75  the same command may succeed later
    └── OvertakenError             trying the same unit of work again would not

A message says what was being done, what was found, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class PeerwatchError(Exception):
    """A failure that a person can read; never shown as a traceback."""

    exit_code = 1


class ConfigurationError(PeerwatchError):
    """Usage, configuration or mapping; holds all faults found at once."""

    exit_code = 2

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


class SchemaError(PeerwatchError):
    """The result tables are missing, older, newer, or somebody else's."""

    exit_code = 2


class HeldError(PeerwatchError):
    """Another runner holds the job, or has its slot."""

    exit_code = 3


class DataQualityError(PeerwatchError):
    """The data gate is closed: too many bad rows, or too few good ones."""

    exit_code = 4


class TemporaryError(PeerwatchError):
    """The database could not be reached or was busy; trying again may help."""

    exit_code = 75


class OvertakenError(TemporaryError):
    """Another runner or a new champion took over in the middle of a run."""
