"""Rebuild the package's data file and train its networks: `python -m recipes.demo.train`.

The source is the Debian package dataset-fashion-mnist. With one thread, a rerun on the same
machine gives the same bits; another processor or thread count may round differently.
"""

import argparse
import gzip
import math
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from recipes.demo.data import ARCHIVE, Labelled, fashion_mnist, scaled
from recipes.demo.networks import ARCHITECTURES

SOURCE = Path("/usr/share/datasets/fashion-mnist")
PACKAGE = Path(__file__).parent
TRAINING = slice(0, 54_000)
CALIBRATION = slice(54_000, 54_256)
VALIDATION = slice(54_256, 56_256)
TEST = slice(0, 4_000)


class TrainingError(Exception):
    """The training cannot start."""


class SourceMissing(TrainingError):
    """A file of the original data set is not there."""


class SourceMalformed(TrainingError):
    """A file of the original data set does not hold what its header promises."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How to train one network: AdamW under a one-cycle learning rate."""

    epochs: int
    peak_rate: float
    weight_decay: float
    batch: int
    shift_pixels: int
    """The augmentation moves an image by up to so much in each direction."""
    seed: int

    def __post_init__(self) -> None:
        """Reject what cannot train."""
        if self.epochs < 1 or self.batch < 2 or self.peak_rate <= 0:
            raise ValueError(
                f"a schedule needs epochs >= 1, batch >= 2 and peak_rate > 0; got {self}"
            )
        if self.weight_decay < 0 or self.shift_pixels < 0:
            raise ValueError(
                f"a schedule needs weight_decay >= 0 and shift_pixels >= 0; got {self}"
            )


SCHEDULES: MappingProxyType[str, Schedule] = MappingProxyType(
    {
        "residual": Schedule(
            epochs=3, peak_rate=0.01, weight_decay=0.05, batch=64, shift_pixels=1, seed=0
        ),
        "separable": Schedule(
            epochs=3, peak_rate=0.01, weight_decay=0.05, batch=64, shift_pixels=1, seed=0
        ),
        "transformer": Schedule(
            epochs=10, peak_rate=0.002, weight_decay=0.05, batch=128, shift_pixels=2, seed=0
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the training images gave."""

    number: int
    loss: float
    """Mean over the pass, while the weights moved."""
    accuracy: float
    """On the validation split, 0 to 1."""
    seconds: float


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes: (N, 28, 28) images or (N,) labels.

    Raises SourceMissing or SourceMalformed. The format is on http://yann.lecun.com/exdb/mnist/.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise SourceMissing(
            f"{path} is missing: run 'apt-get install dataset-fashion-mnist', "
            "or name the folder that holds the four .gz files with --source"
        ) from error
    except (EOFError, OSError, zlib.error) as error:
        raise SourceMalformed(f"{path} is no IDX file: it does not unpack ({error})") from error
    dimensions = content[3] if len(content) > 3 else 0
    header = 4 + 4 * dimensions
    if content[:3] != b"\0\0\x08" or len(content) < header:
        raise SourceMalformed(
            f"{path} is no IDX file of bytes: expected it to start with 00 00 08 and a header, "
            f"got {content[:4].hex(' ') or 'nothing'} and {len(content)} bytes in all"
        )
    shape = tuple(np.frombuffer(content, ">u4", dimensions, offset=4).tolist())
    if len(content) - header != math.prod(shape):
        raise SourceMalformed(
            f"{path} is no IDX file of its own size: the header promises {shape}, "
            f"got {len(content) - header} bytes"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def package_arrays(source: Path) -> dict[str, NDArray[np.uint8]]:
    """Cut the arrays of the package's data file out of the original files in `source`."""
    images = read_idx(source / "train-images-idx3-ubyte.gz")
    labels = read_idx(source / "train-labels-idx1-ubyte.gz")
    return {
        "calibration_images": images[CALIBRATION],
        "validation_images": images[VALIDATION],
        "validation_labels": labels[VALIDATION],
        "test_images": read_idx(source / "t10k-images-idx3-ubyte.gz")[TEST],
        "test_labels": read_idx(source / "t10k-labels-idx1-ubyte.gz")[TEST],
    }


def training_split(source: Path) -> Labelled:
    """Read the training images, which the package does not hold, from `source`."""
    return Labelled(
        scaled(read_idx(source / "train-images-idx3-ubyte.gz")[TRAINING]),
        read_idx(source / "train-labels-idx1-ubyte.gz")[TRAINING].astype(np.int64),
    )


def augmented(images: Tensor, shift_pixels: int, generator: torch.Generator) -> Tensor:
    """Flip each image of (N, 1, H, W) with probability 1/2 and shift it, filling with zeros."""
    count, _, height, width = images.shape
    flip = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    top, left = torch.randint(0, 2 * shift_pixels + 1, (2, count), generator=generator)
    padded = functional.pad(torch.where(flip, images.flip(3), images), (shift_pixels,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count), :, top, left]


def fit(
    network: nn.Module,
    training: Labelled,
    validation: Labelled,
    schedule: Schedule,
    clock: Callable[[], float],
) -> Iterator[Epoch]:
    """Train `network` in place and yield after every epoch.

    Between epochs the convolution weights are in channels_last order, which trains faster; at the
    end they are contiguous again.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(schedule.seed)
    images, labels = torch.from_numpy(training.inputs), torch.from_numpy(training.targets)
    steps = len(images) // schedule.batch
    optimizer = torch.optim.AdamW(
        network.parameters(), schedule.peak_rate, weight_decay=schedule.weight_decay
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.peak_rate, total_steps=steps * schedule.epochs
    )
    for number in range(1, schedule.epochs + 1):
        start = clock()
        network.train()
        losses = []
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: steps * schedule.batch].view(steps, -1):
            batch = augmented(images[chosen], schedule.shift_pixels, generator)
            logits = network(batch.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
            losses.append(loss.item())
        yield Epoch(number, float(np.mean(losses)), accuracy(network, validation), clock() - start)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def accuracy(network: nn.Module, split: Labelled) -> float:
    """Return the share of `split` that `network`, put in eval mode, classifies correctly."""
    network.eval()
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(split.inputs), 500)
        logits = torch.cat([network(part) for part in parts])
    return float((logits.argmax(1) == torch.from_numpy(split.targets)).double().mean())


def initial(name: str, seed: int) -> nn.Module:
    """Build the untrained network `name`, the same for the same `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ARCHITECTURES[name]()


def main() -> None:
    """Write the data file and the weights, into the package unless told otherwise."""
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.train", description=__doc__)
    parser.add_argument("--network", choices=tuple(ARCHITECTURES), help="only this one")
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the four .gz files")
    parser.add_argument("--output", type=Path, default=PACKAGE, help="folder to write to (default: the package)")
    parser.add_argument("--threads", type=int, default=1, help="1 (the default) is reproducible")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        arrays = package_arrays(options.source)
        training = training_split(options.source)
    except TrainingError as error:
        sys.exit(str(error))
    options.output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.output / ARCHIVE, allow_pickle=False, **arrays)
    splits = fashion_mnist()
    for name in [options.network] if options.network else ARCHITECTURES:
        schedule = SCHEDULES[name]
        network = initial(name, schedule.seed)
        for epoch in fit(network, training, splits["validation"], schedule, time.monotonic):
            print(
                f"{name} epoch {epoch.number}/{schedule.epochs}: loss {epoch.loss:.3f}, "
                f"validation {epoch.accuracy:.2%}, {epoch.seconds:.0f} s",
                flush=True,
            )
        torch.save(network.state_dict(), options.output / f"{name}.pt")
        print(f"{name}: test {accuracy(network, splits['test']):.2%}", flush=True)


if __name__ == "__main__":
    main()
