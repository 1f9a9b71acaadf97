"""Steps in any order, against a small model in memory; a seed replays them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

from shared import registry, runs
from tests.builders import a_transaction, run_sql
from tests.faults.harness import SEED, Line, at_call, done, start, tell
from tests.faults.model import Books
from tests.faults.worlds import FEW, World
from tests.small_bank import END, copies

EPISODE = 100  # steps on one copy of the world
KEPT = timedelta(days=12)  # of the bank's history before the steps
LATENESS = 1  # days
VERDICTS = ("confirmed_fraud", "false_positive", "genuine_unusual", "in_review")


def ready(url: str) -> World:
    """A world of short history with two models, from which the steps begin."""
    world = World(url)
    first = (END - KEPT).replace(tzinfo=None)
    run_sql(url, f"DELETE FROM card_tx WHERE ts < '{first}' OR ts >= '{END:%Y-%m-%d}'")
    run_sql(url, "DELETE FROM card_tx WHERE ts IS NULL OR amt IS NULL OR ABS(amt) > 1e12")
    world.do("fraudwatch.recalibrate", until=END - timedelta(days=2))
    return world


class Steps:
    """One copy of the world, its model, and the steps that both take."""

    def __init__(self, world: World, generator: random.Random) -> None:
        self.world, self.generator = world, generator
        world.settings |= FEW | {
            "score_from": END.date(), "allowed_lateness_days": LATENESS, "exploration_per_day": 0,
        }  # fmt: skip
        names = world.ask("SELECT model_version_id, status FROM #model_versions "
                          "WHERE kind = 'fraudwatch' ORDER BY 1")  # fmt: skip
        self.models = [str(name) for name, _ in names]
        champion = next(str(name) for name, status in names if status == "champion")
        self.books = Books(END, timedelta(days=LATENESS), champion)
        self.front, self.clock, self.ids = END, END + timedelta(days=30), count(500_000)
        self.taken: Counter[str] = Counter()
        self.rules: dict[Callable[[], list[str]], int] = {
            self.insert: 64, self.insert_late: 14, self.insert_poison: 4, self.wait: 4,
            self.run: 3, self.kill: 2, self.backfill: 1,
            self.verdict: 3, self.promote: 4, self.verify: 1,
        }  # fmt: skip
        self._put([self.front])

    def step(self) -> list[str]:
        """One step; what is wrong after it."""
        (rule,) = self.generator.choices(list(self.rules), list(self.rules.values()))
        self.taken[rule.__name__] += 1
        self.clock += timedelta(seconds=1)
        return [f"{rule.__name__}: {fault}" for fault in rule()]

    # --- the source

    def insert(self) -> list[str]:
        moments = []
        for _ in range(self.generator.randint(1, 3)):
            self.front += timedelta(seconds=self.generator.randint(1, 7200))
            moments.append(self.front)
        return self._put(moments)

    def insert_late(self) -> list[str]:
        """Rows of any moment since the scope began; some are too late for a run."""
        span = (self.front - END).total_seconds()
        return self._put([END + timedelta(seconds=int(span * self.generator.random() ** 0.3))])

    def insert_poison(self) -> list[str]:
        self.world.add([a_transaction(next(self.ids), _text(self.front), amt=None)])
        return []

    def _put(self, moments: list[datetime]) -> list[str]:
        new = {next(self.ids): moment for moment in moments}
        large = self.generator.random() < 0.1
        self.world.add(
            a_transaction(
                key,
                _text(moment),
                cust=self.generator.randint(1, 60),
                amt=round(self.generator.uniform(500, 3000) if large else 20.0 + key % 30, 2),
                merchant_id=900 + key % 50 if large else key % 12,
                channel="web" if large else "chip",
            )
            for key, moment in new.items()
        )
        self.books.rows |= new
        return []

    # --- the jobs

    def run(self) -> list[str]:
        must, may = self.books.due()
        self.world.score(now=self.clock)
        told = self._looked(must, may)
        self.books.ran()
        return told

    def kill(self) -> list[str]:
        must, may = self.books.due()
        ended = start(
            lambda: self.world.score(now=self.clock), at_call(self.generator.randint(1, 160))
        ).wait()
        told = self._looked(must if ended.code == 0 else set(), may)
        if ended.code == 0:
            self.books.ran()
        elif ended.killed:
            self.books.fell()
        else:
            told.append(ended.said)
        return told

    def backfill(self) -> list[str]:
        since = END + (self.front - END) * self.generator.random()
        until = since + timedelta(hours=self.generator.randint(1, 48))
        self.world.do("backfill.fraudwatch", self.clock, since=since, until=until)
        due = self.books.between(since, until)
        return self._looked(due, due)

    def _looked(self, must: set[int], may: set[int]) -> list[str]:
        rows = self.world.ask(
            "SELECT transaction_id, model_version_id, anomaly_score FROM #transaction_scores "
            "WHERE role = 'published'"
        )
        found = {int(key): (str(model), float(score)) for key, model, score in rows}
        told = self.books.amiss(found, must, may)
        told += ["a row is doubled"] * (len(rows) - len(found))
        told += ["an alert has no reasons or score, or the ledger is wrong"] * self.world.broken()
        return told

    # --- people

    def verdict(self) -> list[str]:
        alerts = self.world.ask("SELECT alert_id, transaction_id FROM #fraud_alerts ORDER BY 1")
        if not alerts:
            return []
        alert, transaction = self.generator.choice(alerts)
        verdict, who = self.generator.choice(VERDICTS), f"analyst {next(self.ids)}"
        options = {"alert_id": alert, "verdict": verdict, "by": who}
        self.world.do("fraudwatch.verdict", self.clock, options=options)
        self.books.verdicts.add((int(transaction), verdict, who))
        return self._heard()

    def _heard(self) -> list[str]:
        rows = self.world.ask("SELECT transaction_id, verdict, actor FROM #fraud_verdicts")
        same = {(int(key), said, who) for key, said, who in rows} == self.books.verdicts
        return [] if same and len(rows) == len(self.books.verdicts) else ["verdicts differ"]

    def promote(self) -> list[str]:
        """Another model leads, or the one before again."""
        name = self.generator.choice(self.models)
        results = runs.open_results(self.world.config)
        with results.transaction() as connection:
            registry.promote(connection, results.tables, name, by="a person", now=self.clock)
        self.books.champion = name
        return []

    def verify(self) -> list[str]:
        told = [f"verify: {text}" for text in self.world.denied()]
        return told + [f"unbalanced {row}" for row in self.world.unbalanced()] + self._heard()

    def wait(self) -> list[str]:
        self.clock += timedelta(hours=self.generator.randint(1, 5))
        return []


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")


def episodes(template: str, steps: int, seed: int = SEED) -> Line:
    """So many steps, on a fresh copy every `EPISODE` of them."""
    taken: Counter[str] = Counter()
    line = Line("steps in any order", World(template).dialect, seed, "")
    with copies(template) as begun:
        done(lambda: ready(begun) and None)
        for episode in range(-(-steps // EPISODE)):
            with copies(begun) as url:
                taken += _episode(url, line, f"{seed}/{episode}", min(EPISODE, steps))
            print(f"{taken.total():,} steps", flush=True)
    kinds = ", ".join(f"{number} {name}" for name, number in taken.most_common())
    line.done = f"{taken.total()} steps: {kinds}"
    return tell(line)


def _episode(url: str, line: Line, seed: str, steps: int) -> Counter[str]:
    walk = Steps(World(url), random.Random(seed))
    for number in range(steps):
        told = walk.step()
        if told:
            line.lost += sum("lost" in fault for fault in told)
            line.doubled += sum("doubled" in fault for fault in told)
            line.other += sum("lost" not in f and "doubled" not in f for f in told)
            print(f"seed {seed}, step {number}:", *told[:5], sep="\n  ")
            break
    return walk.taken
