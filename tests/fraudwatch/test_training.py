"""The loop against problems whose answer is known; no autoencoder takes part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fraudwatch.training import Schedule, default_steps, fit_module, one_thread


class SquaredDistance(NamedTuple):
    total: Tensor


class Centre(nn.Module):
    """One point; its squared loss is least at the mean of the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(2))

    def loss(self, batch: Tensor, generator: torch.Generator) -> SquaredDistance:
        return SquaredDistance((batch - self.point).square().sum(1))


def some_rows(n: int = 400) -> Tensor:
    return torch.randn((n, 2), generator=torch.Generator().manual_seed(0)) * 0.1 + torch.tensor(
        [1.0, -2.0]
    )


def test_the_loop_finds_the_minimum_of_a_known_loss() -> None:
    rows, module = some_rows(), Centre()

    losses = fit_module(module, rows, Schedule(300, 400, 0.05), torch.Generator().manual_seed(1))

    np.testing.assert_allclose(module.point.detach().numpy(), rows.mean(0).numpy(), atol=0.03)
    assert losses.shape == (300,)
    assert losses[-1] < 0.05 * losses[0]


def test_trimming_keeps_gross_rows_from_moving_the_answer() -> None:
    rows = torch.cat([some_rows(380), torch.full((20, 2), 50.0)])
    trimmed, plain = Centre(), Centre()

    fit_module(trimmed, rows, Schedule(300, 400, 0.05, trim=0.05), torch.Generator().manual_seed(1))
    fit_module(plain, rows, Schedule(300, 400, 0.05), torch.Generator().manual_seed(1))

    np.testing.assert_allclose(trimmed.point.detach().numpy(), [1.0, -2.0], atol=0.05)
    assert abs(plain.point[0].item() - 1.0) > 1.0


def test_every_row_is_seen_once_before_any_is_seen_again() -> None:
    seen: list[float] = []

    class Recorder(Centre):
        def loss(self, batch: Tensor, generator: torch.Generator) -> SquaredDistance:
            seen.extend(batch[:, 0].tolist())
            return super().loss(batch, generator)

    rows = torch.arange(12.0).repeat(2, 1).T

    fit_module(Recorder(), rows, Schedule(6, 4), torch.Generator().manual_seed(1))

    assert sorted(seen[:12]) == list(range(12))
    assert sorted(seen[12:]) == list(range(12))


def test_a_loss_that_diverges_is_an_error_that_names_the_rate() -> None:
    rows = torch.full((10, 2), 1e30)

    with pytest.raises(FloatingPointError, match=r"loss of inf after 3 steps.*below 0\.003"):
        fit_module(Centre(), rows, Schedule(3, 10), torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps"),
    [(500_000, 512, 1500), (1000, 512, 1500), (900, 512, 250), (900, 30, 750), (40, 512, 250)],
)
def test_steps_do_not_grow_with_the_table(rows: int, batch_size: int, steps: int) -> None:
    assert default_steps(rows, batch_size) == steps


def test_the_number_of_threads_is_restored_even_after_an_error() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError), one_thread():
            assert torch.get_num_threads() == 1
            raise RuntimeError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
