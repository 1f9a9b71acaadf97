"""Jobs that are killed again and again, until they come to their end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from fraudwatch import detector
from shared import cli
from tests.faults import harness
from tests.faults.harness import (
    HELD,
    TEMPORARY,
    Arm,
    Ended,
    Line,
    at_call,
    calls_of,
    killed,
    start,
    tell,
)
from tests.faults.worlds import State, World, differences, small_slices, told
from tests.small_bank import END, FITTED, NOW, copies

Step = Callable[[World, datetime], object]  # one job, as of a moment of the clock
PER_STEP = 6  # kills, where a world has several steps: each comes to its end often
STOPPED, STOP_SECONDS, TERM = 143, 10, signal.SIGTERM
AS_OF = [END - timedelta(days=days) for days in (10, 7, 4, 1)]  # of the segments


def score(world: World, now: datetime) -> object:
    small_slices()
    return world.do("fraudwatch.score", now)


def segments_as_of(moment: datetime) -> Step:
    return lambda world, now: world.do("segmenter.score", now, until=moment)


def fit(job: str, until: datetime) -> Step:
    def fitted(world: World, now: datetime) -> object:
        detector.STEPS = (5, 5)  # what the net learns is not looked at
        return world.do(job, now, until=until)

    return fitted


SCORING = (score,)
SEGMENTS = tuple(segments_as_of(moment) for moment in AS_OF)
FITS = (
    fit("fraudwatch.fit", FITTED + timedelta(days=7)),
    fit("segmenter.fit", END - timedelta(days=6)),
    fit("fraudwatch.recalibrate", END),
)


@dataclass(frozen=True)
class Undisturbed:
    """What the steps leave where nothing disturbs them, and what each asks of the database."""

    state: State
    calls: tuple[int, ...]


@contextmanager
def trial(line: Line, world: World, expected: Undisturbed) -> Iterator[World]:
    """A copy of the world for one fault, whose end state is looked at afterwards."""
    with copies(world.url) as url:
        copy = world.copy(url)
        yield copy
        state = copy.state()
        lost, doubled, other = differences(state, expected.state)
        denied = copy.denied()
        line.lost, line.doubled = line.lost + lost, line.doubled + doubled
        line.other += other + sum(denied.values())
        if lost or doubled or other or denied:
            print("\n".join([*told(state, expected.state), str(denied)]))


def until_done(
    work: Callable[[datetime], object], tries: int = 60, arm: Arm | None = None
) -> list[int]:
    """Exit codes of runs, one after the other, until one succeeds."""
    codes: list[int] = []
    for now in (NOW + timedelta(minutes=minute) for minute in range(tries)):
        ended = start(lambda now=now: work(now), arm).wait()
        codes.append(ended.code)
        assert ended.code in (0, HELD, TEMPORARY), ended.said
        if ended.code == 0:
            return codes
    raise AssertionError(f"not done after {tries} tries: {codes}")


def undisturbed(world: World, steps: tuple[Step, ...]) -> Undisturbed:
    with copies(world.url) as url:
        copy = world.copy(url)
        calls = tuple(calls_of(lambda step=step: step(copy, NOW)) for step in steps)
        return Undisturbed(copy.state(), calls)


def sweep(
    fault: str,
    world: World,
    steps: tuple[Step, ...],
    expected: Undisturbed,
    kills: int,
    *,
    seed: int = harness.SEED,
    reach: float = 1.0,
    seconds: float = 1.0,
    control: bool = False,
) -> Line:
    """Kills the steps, each until it comes to its end, on copies of the world until it was enough.

    control: until something is noticed. reach: up to which share of its calls a step is killed;
    seconds: up to when. Small ones kill a run of many slices often, so that it goes on from many
    places.
    """
    generator, fallen, copies_used = random.Random(seed), 0, 0
    line = Line(fault, world.dialect, seed, "", expected=not control)
    while fallen < kills and not (control and line.as_expected):
        with trial(line, world, expected) as copy:
            times = _clock()
            for step, calls in zip(steps, expected.calls, strict=True):
                few = control or len(steps) > 1
                enough = min(PER_STEP, kills - fallen) if few else kills - fallen
                fell, broken = _until_done(
                    copy, step, times, generator, enough, max(1, int(calls * reach)), seconds
                )
                fallen, line.other = fallen + fell, line.other + broken
        copies_used += 1
        print(f"{fault}, {world.dialect}: {fallen} kills", flush=True)
    line.done = f"{fallen} kills in {copies_used} worlds"
    return tell(line)


def terminated(world: World, expected: Undisturbed, times: int) -> Line:
    """Runs that are told to stop, at any of their calls or any moment: at once, and politely."""
    generator, stopped, slowest = random.Random(harness.SEED), 0, 0.0
    line = Line("SIGTERM in every phase", world.dialect, harness.SEED, "")
    (calls,) = expected.calls
    while stopped < times:
        with trial(line, world, expected) as copy:
            for now in _clock():
                begun = time.monotonic()
                ended = _told_to_stop(lambda now=now: score(copy, now), generator, calls)
                if ended.code == 0:
                    break
                slowest = max(slowest, time.monotonic() - begun)
                stopped += 1
                left = copy.count("pipeline_runs", "status = 'running'")
                if ended.code not in (STOPPED, -TERM) or (ended.code == STOPPED and left):
                    print(f"exit {ended.code}, {left} running: {ended.said}")
                    line.other += 1
                line.other += copy.broken()
                if stopped >= times:
                    until_done(lambda now: score(copy, now))
                    break
    line.other += int(slowest > STOP_SECONDS)
    line.done = f"{stopped} times, {slowest:.1f} s at most from start to end"
    return tell(line)


def _told_to_stop(work: Callable[[], object], generator: random.Random, calls: int) -> Ended:
    """Does the work as the command does, told to stop at one of its calls or at any moment."""

    def politely() -> None:
        with cli._stopped_politely():
            work()

    if generator.random() < 0.5:
        tell_itself = at_call(generator.randint(1, calls), lambda: os.kill(os.getpid(), TERM))
        return start(politely, tell_itself).wait()
    child = start(politely)
    time.sleep(generator.uniform(0.1, 1.5))
    with suppress(ProcessLookupError):
        child.send(TERM)
    return child.wait()


def _clock() -> Iterator[datetime]:
    return (NOW + timedelta(seconds=second) for second in count())


def _until_done(
    world: World,
    step: Step,
    times: Iterator[datetime],
    generator: random.Random,
    enough: int,
    calls: int,
    seconds: float,
) -> tuple[int, int]:
    """(kills, what was broken after one of them) until the step came to its end."""
    fell = broken = 0
    before = world.models() if step in FITS else {}
    while True:
        now = next(times)
        if fell < enough:
            ended = killed(lambda now=now: step(world, now), generator, calls, seconds)
        else:
            ended = start(lambda now=now: step(world, now)).wait()
        if ended.killed:
            fell += 1
            broken += world.broken() if step not in FITS else _half_models(world, before)
            continue
        if ended.code == HELD:  # the server has not noticed the last death yet
            continue
        assert ended.code == 0, ended.said
        return fell, broken


def _half_models(world: World, before: dict[str, str]) -> int:
    """Kinds whose champion is neither the one before nor a whole new one in its place."""
    after = world.models()  # each is read and checked
    champions = [name.split("-")[0] for name, status in after.items() if status == "champion"]
    wanted = {name.split("-")[0] for name, status in before.items() if status == "champion"}
    halves = world.ask(
        "SELECT count(*) FROM #model_versions m WHERE m.kind = 'segmenter' AND NOT EXISTS "
        "(SELECT 1 FROM #segments s WHERE s.model_version_id = m.model_version_id)"
    )
    return int(sorted(champions) != sorted(wanted)) + int(halves[0][0])
