"""peerwatch's peers, rules and ceilings on data with known frauds, and one table of what they find.

    python -m tests.quality.benchmark FOLDER --jobs 2
    python -m tests.quality.benchmark FOLDER --only handbook --detectors IForest,PCA --weeks 1-4

Every combination of data, detector, view, setting and seed is a cell: one line of
FOLDER/cells.jsonl. A run does the cells that are not there yet and then writes FOLDER/benchmark.md
and FOLDER/benchmark.csv from what is there, and what is missing. So a run can be cut into pieces
and interrupted at any time. A cell whose protocol has changed since is done again.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # one thread a process, before numpy is imported

import argparse  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterable, Iterator  # noqa: E402
from concurrent.futures import ProcessPoolExecutor, as_completed  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from functools import cache  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from fraudwatch import evaluation  # noqa: E402
from tests.quality import cases, datasets, leaderboard, protocol, scorers  # noqa: E402
from tests.quality.fingerprints import fingerprint  # noqa: E402

METRICS = (
    evaluation.auc,
    evaluation.average_precision,
    evaluation.card_precision,
    evaluation.per_kind,
    evaluation.value_found,
    protocol.known_compromised,
)


@dataclass(frozen=True)
class Wanted:
    """A cell by its names; `cost` orders a run."""

    dataset: str
    part: str
    detector: str
    view: str
    setting: str
    seed: int
    cost: int

    @property
    def key(self) -> tuple[str, ...]:
        return (self.dataset, self.part, self.detector, self.view, self.setting, str(self.seed))


@dataclass(frozen=True)
class Asked:
    """What a call asks for; an empty choice means everything."""

    only: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    weeks: tuple[int, ...] = ()  # of the handbook, counted from 1
    seeds: tuple[int, ...] = (0, 1, 2)
    grid: bool = False  # the settings beside the defaults too
    most_cost: int = 3


def wanted(asked: Asked) -> list[Wanted]:
    """The cells of a call, the cheap ones first, then the first seed of all."""
    found = []
    for dataset, parts in cases.PARTS.items():
        if asked.only and dataset not in asked.only:
            continue
        for number, part in enumerate(parts, 1):
            if dataset == "handbook" and asked.weeks and number not in asked.weeks:
                continue
            found += list(_of_part(asked, dataset, part))
    return sorted(found, key=lambda cell: (cell.cost, cell.seed))


def _of_part(asked: Asked, dataset: str, part: str) -> Iterator[Wanted]:
    for scorer in scorers.on(dataset):
        named = not asked.detectors or scorer.name in asked.detectors
        seen = not asked.views or scorer.view in asked.views
        tried = asked.grid or scorer.setting == scorers.DEFAULT
        if named and seen and tried and scorer.cost <= asked.most_cost:
            for seed in asked.seeds if scorer.seeded or dataset in cases.DRAWN else asked.seeds[:1]:
                yield Wanted(
                    *(dataset, part, scorer.name, scorer.view, scorer.setting), seed, scorer.cost
                )


@cache
def protocol_of(dataset: str) -> str:
    """Fingerprint of the code that decides what a figure of the data set means."""
    return fingerprint(*METRICS, *cases.CODE[dataset])


def cell(folder: Path, one: Wanted) -> dict[str, Any]:
    """One cell done: trains, scores the test rows, judges the scores."""
    case = cases.case(one.dataset, one.part, folder, one.seed)
    scorer = scorers.named(one.dataset, one.detector, one.view, one.setting)
    begun = time.process_time()
    score = scorer.fit(case, one.seed)
    fitted = time.process_time()
    scores = score()
    scored = time.process_time()
    return {
        **dict(zip(leaderboard.KEY, one.key, strict=True)),
        "seed": one.seed,
        "labels": scorer.labels,
        "protocol": protocol_of(one.dataset),
        "source": scorer.source,
        "train_rows": scorer.train_rows(case),
        "test_rows": len(scores),
        "fit_seconds": round(fitted - begun, 2),
        "score_seconds": round(scored - fitted, 2),
        "figures": case.figures(scores),
    }


def missing(folder: Path, cells: Iterable[Wanted]) -> list[Wanted]:
    """The cells that are not in the folder, or were made by another protocol or detector."""
    done = {
        (*(str(line[name]) for name in leaderboard.KEY), line["protocol"], line["source"])
        for line in leaderboard.read(folder)
    }
    left = []
    for one in cells:
        scorer = scorers.named(one.dataset, one.detector, one.view, one.setting)
        if (*one.key, protocol_of(one.dataset), scorer.source) not in done:
            left.append(one)
    return left


def run(folder: Path, cells: list[Wanted], jobs: int) -> None:
    """Does the cells, each finished one written at once."""
    for number, done in enumerate(_done(folder, cells, jobs), 1):
        with (folder / leaderboard.CELLS).open("a", encoding="utf-8") as out:
            out.write(json.dumps(done, ensure_ascii=False) + "\n")
        told = " ".join(str(done[name]) for name in leaderboard.KEY)
        precision = done["figures"].get("main", {}).get("AP", float("nan"))
        spent = done["fit_seconds"] + done["score_seconds"]
        print(f"{number}/{len(cells)} {told}: AP {precision:.3f}, {spent:.1f} s", flush=True)


def _done(folder: Path, cells: list[Wanted], jobs: int) -> Iterator[dict[str, Any]]:
    if jobs == 1:
        yield from (cell(folder, one) for one in cells)
        return
    context = multiprocessing.get_context("spawn")  # torch and forks do not agree
    with ProcessPoolExecutor(jobs, context) as pool:
        for future in as_completed([pool.submit(cell, folder, one) for one in cells]):
            yield future.result()


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    """ "1-4" or "0,2" or both."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.benchmark")
    parser.add_argument("folder", type=Path, nargs="?", default=datasets.ROOT / "build/quality")
    parser.add_argument("--only", type=_names, default=(), metavar="SET,…")
    parser.add_argument("--detectors", type=_names, default=(), metavar="NAME,…")
    parser.add_argument("--views", type=_names, default=(), metavar="VIEW,…")
    parser.add_argument("--weeks", type=_numbers, default=(), metavar="1-7")
    parser.add_argument("--seeds", type=_numbers, default=(0, 1, 2), metavar="0-2")
    parser.add_argument("--grid", action="store_true", help="the settings beside the defaults too")
    parser.add_argument("--cost", type=int, default=3, help="1: cheap detectors alone; 3: all")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--table", action="store_true", help="write the tables, run nothing")
    return parser


def main() -> None:
    parser = _parser()
    given = parser.parse_args()
    if importlib.util.find_spec("pyod") is None:
        parser.exit(1, "The peers are not installed: pip install -c constraints.txt '.[quality]'\n")
    asked = Asked(
        given.only, given.detectors, given.views, given.weeks, given.seeds, given.grid, given.cost
    )
    cells = wanted(asked)
    given.folder.mkdir(parents=True, exist_ok=True)
    left = missing(given.folder, cells)
    if not given.table:
        run(given.folder, left, given.jobs)
        left = missing(given.folder, cells)
    protocols = {dataset: protocol_of(dataset) for dataset in cases.PARTS}
    written = leaderboard.write(given.folder, protocols, [one.key for one in left])
    print("\n".join(str(path) for path in written))


if __name__ == "__main__":
    main()
