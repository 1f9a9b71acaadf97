"""A scoring shared out among processes leaves the tables that one process leaves."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudwatch import workers
from fraudwatch.workers import FRAMES, Part, Task, _blocks, _bytes, _frame, _Worker
from shared import accounts
from shared.errors import ConfigurationError, PeerwatchError, TemporaryError
from tests.small_bank import Bank, copies

KEPT = ("transaction_scores", "fraud_alerts", "fraud_alert_reasons", "closed_days",
        "quarantined_rows", "source_days")  # fmt: skip
OF_RUNS = ("run_id", "scored_at", "created_at", "closed_at", "seen_at", "counted_at")


@given(st.integers(1, 50), st.integers(1, 9))
def test_blocks_are_neighbours_and_as_even_as_can_be(count, shared):
    slices = [(at, at + 1) for at in range(count)]

    blocks = _blocks(slices, shared)

    assert [one for block in blocks for one in block] == slices
    assert len(blocks) == min(count, shared)
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


def test_frames_come_through_as_they_were():
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 2**62 + 1], dtype="Int64"),
            "plain": np.array([1, 2, 3]),
            "text": pd.Series(["a", None, "ü\x00"], dtype="str"),
            "day": [pd.Timestamp("2026-01-01").date(), None, None],
            "number": [0.1, np.nan, 1e300],
            "yes": [True, False, True],
            "nothing": [None, None, None],
        }
    )

    pd.testing.assert_frame_equal(_frame(_bytes(frame)), frame)
    assert _frame(_bytes(pd.DataFrame())).empty


@pytest.fixture
def bank(fitted_database, tmp_path, monkeypatch):
    """The fitted bank in slices of about two days, its configuration in a file for workers."""
    monkeypatch.setattr(accounts, "SLICE_ROWS", 100)
    return _written(fitted_database, tmp_path / "peerwatch.toml")


@pytest.fixture
def another_bank(request, tmp_path):
    dialect = request.node.callspec.params["fitted_database"]
    with copies(request.getfixturevalue(f"fitted_{dialect}")) as url:
        yield _written(url, tmp_path / "another.toml")


def _written(url, path):
    bank = Bank(url)
    bank.write_config(path)
    return bank


def score(bank, count):
    return bank.score(options={"workers": count})


def left(bank):
    """What a scoring leaves, numbers to nine digits, without what only tells the runs apart."""
    found = {}
    for table in KEPT:
        names = [name for name in bank.columns(table) if name not in OF_RUNS]
        rows = bank.ask(f"SELECT {', '.join(names)} FROM #{table}")
        found[table] = sorted(map(_rounded, rows), key=repr)
    return found


def _rounded(row):
    return tuple(float(f"{cell:.9g}") if isinstance(cell, float) else cell for cell in row)


def test_workers_leave_the_tables_that_one_process_leaves_after_several_rounds(
    bank, another_bank, monkeypatch
):
    monkeypatch.setattr(workers, "BLOCK_SLICES", 3)

    alone, together = score(another_bank, 1), score(bank, 3)

    assert (together.message, together.rows_written) == (alone.message, alone.rows_written)
    assert bank.count("run_batches") == another_bank.count("run_batches") > 4
    assert left(bank) == left(another_bank)


def test_more_workers_than_slices_are_none_too_many(bank, another_bank, monkeypatch):
    monkeypatch.setattr(accounts, "SLICE_ROWS", 500)
    another_bank.score()

    assert score(bank, 9).rows_written == len(another_bank.published())
    assert bank.count("run_batches") < 9
    assert left(bank) == left(another_bank)


def test_who_has_no_help_needs_no_folder(bank, monkeypatch):
    monkeypatch.setattr(workers.tempfile, "TemporaryDirectory", None)

    assert score(bank, 1).rows_written > 0


def test_what_a_worker_cannot_do_is_told_as_if_it_were_done_here(bank):
    text = bank.path.read_text(encoding="utf-8")
    bank.path.write_text(text.replace('"merchant_id"', '"shop"'), encoding="utf-8")

    with pytest.raises(ConfigurationError, match="has no column shop"):
        score(bank, 2)
    assert bank.unbalanced() == []


def test_a_killed_worker_costs_a_run_and_no_row(bank, another_bank, monkeypatch):
    score(another_bank, 1)
    started = workers._Worker.__enter__

    def killed(worker):
        started(worker)
        os.kill(worker.process.pid, signal.SIGKILL)
        return worker

    with monkeypatch.context() as patch:
        patch.setattr(workers._Worker, "__enter__", killed)
        with pytest.raises(TemporaryError, match="ended with -9 before its part was done"):
            score(bank, 2)

    assert 0 < len(bank.published()) < len(another_bank.published())
    score(bank, 2)
    assert left(bank) == left(another_bank)


def test_workers_end_with_the_run_that_started_them(bank, monkeypatch):
    seen = []
    started = workers._Worker.__enter__

    def noted(worker):
        seen.append(started(worker))
        return worker

    def fails(_self, _part):
        raise TemporaryError("busy")

    monkeypatch.setattr(workers._Worker, "__enter__", noted)
    monkeypatch.setattr("fraudwatch.scoring._Scorer.take", fails)
    with pytest.raises(TemporaryError, match="busy"):
        score(bank, 3)

    assert [worker.process.poll() for worker in seen] == [-9, -9]


# --- what travels between the two ---------------------------------------------------------------

TASK = Task(
    "peerwatch.toml", "fraudwatch.score", "a run", "2026-03-20T12:00:00", "a model", "", True
)
NOBODY = SimpleNamespace(command="fraudwatch score")


def handed_over(monkeypatch, assessed):
    """What a worker writes whose parts these are."""
    out = io.BytesIO()
    told = json.dumps({**TASK.__dict__, "slices": [(0, 1)]})
    monkeypatch.setattr(sys, "stdin", io.StringIO(told))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out))
    monkeypatch.setattr(workers, "_assessed", assessed)
    workers.main()
    return out.getvalue()


def taken(stream):
    """The parts that a coordinator takes from what a worker, now dead, has written."""
    worker = _Worker(NOBODY, TASK, [(0, 1)])
    worker.process = SimpleNamespace(wait=lambda: -9)
    worker._read(io.BytesIO(stream))
    return list(worker.parts())


def a_part():
    frame = pd.DataFrame({"transaction_id": [1, 2], "text": ["a", None]})
    return Part((0, 1), 2, **dict.fromkeys(FRAMES, frame))


def test_a_part_that_was_cut_off_while_it_was_written_is_not_taken(monkeypatch):
    whole = handed_over(monkeypatch, lambda *_: iter([a_part()]))

    assert [part.rows_read for part in taken(whole)] == [2]
    for length in {*range(0, len(whole), 97), *range(len(whole) - 600, len(whole), 8)}:
        with pytest.raises(TemporaryError, match="ended with -9 before its part was done"):
            taken(whole[:length])


def test_an_unforeseen_error_of_a_worker_is_told_without_its_text(monkeypatch):
    def fails(*_):
        raise ValueError("4711 of Mrs Miller")

    stream = handed_over(monkeypatch, fails)

    with pytest.raises(PeerwatchError, match="An unforeseen ValueError stopped a worker") as told:
        taken(stream)
    assert b"Miller" not in stream and told.value.exit_code == 1


def test_a_worker_whose_coordinator_is_gone_ends_without_a_word():
    nobody, out = os.pipe()
    os.close(nobody)

    ended = subprocess.run(
        [sys.executable, "-c", "from fraudwatch.workers import main; main()"],
        input=b"cut off", stdout=out, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip

    os.close(out)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_worker_is_not_in_reach_of_the_coordinators_terminal():
    with _Worker(NOBODY, TASK, []) as worker:
        assert os.getsid(worker.process.pid) == worker.process.pid


def test_a_worker_that_ended_at_once_is_told_as_such(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/true")
    # More than a pipe holds, so that it is written to one that nobody reads.
    with (
        _Worker(NOBODY, TASK, [(at, at) for at in range(20_000)]) as worker,
        pytest.raises(TemporaryError, match="ended with 0 before its part was done"),
    ):
        list(worker.parts())
