"""A scoring shared out among processes: each assesses a block of slices, one process writes.

The coordinator holds the job's lease and writes every part in order of time, so that cases grow as
they would without help. A worker reads and judges; it has no right to write anything. Workers have
a session on the source in turns, so that with the coordinator's a run has two and no more. Parts
travel as Arrow tables on a worker's standard output. A worker that dies costs a run, not a row:
what it had not handed over is unscored, and the next run takes it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import pandas as pd
from filelock import FileLock

from shared import config, errors, registry, runs
from shared.database import Reader, TurnReader, parse_url
from shared.errors import PeerwatchError, TemporaryError
from shared.runs import Run

BLOCK_SLICES = 16  # what one worker does before its parts are written: they wait in memory
FRAMES = ("scores", "alerts", "reasons", "refused", "passed")
LENGTH = 8  # bytes that tell how long what follows is

Window = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Part:
    """What one slice gives, to be written together; window in microseconds.

    scores: one row per transaction; alerts: those it raises, without case and segment; reasons:
    with `alert_id`; refused: what the gate refused; passed: `transaction_id` of the valid rows.
    """

    window: Window
    rows_read: int
    scores: pd.DataFrame
    alerts: pd.DataFrame
    reasons: pd.DataFrame
    refused: pd.DataFrame
    passed: pd.DataFrame


@dataclass(frozen=True)
class Task:
    """What a worker has to know beside its slices."""

    config: str
    job: str
    run_id: str
    clock: str
    model_version_id: str
    role: str
    raises: bool
    turn: str = ""  # the file that a worker holds while it has a session on the source


def shared_out(
    run: Run, task: Task, slices: Sequence[Window], own: Any, workers: int
) -> Iterator[Part]:
    """The parts of all slices in order; own: (slices) -> their parts, in this process."""
    for start in range(0, len(slices), BLOCK_SLICES * workers):
        first, *others = _blocks(slices[start : start + BLOCK_SLICES * workers], workers)
        with ExitStack() as stack:
            helping = _helping(stack, run, task, others) if others else []
            yield from own(first)
            for worker in helping:
                yield from worker.parts()


def _helping(
    stack: ExitStack, run: Run, task: Task, blocks: Sequence[Sequence[Window]]
) -> list[_Worker]:
    """A worker per block; they take turns by a file that is there as long as they are."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="peerwatch-"))
    task = replace(task, turn=str(Path(folder, "turn")))
    return [stack.enter_context(_Worker(run, task, block)) for block in blocks]


def _blocks(slices: Sequence[Window], workers: int) -> list[Sequence[Window]]:
    """Neighbours together, as many as there are workers, none empty; slices: at least one.

    What a worker computes of one slice serves its next, and only its first needs the days before.
    """
    size, more = divmod(len(slices), workers)
    ends = [at * size + min(at, more) for at in range(workers + 1)]
    return [slices[a:b] for a, b in pairwise(ends) if b > a]


class _Worker:
    """A process that assesses a block of slices."""

    def __init__(self, run: Run, task: Task, slices: Sequence[Window]) -> None:
        self.run, self.task, self.slices = run, task, slices
        self.waiting: SimpleQueue[bytes | None] = SimpleQueue()

    def __enter__(self) -> _Worker:
        code = "from fraudwatch.workers import main; main()"
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101 - asked for above
        with suppress(BrokenPipeError), stdin:  # one that is gone already hands nothing over
            stdin.write(json.dumps({**self.task.__dict__, "slices": self.slices}).encode())
        self.reading = threading.Thread(target=self._read, args=(stdout,), daemon=True)
        self.reading.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.process.kill()
        self.process.wait()
        self.reading.join()

    def _read(self, stdout: IO[bytes]) -> None:
        """Takes what comes whole, so that a worker never waits for the coordinator."""
        with stdout:
            while len(head := stdout.read(LENGTH)) == LENGTH:
                length = int.from_bytes(head)
                if len(body := stdout.read(length)) < length:
                    break
                self.waiting.put(body)
        self.waiting.put(None)

    def parts(self) -> Iterator[Part]:
        for _ in self.slices:
            header = json.loads(self._next())
            if "error" in header:
                raise getattr(errors, header["error"])(header["said"])
            tables = {name: _frame(self._next()) for name in FRAMES}
            yield Part(tuple(header["window"]), header["rows_read"], **tables)

    def _next(self) -> bytes:
        found = self.waiting.get()
        if found is None:
            raise TemporaryError(
                f"A worker of {self.run.command} ended with {self.process.wait()} before its "
                "part was done. What is written stays; run it again."
            )
        return found


def _frame(data: bytes) -> pd.DataFrame:
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        frame: pd.DataFrame = reader.read_all().to_pandas()
    return frame


def _bytes(frame: pd.DataFrame) -> bytes:
    import pyarrow as pa

    table, sink = pa.Table.from_pandas(frame, preserve_index=False), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


# --- within a worker ------------------------------------------------------------------------------


def main() -> None:
    """Assesses the slices that standard input tells, and ends; what stops it is told as well."""
    out = sys.stdout.buffer
    try:
        told = json.load(sys.stdin)
        slices = [(since, until) for since, until in told.pop("slices")]
        for part in _assessed(Task(**told), slices, os.environ):
            header = {"window": part.window, "rows_read": part.rows_read}
            _send(out, json.dumps(header).encode())
            for name in FRAMES:
                _send(out, _bytes(getattr(part, name)))
    except Exception as error:
        _send(out, json.dumps(_failure(error)).encode())


def _failure(error: Exception) -> dict[str, str]:
    """What the coordinator raises. The text of an unforeseen error may hold values of rows."""
    if isinstance(error, PeerwatchError):
        return {"error": type(error).__name__, "said": str(error)}
    said = (
        f"An unforeseen {type(error).__name__} stopped a worker. What is written stays; to see "
        "where, run it again with --debug and without --workers."
    )
    return {"error": PeerwatchError.__name__, "said": said}


def _assessed(
    task: Task, slices: Sequence[Window], environment: Mapping[str, str]
) -> Iterator[Part]:
    from fraudwatch.assessing import Assessor
    from fraudwatch.scoring import Slices

    settings = config.load(Path(task.config), environment)
    clock = datetime.fromisoformat(task.clock)
    served = parse_url(settings.source.url).get_backend_name() == "postgresql"
    reader = partial(TurnReader, turn=FileLock(task.turn)) if served else Reader
    with runs.opened(settings, task.job, clock, run_id=task.run_id, reader=reader) as run:
        with run.results.transaction() as connection:
            model = registry.load(connection, run.tables, task.model_version_id)
        yield from Slices(run, Assessor(run, model), task.role, task.raises).assessed(slices)


def _send(out: IO[bytes], data: bytes) -> None:
    try:
        out.write(len(data).to_bytes(LENGTH))
        out.write(data)
        out.flush()
    except BrokenPipeError:
        os._exit(1)  # the coordinator is gone: nobody is left to be told
