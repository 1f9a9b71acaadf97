"""Result tables that are made once for a file of tests, and empty at the start of each."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from shared.runs import Results
from tests.builders import make_results
from tests.conftest import EMPTY, execute


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def tables_of_the_file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    """The newest result tables, on each of the two databases."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("kept") / "bank.db"
        path.touch()
        return make_results(f"sqlite:///{path}")
    url: str = request.getfixturevalue("postgresql_database")
    execute(url, EMPTY)
    return make_results(url)


@pytest.fixture
def kept_results(tables_of_the_file: Results) -> Results:
    """Those tables without a run, a lease, or a setting of a run."""
    kept = tables_of_the_file
    settings = kept.tables.settings
    with kept.transaction() as connection:
        connection.execute(sa.delete(kept.tables.pipeline_runs))
        connection.execute(sa.delete(kept.tables.job_leases))
        for key in ("schedule.", "scored_until"):
            connection.execute(sa.delete(settings).where(settings.c.key.startswith(key)))
    return kept
