"""The demo's images: Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747), cut into three splits."""

from importlib import resources
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

ARCHIVE = "fashion_mnist.npz"


class Labelled(NamedTuple):
    """Images with their classes."""

    inputs: NDArray[np.float32]
    """(N, 1, 28, 28), in [0, 1]."""
    targets: NDArray[np.int64]
    """(N,), in 0..9."""


class Splits(TypedDict):
    """Splits that share no image with each other, nor with the training images."""

    calibration: NDArray[np.float32]
    """(256, 1, 28, 28), in [0, 1]; without targets."""
    validation: Labelled
    """2,000 images."""
    test: Labelled
    """4,000 images."""


def fashion_mnist() -> Splits:
    """Read the calibration, validation and test splits from the package."""
    with (
        resources.files("recipes.demo").joinpath(ARCHIVE).open("rb") as file,
        np.load(file) as stored,
    ):
        return Splits(
            calibration=scaled(stored["calibration_images"]),
            validation=_labelled(stored["validation_images"], stored["validation_labels"]),
            test=_labelled(stored["test_images"], stored["test_labels"]),
        )


def scaled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Map (N, 28, 28) bytes to (N, 1, 28, 28) float32 in [0, 1]."""
    return images[:, np.newaxis].astype(np.float32) / np.float32(255)


def _labelled(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Labelled:
    return Labelled(scaled(images), labels.astype(np.int64))
