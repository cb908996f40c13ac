"""The demo's residual network four times as wide: 1.2 million weights, trained at first use and kept.

    .venv/bin/python -m benchmarks.wide

40 microseconds of the demo's own network are close to the noise of a timer. The training images come from the Debian
package dataset-fashion-mnist, as for the demo's networks (`recipes/demo/train.py`).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import nn

from recipes.demo.data import fashion_mnist
from recipes.demo.networks import Residual
from recipes.demo.train import SOURCE, Schedule, TrainingError, accuracy, fit, training_split

TIMES = 4
SCHEDULE = Schedule(epochs=2, peak_rate=0.005, weight_decay=0.05, batch=128, shift_pixels=1, seed=0)


def kept() -> Path:
    """Return the file of the trained weights, there or not."""
    return platformdirs.user_cache_path("hil-orchestrator", appauthor=False) / f"residual-{TIMES}x.pt"


def network() -> nn.Module:
    """Return the trained network, in eval mode: a factory for `--model benchmarks/wide.py:network`."""
    found = Residual(TIMES)
    found.load_state_dict(torch.load(kept(), weights_only=True))
    return found.eval()


def data() -> Any:
    """Return the demo's data: a factory for `--data benchmarks/wide.py:data`."""
    return fashion_mnist()


def train(source: Path = SOURCE) -> None:
    """Train the network and keep its weights, unless they are there. Raises TrainingError."""
    if kept().exists():
        return
    torch.set_num_threads(os.cpu_count() or 1)
    splits, training = fashion_mnist(), training_split(source)
    with torch.random.fork_rng():
        torch.manual_seed(SCHEDULE.seed)
        made = Residual(TIMES)
    for epoch in fit(made, training, splits["validation"], SCHEDULE, time.monotonic):
        print(f"residual-{TIMES}x epoch {epoch.number}/{SCHEDULE.epochs}: loss {epoch.loss:.3f}, "
              f"validation {epoch.accuracy:.2%}, {epoch.seconds:.0f} s", flush=True)
    kept().parent.mkdir(parents=True, exist_ok=True)
    unfinished = kept().with_suffix(f".{os.getpid()}")
    torch.save(made.state_dict(), unfinished)
    os.replace(unfinished, kept())
    print(f"residual-{TIMES}x: test {accuracy(made, splits['test']):.2%}; {kept()}", flush=True)


if __name__ == "__main__":
    try:
        train()
    except TrainingError as error:
        sys.exit(str(error))
