"""Cells of the benchmark as tables: means over parts and seeds, what is best, what is missing.

A detector stands with its defaults and, where more settings were tried, with the best of them: on
the handbook the best mean AP over the four weeks of choice, elsewhere over everything there is,
which flatters it. Figures of several seeds are first averaged within a part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.quality.weeks import CHOICE, INPUTS, NONE, STARTS, TRAINING, TRUTH

KEY = ("dataset", "part", "detector", "view", "setting", "seed")
LINE = ["detector", "view", "setting", "labels"]
CELLS, MARKDOWN, CSV = "cells.jsonl", "benchmark.md", "benchmark.csv"
WEEKS = [str(np.datetime64("2018-04-01") + start) for start in STARTS]
CHOSEN_ON = WEEKS[: len(CHOICE)]
CLASSES = [NONE, INPUTS, TRAINING, TRUTH]
COSTS = ["train_rows", "fit_seconds", "score_seconds"]
HOUSE = "peerwatch"
EQUAL_VIEW = "focal2"  # the columns of peerwatch's own focal variables
TITLES = {
    "handbook": "Handbook, seven test weeks",
    "ulb": "ULB half, splits at 50, 60 and 70 % of its time",
    "demo": "Demo worlds",
    "anz": "ANZ, without labels: what it costs",
    "adbench-normals": "ADBench, 22 sets, trained on normal rows",
    "adbench-everything": "ADBench, 22 sets, trained on everything",
}


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder; a line that was cut off by an interruption is left out."""
    path = folder / CELLS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def frame(cells: Sequence[Mapping[str, Any]], protocols: Mapping[str, str]) -> pd.DataFrame:
    """One row per cell and table of figures, of the present protocol alone; the last one counts."""
    rows = [
        {
            **{name: cell[name] for name in (*KEY, "labels", *COSTS)},
            "table": table,
            **figures,
        }
        for cell in cells
        if cell["protocol"] == protocols.get(cell["dataset"])
        for table, figures in cell["figures"].items()
    ]
    names = [*KEY, "labels", *COSTS, "table"]
    made = pd.DataFrame(rows, columns=names if not rows else None)
    return made.drop_duplicates([*KEY, "table"], keep="last").reset_index(drop=True)


def by_part(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per table, detector, view, setting and part: the means over its seeds."""
    keys = ["dataset", "table", *LINE, "part"]
    means = rows.drop(columns="seed").groupby(keys, as_index=False, sort=False).mean()
    seeds = rows.groupby(keys, as_index=False, sort=False)["seed"].nunique()
    return means.assign(seeds=seeds["seed"])


def chosen(parts: pd.DataFrame) -> pd.DataFrame:
    """The lines to show: each detector and view with its default and, if better, its best setting.

    parts: of one data set and table. A setting competes only where it was run on all parts that
    the default was run on.
    """
    kept = []
    for _, tried in parts.groupby(["detector", "view"], sort=False):
        on = set(CHOSEN_ON) & set(tried["part"]) or set(tried["part"])
        judged = tried[tried["part"].isin(on)].groupby("setting")["AP"].agg(["mean", "size"])
        complete = judged[judged["size"] == judged["size"].max()]
        names = {"default", str(complete["mean"].idxmax())} & set(tried["setting"])
        kept.append(tried[tried["setting"].isin(names)])
    return pd.concat(kept) if kept else parts


def paired(rows: pd.DataFrame, one: Sequence[str], other: Sequence[str], figure: str) -> pd.Series:
    """Mean difference of a figure over the parts that both have, its standard error, their number.

    one, other: detector, view and setting; rows: of one table.
    """

    def of(line: Sequence[str]) -> pd.Series:
        same = (rows[["detector", "view", "setting"]] == list(line)).all(axis=1)
        return rows[same].groupby("part")[figure].mean()

    difference = (of(one) - of(other)).dropna()
    error = difference.std() / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
    return pd.Series({"difference": difference.mean(), "s.e.": error, "parts": len(difference)})


def write(
    folder: Path, protocols: Mapping[str, str], missing: Sequence[Sequence[str]]
) -> tuple[Path, Path]:
    """Writes both tables beside the cells; `missing` are keys of cells that were asked for."""
    rows = frame(read(folder), protocols)
    markdown, csv = folder / MARKDOWN, folder / CSV
    parts = by_part(rows) if len(rows) else rows
    parts.to_csv(csv, index=False, float_format="%.6g")
    text = [__doc__.split("\n\n", 1)[1] if __doc__ else ""]
    for (dataset, table), of in parts.groupby(["dataset", "table"], sort=False):
        title = TITLES[dataset] if table == "main" else f"{TITLES[dataset]}: {table}"
        text.append(f"## {title}\n\n{_section(str(dataset), of)}")
    text += [_beside(rows), _missing(missing)]
    markdown.write_text("\n\n".join(part for part in text if part) + "\n", encoding="utf-8")
    return markdown, csv


def _section(dataset: str, parts: pd.DataFrame) -> str:
    if "AP" not in parts.dropna(axis=1, how="all"):
        return _markdown(_means(parts, []))
    figures = [name for name in parts.dropna(axis=1, how="all") if _is_figure(str(name))]
    shown = chosen(parts)
    spans = {"": set(shown["part"])}
    if dataset == "handbook":
        spans = {
            "All seven weeks": set(WEEKS),
            "Weeks of choice": set(CHOSEN_ON),
            "Weeks of report": set(WEEKS[len(CHOICE) :]),
        }
    tables = []
    for name, span in spans.items():
        within = shown[shown["part"].isin(span)]
        if len(within):
            head = f"### {name}\n\n" if name else ""
            tables.append(head + _markdown(_means(within, figures)))
    return "\n\n".join([*tables, f"### AP by part\n\n{_markdown(_wide(shown))}"])


def _is_figure(name: str) -> bool:
    return name.startswith(("AUC", "AP", "CP@", "value@", "weighted"))


def _means(parts: pd.DataFrame, figures: Sequence[str]) -> pd.DataFrame:
    """One line per detector, view and setting, by class of labels and falling AP."""
    groups = parts.groupby(LINE, as_index=False, sort=False)
    means = groups[[*figures, *COSTS]].mean()
    counts = groups.agg(parts=("part", "nunique"), seeds=("seeds", "max"))
    means = means.merge(counts, on=LINE)
    if not figures:
        return means[[*LINE, *COSTS]]
    errors = groups["AP"].agg(lambda values: values.std() / np.sqrt(len(values)))
    means.insert(means.columns.get_loc("AP") + 1, "± s.e.", errors["AP"])
    return _ranked(means, "AP")


def _wide(parts: pd.DataFrame) -> pd.DataFrame:
    """AP of every line in every part."""
    wide = parts.pivot_table(index=LINE, columns="part", values="AP", sort=False)
    order = _ranked(wide.reset_index().assign(mean=wide.mean(axis=1).to_numpy()), "mean")
    return order[[*LINE, *sorted(wide.columns)]]


def _ranked(lines: pd.DataFrame, figure: str) -> pd.DataFrame:
    """By class of labels, then by falling figure."""
    classes = lines["labels"].map(CLASSES.index)
    ranked = lines.assign(_class=classes).sort_values(
        ["_class", figure], ascending=[True, False], kind="stable"
    )
    return ranked.drop(columns="_class")


def _beside(rows: pd.DataFrame) -> str:
    """peerwatch less each peer that was given the same focal variables: paired differences."""
    main = rows[(rows["dataset"] == "handbook") & (rows["table"] == "main")]
    lines = main[["detector", "view", "setting"]].drop_duplicates()
    ours = lines[lines["detector"].str.startswith(HOUSE)].to_numpy().tolist()
    theirs = lines[lines["view"] == EQUAL_VIEW].to_numpy().tolist()
    found = [
        {"peerwatch": one[1], "less": other[0], "its setting": other[2]}
        | paired(main, one, other, "AP").to_dict()
        for one in ours
        for other in theirs
    ]
    title = "## AP: peerwatch less a peer with the same focal variables, week by week"
    return f"{title}\n\n{_markdown(pd.DataFrame(found))}" if found else ""


def _missing(keys: Sequence[Sequence[str]]) -> str:
    """What was asked for and is not there, counted over parts and seeds."""
    if not keys:
        return ""
    named = pd.DataFrame(keys, columns=list(KEY))
    counted = named.groupby(["dataset", "detector", "view", "setting"], as_index=False, sort=False)
    return f"## Missing\n\n{_markdown(counted.agg(cells=('part', 'size')))}"


def _markdown(table: pd.DataFrame) -> str:
    lines = [[str(name) for name in table.columns], ["---"] * len(table.columns)]
    lines += [
        [_shown(str(name), value) for name, value in zip(table.columns, row, strict=True)]
        for row in table.itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "–"
    if name in ("train_rows", "parts", "seeds", "cells"):
        return f"{value:,.0f}"
    return f"{value:.1f}" if name.endswith("seconds") else f"{value:.3f}"
