"""Structured Optimal Brain Surgeon: drop the channel that its readers miss least, correct them, repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROUNDS = 64
"""Of more channels than these, several go at once."""
DAMPING = 0.01
"""Ridge, as a share of the mean variance of what a reader reads."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A layer that reads the channels."""

    weight: torch.Tensor
    """(o, k)."""
    moment: torch.Tensor
    """(k, k): centred second moments of what it reads."""
    columns: Sequence[Sequence[int]]
    """For every channel, the columns of `weight` that are its own; equally many for each."""


def removal_order(consumers: Sequence[Consumer], channels: int) -> list[int]:
    """Return all channels in the order in which they go, the least missed first.

    The cost of a channel i is the squared error that remains at best in its readers' outputs, each as a share
    of that output's variance: sum of tr(W_i inv(Hinv_ii) W_i') / tr(W H W'). After each removal W and Hinv are
    those of the readers without it (Hassibi and Stork 1993, eq. 5; ZipLM, Kurtic et al. 2023, eq. 4 and 5).
    Of many channels the cheapest few go at once, which is less exact and as many times faster.
    """
    import torch

    readers = [_Reader(consumer) for consumer in consumers]
    left = torch.ones(channels, dtype=torch.bool)
    order: list[int] = []
    at_once = -(-channels // ROUNDS)
    while len(order) < channels:
        cost = torch.zeros(channels, dtype=torch.float64)
        for reader in readers:
            cost += reader.costs()
        cost[~left] = torch.inf
        gone = cost.argsort(stable=True)[:min(at_once, channels - len(order))]
        left[gone] = False
        order += gone.tolist()
        for reader in readers:
            reader.drop(gone)
    return order


class _Reader:
    """A consumer's weights and inverse moments, of what is left of it."""

    def __init__(self, consumer: Consumer) -> None:
        import torch

        self._columns = torch.tensor(consumer.columns)
        self._weight = consumer.weight.double().clone()
        moment = consumer.moment.double()
        damping = DAMPING * float(moment.diagonal().mean().clamp(min=1e-12))
        moment = moment + damping * torch.eye(len(moment), dtype=torch.float64)
        self._variance = max(float((self._weight * (self._weight @ moment)).sum()), 1e-12)
        self._inverse = torch.linalg.inv(moment)

    def costs(self) -> torch.Tensor:
        """Return the cost of dropping each channel; of one that is gone, anything."""
        import torch

        blocks = self._inverse[self._columns.unsqueeze(2), self._columns.unsqueeze(1)]
        weights = self._weight[:, self._columns].permute(1, 2, 0)
        cost: torch.Tensor = (weights * torch.linalg.solve(blocks, weights)).sum((1, 2)) / self._variance
        return cost

    def drop(self, channels: torch.Tensor) -> None:
        """Drop channels and let the others make up for them."""
        import torch

        own = self._columns[channels].flatten()
        across = torch.linalg.solve(self._inverse[own][:, own], self._inverse[own])
        self._weight -= self._weight[:, own] @ across
        self._inverse -= self._inverse[:, own] @ across
        self._weight[:, own] = 0
        self._inverse[own] = 0
        self._inverse[:, own] = 0
        self._inverse[own, own] = 1
