"""What each method finds in each data set of the segmentation suite, kept, and one table of it.

    python -m tests.quality.segment_cells FOLDER
    python -m tests.quality.segment_cells FOLDER --only classics,missing --methods peerwatch

A cell is one method on one data set with one seed: a line of FOLDER/segmentation.jsonl. Cells that
are there already are not done again, unless their rows or the code of their method have changed.
Every run writes FOLDER/segmentation.md and FOLDER/segmentation.csv from the cells that are asked
for and there.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # one thread a process, before numpy is imported

import argparse  # noqa: E402
import functools  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
from collections.abc import Callable, Iterator, Mapping, Sequence  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from segmenter.columns import Columns  # noqa: E402
from segmenter.config import Settings  # noqa: E402
from segmenter.merging import group_terms, merge  # noqa: E402
from segmenter.model import SegmentMixture  # noqa: E402
from segmenter.screening import screen  # noqa: E402
from shared.encoding import Feature  # noqa: E402
from tests.quality import clustering, commands, datasets, segment_peers, shoppers  # noqa: E402
from tests.quality.clustering import Grouped  # noqa: E402
from tests.quality.fingerprints import fingerprint  # noqa: E402
from tests.quality.segment_peers import PEERS, Answer, Fitted, Method, Task  # noqa: E402

CELLS, MARKDOWN, CSV = "segmentation.jsonl", "segmentation.md", "segmentation.csv"
FOLDER = datasets.ROOT / "build/quality"
KEY = ("row", "data", "method", "seed")
HOUSE = "peerwatch"
MCLUST_ROWS = 5_000  # above, one scan of its fourteen families takes minutes
PEER_ROWS = 20_000  # above, a peer has one seed
ENGINE = fingerprint(  # at import: the code that runs is the code that was read then
    *sorted(
        path
        for name in (
            "model",
            "families",
            "em",
            "selection",
            "blocks",
            "layout",
            "merging",
            "screening",
            "columns",
        )
        for path in (datasets.ROOT / "segmenter").glob(f"{name}.py")
    )
)


def automatic(task: Task, **settings: Any) -> Fitted:
    """The estimator as it is, the sizes of the protocol its only setting."""
    fit = SegmentMixture(max_components=task.sizes[-1], random_state=task.seed, **settings).fit(
        task.rows
    )
    return fit.predict(task.rows), fit.n_components_, _shape(fit)


def merged(task: Task) -> Fitted:
    """The estimator, and its overlapping parts joined as for published segments."""
    fit = SegmentMixture(max_components=task.sizes[-1], random_state=task.seed).fit(task.rows)
    terms = fit.log_terms(task.rows)
    groups, _ = merge(terms, min_share=Settings().min_segment_share)
    labels = group_terms(terms, groups).argmax(axis=1)
    return labels, len(groups), f"{fit.n_components_} {_shape(fit)}"


def screened(task: Task) -> Fitted:
    """The estimator on the columns that the segmenter makes of rows: those that the screen admits,
    as what it takes them for, and on logarithms what is nowhere negative, as an amount is."""
    frame = pd.DataFrame(task.rows).add_prefix("x")
    features = [
        Feature(name, "continuous", "shape", "", "a column", "log1p" if least >= 0 else "none")
        for name, least in frame.min().items()
    ]
    found = screen(frame, features, ())
    kept = [feature for feature in features if not found.reasons[feature.name]]
    columns = Columns.fit(frame, kept, found.kinds, found.floors)
    rows = columns.matrix(frame)
    asked = Task(rows, task.sizes, task.n_groups, task.seed)
    return automatic(asked, kinds=columns.declaration["kinds"])


def of_shoppers(task: Task, name: str) -> Fitted:
    """One of the methods that stand beside the simulated shoppers."""
    labels = shoppers.METHODS[name](task.rows, task.seed)
    return labels, len(np.unique(labels)), ""


def _shape(fit: SegmentMixture) -> str:
    tails = getattr(fit, "tails_", "")
    return f"{fit.covariance_type_} {tails}".strip()


OURS: Mapping[str, Method] = {
    HOUSE: automatic,
    "peerwatch, merged": merged,
    "peerwatch, noise": functools.partial(automatic, noise=True),
    "peerwatch, screened": screened,
    **{name: functools.partial(of_shoppers, name=name) for name in shoppers.METHODS},
}


@dataclass(frozen=True)
class Row:
    """A row of the goals: data sets by name (made from a seed), and the methods that stand there.

    sizes: numbers of groups that are looked at. drawn: whether the seed makes the data as well.
    """

    title: str
    data: Mapping[str, Callable[[int], Grouped]]
    methods: Sequence[str]
    sizes: range
    drawn: bool
    seeds: tuple[int, ...] = (0, 1, 2)


def _of_seed(make: Callable[..., Grouped], *given: Any) -> Callable[[int], Grouped]:
    return lambda seed: make(*given, seed)


def _shoppers(seed: int) -> Grouped:
    return Grouped(*shoppers.shoppers(shoppers.ROWS, seed))


def _real(name: str) -> Callable[[int], Grouped]:
    return lambda seed: clustering.classic(name)


WITH_CLASSES = (
    HOUSE,
    "mclust BIC",
    "mclust ICL",
    "scikit-learn BIC",
    "scikit-learn BIC, n_init 5",
    "scikit-learn Dirichlet process",
    "stepmix BIC",
    "k-means told K",
    "pomegranate told K",
)
SLOW = ("mclust ICL", "scikit-learn BIC, n_init 5")  # minutes a set where columns are many
ROWS: Mapping[str, Row] = {
    "classics": Row(
        "True classes, sets on which the design was chosen; 1 to 9 groups",
        {name: _real(name) for name in clustering.CLASSICS},
        WITH_CLASSES,
        range(1, 10),
        drawn=False,
    ),
    "untouched": Row(
        "True classes, sets that had no part in the design; 1 to 12 groups",
        {name: _real(name) for name in clustering.UNTOUCHED},
        tuple(method for method in WITH_CLASSES if method not in SLOW),
        range(1, 13),
        drawn=False,
    ),
    "five segments": Row(
        "Five simulated segments; 1 to 12 components",
        {
            f"{kind} {n:,}": _of_seed(clustering.five_segments, kind, n)
            for n in (2_000, 10_000, 50_000)
            for kind in clustering.KINDS
        },
        ("peerwatch, merged", "mclust BIC", "scikit-learn BIC, full"),
        range(1, 13),
        drawn=True,
    ),
    "outliers": Row(
        "Four segments and 2 % of rows that belong to none; 1 to 9 components",
        {kind: _of_seed(clustering.far_outliers, kind) for kind in clustering.OUTLIERS},
        (
            "peerwatch, noise",
            HOUSE,
            "mclust BIC",
            "scikit-learn BIC, full, n_init 3",
            "scikit-learn told K",
        ),
        range(1, 10),
        drawn=True,
    ),
    "zero column": Row(
        "Four segments and a column that is zero for 60 % of the rows; 1 to 10 components",
        {"zero for 60 %": clustering.zero_column},
        ("peerwatch, screened", HOUSE, "mclust BIC", "scikit-learn BIC, full"),
        range(1, 11),
        drawn=True,
    ),
    "missing": Row(
        "Four segments, cells missing completely at random; 1 to 8 components",
        {f"{share:.0%} missing": _of_seed(clustering.missing_cells, share) for share in (0.1, 0.3)},
        (
            HOUSE,
            "stepmix BIC",
            "mean + scikit-learn",
            "neighbours + scikit-learn",
            "regressions + scikit-learn",
        ),
        range(1, 9),
        drawn=True,
    ),
    "shoppers": Row(
        "Six simulated kinds of shoppers, amounts, counts and shares; 1 to 10 groups",
        {"shoppers": _shoppers},
        tuple(shoppers.METHODS),
        shoppers.SIZES,
        drawn=True,
        seeds=tuple(shoppers.SEEDS),
    ),
}


@dataclass(frozen=True)
class Wanted:
    """A cell that a row asks for."""

    row: str
    data: str
    method: str
    seed: int

    def task(self) -> Task:
        made = grouped(self.row, self.data, self.seed)
        return Task(made.rows, ROWS[self.row].sizes, made.n_groups, self.seed)


@functools.lru_cache(maxsize=8)
def grouped(row: str, data: str, seed: int) -> Grouped:
    return ROWS[row].data[data](seed)


def wanted(row: str, methods: Sequence[str] = ()) -> Iterator[Wanted]:
    """The cells of a row, its peers first; `methods`: those alone, or everything."""
    of = ROWS[row]
    for method in sorted(of.methods, key=lambda name: name in OURS):
        if (methods and method not in methods) or segment_peers.absent(method):
            continue
        for data in of.data:
            yield from _seeds(row, data, method)


def _seeds(row: str, data: str, method: str) -> Iterator[Wanted]:
    """A method's cells on one data set: what draws nothing needs one seed, what is slow has one."""
    of, in_r = ROWS[row], method.startswith("mclust")
    size = len(grouped(row, data, of.seeds[0]).rows)
    if in_r and size > MCLUST_ROWS:
        return
    once = (in_r and not of.drawn) or (size > PEER_ROWS and method not in OURS)
    for seed in of.seeds[:1] if once else of.seeds:
        yield Wanted(row, data, method, seed)


@functools.cache
def protocol(cell: Wanted) -> str:
    """Of the rows, of what is asked of them and of the code that answers."""
    made = grouped(cell.row, cell.data, cell.seed)
    bytes_ = np.ascontiguousarray(made.rows).tobytes() + made.truth.tobytes()
    asked = f"{ROWS[cell.row].sizes}{_code(cell.method)}"
    return hashlib.sha256(bytes_ + asked.encode()).hexdigest()[:10]


@functools.cache
def _code(method: str) -> str:
    """The code of a method: ours with the whole estimator."""
    if method.startswith("mclust"):
        return hashlib.sha256(segment_peers.SCRIPT.read_bytes()).hexdigest()
    found = OURS.get(method) or PEERS[method]
    bound = ""
    if isinstance(found, functools.partial):
        bound, found = str(sorted(found.keywords.items())), found.func
    return bound + fingerprint(found) + (ENGINE if method in OURS else "")


def cell(one: Wanted, found: Answer) -> dict[str, Any]:
    """The figures of an answer."""
    made = grouped(one.row, one.data, one.seed)
    return {
        **{name: getattr(one, name) for name in KEY},
        "protocol": protocol(one),
        "K": found.n_groups,
        "family": found.family,
        **clustering.figures(made.truth, found.labels),
        "ceiling": made.ceiling,
        "seconds": round(found.seconds, 2),
    }


def answers(cells: Sequence[Wanted]) -> Iterator[tuple[Wanted, Answer]]:
    """Each cell done; those of mclust together, in one process of R."""
    in_r = [c for c in cells if c.method.startswith("mclust")]
    asked = {(c.row, c.data, c.seed): c for c in in_r}
    tasks = {f"t{number}": c.task() for number, c in enumerate(asked.values())}
    if tasks:
        places = dict(zip(tasks, asked.values(), strict=True))
        icl = any(c.method.endswith("ICL") for c in in_r)
        for name, criterion, found in segment_peers.mclust(tasks, icl):
            place = places[name]
            yield Wanted(place.row, place.data, f"mclust {criterion}", place.seed), found
    for one in cells:
        if one not in in_r:
            method = OURS.get(one.method) or PEERS[one.method]
            yield one, segment_peers.answer(method, one.task())


def read(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The lines of a folder by key and protocol; one that was cut off is left out."""
    path = folder / CELLS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return {(*(line[name] for name in KEY), line["protocol"]): line for line in found}


def run(folder: Path, row: str, methods: Sequence[str] = ()) -> pd.DataFrame:
    """The cells of a row as a table, those that were missing done and written at once."""
    folder.mkdir(parents=True, exist_ok=True)
    cells, done = list(wanted(row, methods)), read(folder)
    left = [one for one in cells if _key(one) not in done]
    for one, found in answers(left):
        line = cell(one, found)
        with (folder / CELLS).open("a", encoding="utf-8") as out:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(
            f"{one.data}, {one.method}, seed {one.seed}: K {line['K']} {line['family']}, "
            f"ARI {line['ARI']:.3f}, {line['seconds']:.1f} s",
            flush=True,
        )
    return present(folder, row, methods)


def present(folder: Path, row: str, methods: Sequence[str] = ()) -> pd.DataFrame:
    """The cells of a row that are there, one line each."""
    done = read(folder)
    lines = [done[_key(one)] for one in wanted(row, methods) if _key(one) in done]
    return pd.DataFrame(lines, columns=None if lines else list(KEY))


def _key(one: Wanted) -> tuple[Any, ...]:
    return (*(getattr(one, name) for name in KEY), protocol(one))


def write(folder: Path) -> str:
    """Writes the table of all cells that are there, in Markdown and CSV; gives the first."""
    parts, everything = [], []
    for name, row in ROWS.items():
        cells = present(folder, name)
        if len(cells):
            everything.append(cells)
            parts.append(commands.markdown(summary(row, cells), row.title))
            if not row.drawn:
                parts.append(commands.markdown(_means(row, cells), "mean ARI over the sets"))
    if everything:
        pd.concat(everything).to_csv(folder / CSV, index=False, float_format="%.6g")
    text = "\n".join(parts)
    (folder / MARKDOWN).write_text(text + "\n", encoding="utf-8")
    return text


def summary(row: Row, cells: pd.DataFrame) -> list[dict[str, Any]]:
    """A line per data set and method, seeds together."""
    lines = []
    for data in row.data:
        for method in row.methods:
            of = cells[(cells["data"] == data) & (cells["method"] == method)]
            if len(of):
                lines.append(_line(data, method, of))
    return lines


def _line(data: str, method: str, of: pd.DataFrame) -> dict[str, Any]:
    line = {
        "data": data,
        "method": method,
        "seeds": len(of),
        "K": ", ".join(str(k) for k in of["K"]),
        "ARI": round(of["ARI"].mean(), 3),
        "by seed": ", ".join(f"{value:.3f}" for value in of["ARI"]),
        "CPU s": round(of["seconds"].mean(), 1),
        "family": of["family"].iloc[0],
    }
    for name in ("ceiling", "flagged", "lost"):
        if of[name].notna().any():
            line[name] = round(of[name].mean(), 4)
    return line


def _means(row: Row, cells: pd.DataFrame) -> list[dict[str, Any]]:
    """A line per method: its mean over the sets, all seeds, and each set's own."""
    by = cells.groupby(["method", "data"])["ARI"].mean().unstack().reindex(columns=list(row.data))
    means = by.mean(axis=1, skipna=False)
    return [
        {"method": method, "mean": round(means[method], 3), **by.loc[method].round(3)}
        for method in row.methods
        if method in by.index
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.segment_cells")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--only", default=",".join(ROWS), metavar="ROW,…")
    parser.add_argument("--methods", default="", metavar="METHOD;…")
    given = parser.parse_args()
    methods = tuple(name for name in given.methods.split(";") if name)
    for row in given.only.split(","):
        run(given.folder, row, methods)
    print(write(given.folder))


if __name__ == "__main__":
    main()
