"""The real command in a process of its own, with what it cost, and tables of what it wrote.

A process of its own also for the measurement: a child's peak memory starts at that of the process
which started it, so a small one stands between the suite and the command.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

COMMAND = Path(sys.executable).with_name("peerwatch")
MEASURE = """
import json, os, sys, time
begun = time.monotonic()
child = os.fork()
if not child:
    os.execv(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as out:
    json.dump({"wall": time.monotonic() - begun, "cpu": usage.ru_utime + usage.ru_stime,
               "peak": usage.ru_maxrss * 1024}, out)
sys.exit(os.waitstatus_to_exitcode(status))
"""
LABELS = re.compile(r'^label(_kind|_time)? = "[^"]*"\n', re.MULTILINE)


@dataclass(frozen=True)
class Done:
    """One finished command: what it said, and its CPU seconds, wall seconds and peak bytes."""

    data: Any
    said: str
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


def peerwatch(folder: Path, *arguments: str) -> Done:
    """Runs the command in the folder with --json; fails with its message where it fails."""
    with tempfile.NamedTemporaryFile(suffix=".json") as measured:
        done = subprocess.run(
            [sys.executable, "-S", "-c", MEASURE, measured.name, str(COMMAND), *arguments,
             "--json"],
            cwd=folder,
            env={**os.environ, "PEERWATCH_CONFIG": "peerwatch.toml"},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"peerwatch {' '.join(arguments)}: {done.stderr}"
        spent = json.loads(Path(measured.name).read_text(encoding="utf-8"))
    return Done(json.loads(done.stdout), done.stderr, spent["cpu"], spent["wall"], spent["peak"])


def without_labels(text: str) -> str:
    """A configuration that names no label: nothing that is fitted may know one."""
    return LABELS.sub("", text)


def with_setting(text: str, section: str, line: str) -> str:
    """A configuration with one more line in a section."""
    head = f"[{section}]"
    assert text.count(f"\n{head}") == 1
    return text.replace(f"\n{head}", f"\n{head}\n{line}", 1)


def select(path: Path, query: str) -> pd.DataFrame:
    """A query to an SQLite file as a frame."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return pd.read_sql_query(query, connection)
    finally:
        connection.close()


def books(path: Path) -> pd.Series:
    """The sums of `coverage`."""
    names = ("source_rows", "before_scope", "scored", "quarantined", "pending", "too_late")
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    return select(path, f"SELECT {sums}, sum(gone_from_source) AS gone FROM coverage").iloc[0]


def markdown(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Rows as a Markdown table under a title."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[_figure(row[name]) for name in names] for row in rows]
    return "\n".join([f"\n### {title}\n", *(f"| {' | '.join(line)} |" for line in lines)])


def costs(done: Mapping[str, Done]) -> str:
    """What each command cost."""
    rows = [
        {
            "command": name,
            "CPU s": round(item.cpu_seconds, 1),
            "wall s": round(item.wall_seconds, 1),
            "peak MiB": round(item.peak_bytes / 2**20),
        }
        for name, item in done.items()
    ]
    return markdown(rows, "Cost of the commands")


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
