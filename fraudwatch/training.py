"""The training loop. It knows no model: whatever has a loss per row is trained (after minGPT)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

GRADIENT_NORM_LIMIT = 5.0
TRIM_AFTER = 0.15  # share of the steps: before, the worst rows are merely the not yet learned ones


class RowLoss(Protocol):
    """What a module's loss returns; its parts are the module's own affair."""

    @property
    def total(self) -> Tensor:
        """(rows,), to be made small."""
        ...


class Trainable(Protocol):
    """A torch module with a loss per row."""

    def loss(self, batch: Tensor, generator: torch.Generator) -> RowLoss: ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    steps: int
    batch_size: int = 512
    learning_rate: float = 3e-3  # the peak of the one cycle
    trim: float = 0.0  # share of each batch, the worst rows, that is left out


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: batches this small are slower on more, and sums then have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def default_steps(rows: int, batch_size: int) -> int:
    """1500 steps whatever the size of the table; below 1000 rows 25 passes, at least 250 steps."""
    if rows >= 1000:
        return 1500
    return max(250, math.ceil(25 * rows / min(rows, batch_size)))


def fit_module(
    module: Trainable, matrix: Tensor, schedule: Schedule, generator: torch.Generator
) -> np.ndarray:
    """Train in place with AdamW and a one-cycle rate; returns the mean loss of each step, (steps,).

    matrix: (rows, columns), in the order and type that the module's loss expects.
    """
    parameters = list(module.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.learning_rate, total_steps=schedule.steps, cycle_momentum=False
    )
    losses = np.empty(schedule.steps)
    for step, batch in enumerate(_batches(matrix, schedule, generator)):
        per_row = module.loss(batch, generator).total
        kept = _trimmed(per_row, schedule, step).mean()
        optimizer.zero_grad()
        kept.backward()
        torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM_LIMIT)
        optimizer.step()
        rate.step()
        losses[step] = kept.item()
    if not np.isfinite(losses[-1]):
        raise FloatingPointError(
            f"training ended with a loss of {losses[-1]} after {schedule.steps} steps; "
            f"try a learning_rate below {schedule.learning_rate:g}"
        )
    return losses


def _batches(matrix: Tensor, schedule: Schedule, generator: torch.Generator) -> Iterator[Tensor]:
    """One batch per step: slices of a permutation, and a new permutation when it is used up."""
    rows = len(matrix)
    size = min(rows, schedule.batch_size)
    order, used = torch.empty(0, dtype=torch.int64), 0
    for _ in range(schedule.steps):
        if used + size > len(order):
            order, used = torch.randperm(rows, generator=generator), 0
        yield matrix[order[used : used + size]]
        used += size


def _trimmed(per_row: Tensor, schedule: Schedule, step: int) -> Tensor:
    """The losses without the worst `trim` of the batch, once the first steps are over."""
    dropped = int(schedule.trim * len(per_row))
    if dropped == 0 or step < TRIM_AFTER * schedule.steps:
        return per_row
    return per_row.topk(len(per_row) - dropped, largest=False, sorted=False).values
