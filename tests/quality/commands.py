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

REASONS = "SELECT count(*) FROM fraud_alert_reasons r WHERE r.alert_id = a.alert_id"
PROFILES = """
    SELECT s.segment_id, s.name, s.customer_count, s.share, p.feature, p.mean, p.effect_size
    FROM segments s JOIN segment_profiles p
        ON p.segment_id = s.segment_id AND p.model_version_id = s.model_version_id
    WHERE p.effect_size IS NOT NULL
    ORDER BY s.segment_id, abs(p.effect_size) DESC
"""
ALERTS = """
    SELECT day, amount, round(anomaly_score, 1) AS anomaly_score, summary
    FROM fraud_alerts ORDER BY priority DESC LIMIT 5
"""


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


def whole_line(folder: Path, *fit: str) -> dict[str, Done]:
    """init, fits, scores, reports and figures, as a user types them; `fit` is fraudwatch's window.

    The segments are fitted on everything.
    """
    lines = {
        "init": ("init", "--url", "sqlite:///bank.db"),
        "segmenter fit": ("segmenter", "fit"),
        "segmenter score": ("segmenter", "score"),
        "segmenter evaluate": ("segmenter", "evaluate"),
        "segmenter report": ("segmenter", "report"),
        "fraudwatch fit": ("fraudwatch", "fit", *fit),
        "fraudwatch score": ("fraudwatch", "score"),
        "fraudwatch report": ("fraudwatch", "report"),
        "verify": ("verify",),
    }
    done = {name: peerwatch(folder, *line) for name, line in lines.items()}
    print(costs(done))
    return done


def assert_sound(folder: Path, done: Mapping[str, Done]) -> None:
    """What holds on every source: the books, the promises, reasons of alerts, one state each."""
    bank = folder / "bank.db"
    sums = books(bank)
    print(f"\n{sums.to_frame('rows').T.to_string(index=False)}")
    assert sums.source_rows == sums[["before_scope", "scored", "quarantined", "pending"]].sum()
    assert sums.scored == done["fraudwatch score"].data["scored"] > 0
    assert (sums.pending, sums.too_late, sums.gone) == (0, 0, 0)
    assert all(check["rows"] == 0 for check in done["verify"].data["checks"])
    alerts = select(bank, f"SELECT alert_id, summary, ({REASONS}) AS reasons FROM fraud_alerts a")
    assert len(alerts) == done["fraudwatch score"].data["alerts"] > 0
    assert (alerts.reasons > 0).all()
    assert alerts.summary.str.strip().ne("").all()
    for report in ("segmenter_report.html", "fraudwatch_report.html"):
        assert (folder / report).stat().st_size < 2_000_000


def told(folder: Path, done: Mapping[str, Done]) -> str:
    """Segments, their leading profile lines, and the first alerts, for a reader to judge."""
    bank = folder / "bank.db"
    figures = done["segmenter evaluate"].data
    states = select(bank, "SELECT state, count(*) AS n FROM current_customer_segments GROUP BY 1")
    head = {
        **{f"{row.state}": int(row.n) for row in states.itertuples()},
        **{key: figures[key] for key in ("certain_share", "split_half_ari")},
        "scored": done["fraudwatch score"].data["scored"],
        "alerts": done["fraudwatch score"].data["alerts"],
    }
    alerts = select(bank, ALERTS).to_dict("records")
    return "\n".join(
        (
            markdown([head], "Figures"),
            markdown(segments(bank), "Segments"),
            markdown(alerts, "The foremost alerts"),
        )
    )


def segments(bank: Path) -> list[dict[str, Any]]:
    """Each segment with its size, name and the three features that set it apart most."""
    profiles = select(bank, PROFILES)
    return [
        {
            "id": int(segment),
            "customers": int(rows.customer_count.iloc[0]),
            "share": float(rows.share.iloc[0]),
            "name": rows.name.iloc[0],
            "apart by": "; ".join(
                f"{row.feature} {row.mean:,.3g} ({row.effect_size:+.1f} sd)"
                for row in rows.head(3).itertuples()
            ),
        }
        for segment, rows in profiles.groupby("segment_id")
    ]


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
