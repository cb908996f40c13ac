"""The demo package: its splits, its trained networks and the training that made both."""

import dataclasses
import gzip
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import recipes.demo
from recipes.demo import networks, train
from recipes.demo.data import ARCHIVE, Labelled, Splits, fashion_mnist

TRAINED = (networks.residual, networks.separable, networks.transformer)
MAX_PACKAGE_BYTES = 12_000_000


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return fashion_mnist()


@pytest.fixture(scope="module")
def training() -> Labelled:
    return train.training_split(train.SOURCE)


def schedule(epochs: int, seed: int = 0) -> train.Schedule:
    return train.Schedule(
        epochs=epochs, peak_rate=0.01, weight_decay=0.05, batch=64, shift_pixels=1, seed=seed
    )


def first(count: int, split: Labelled) -> Labelled:
    return Labelled(split.inputs[:count], split.targets[:count])


def digests(images: NDArray[np.float32]) -> set[bytes]:
    return {hashlib.sha256(image.tobytes()).digest() for image in images}


def weights_after(name: str, seed: int, images: Labelled) -> bytes:
    """Train `name` for four steps and return its parameters and buffers."""
    network = train.initial(name, seed)
    few = first(128, images)
    assert len(list(train.fit(network, few, few, schedule(2, seed), lambda: 0.0))) == 2
    return b"".join(value.numpy().tobytes() for value in network.state_dict().values())


class TestSplits:
    def test_shapes_and_types(self, splits: Splits) -> None:
        assert splits["calibration"].shape == (256, 1, 28, 28)
        assert splits["calibration"].dtype == np.float32
        for split, count in ((splits["validation"], 2000), (splits["test"], 4000)):
            assert split.inputs.shape == (count, 1, 28, 28)
            assert split.inputs.dtype == np.float32
            assert split.targets.shape == (count,)
            assert split.targets.dtype == np.int64

    def test_inputs_span_zero_to_one(self, splits: Splits) -> None:
        for images in (splits["calibration"], splits["validation"].inputs, splits["test"].inputs):
            assert (images.min(), images.max()) == (0, 1)

    def test_every_class_is_about_as_frequent(self, splits: Splits) -> None:
        for split in (splits["validation"], splits["test"]):
            shares = np.bincount(split.targets, minlength=10) / len(split.targets)
            assert len(shares) == 10
            assert np.all(np.abs(shares - 0.1) < 0.02)

    def test_no_image_is_in_two_splits_or_was_trained_on(
        self, splits: Splits, training: Labelled
    ) -> None:
        parts = [
            training.inputs,
            splits["calibration"],
            splits["validation"].inputs,
            splits["test"].inputs,
        ]
        assert len(training.inputs) == 54_000
        assert len(set[bytes]().union(*map(digests, parts))) == sum(map(len, parts))

    def test_data_file_is_cut_from_the_original(self, splits: Splits) -> None:
        original = train.package_arrays(train.SOURCE)
        stored = {
            "calibration_images": splits["calibration"],
            "validation_images": splits["validation"].inputs,
            "test_images": splits["test"].inputs,
        }
        for name, images in stored.items():
            assert np.array_equal(np.rint(images[:, 0] * 255), original[name])
        assert np.array_equal(splits["validation"].targets, original["validation_labels"])
        assert np.array_equal(splits["test"].targets, original["test_labels"])


class TestNetworks:
    @pytest.mark.parametrize("factory", TRAINED)
    def test_is_ready_to_use(self, factory: Callable[[], nn.Module]) -> None:
        network = factory()
        assert not network.training
        for parameter in network.parameters():
            assert parameter.dtype == torch.float32
            assert parameter.is_contiguous()
        for count in (1, 3):
            logits = network(torch.zeros(count, 1, 28, 28))
            assert logits.shape == (count, 10)
            assert logits.dtype == torch.float32

    @pytest.mark.parametrize(
        ("factory", "parameters"),
        [
            (networks.residual, 77_754),
            (networks.separable, 21_066),
            (networks.transformer, 138_890),
        ],
    )
    def test_parameter_count(self, factory: Callable[[], nn.Module], parameters: int) -> None:
        assert sum(parameter.numel() for parameter in factory().parameters()) == parameters

    @pytest.mark.parametrize(
        ("factory", "floor"),
        [
            (networks.residual, 0.90),
            (networks.separable, 0.89),
            (networks.transformer, 0.85),
        ],
    )
    def test_accuracy_is_the_recorded_one(
        self, factory: Callable[[], nn.Module], floor: float, splits: Splits
    ) -> None:
        recorded = networks.VALIDATION_ACCURACY[factory.__name__]
        measured = train.accuracy(factory(), splits["validation"])
        assert abs(measured - recorded) <= 0.005
        assert measured > floor


class TestTraining:
    @pytest.mark.parametrize("name", networks.ARCHITECTURES)
    def test_gives_the_same_bits_for_the_same_seed(self, name: str, splits: Splits) -> None:
        images = splits["validation"]
        once = weights_after(name, 0, images)
        torch.rand(1)  # The state of the global generator must not matter.
        assert weights_after(name, 0, images) == once
        assert weights_after(name, 1, images) != once

    def test_fits_what_it_sees(self, splits: Splits) -> None:
        few = first(256, splits["validation"])
        network = train.initial("residual", 0)
        epochs = list(train.fit(network, few, few, schedule(4), lambda: 0.0))
        assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
        assert epochs[-1].loss < 0.7 * epochs[0].loss
        assert all(parameter.is_contiguous() for parameter in network.parameters())

    @pytest.mark.training
    @pytest.mark.parametrize("factory", TRAINED)
    def test_repeated_whole_it_gives_the_packages_weights(
        self, factory: Callable[[], nn.Module], splits: Splits, tmp_path: Path
    ) -> None:
        """On the processor that trained them bit for bit; on others the rounding differs, not the accuracy."""
        name = factory.__name__
        command = [sys.executable, "-m", "recipes.demo.train", "--network", name, "--output", str(tmp_path)]
        subprocess.run(command, check=True)
        assert sorted(file.name for file in tmp_path.iterdir()) == sorted([ARCHIVE, f"{name}.pt"])
        weights = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        network, packaged = factory(), factory().state_dict()
        assert {key: value.shape for key, value in weights.items()} == {k: v.shape for k, v in packaged.items()}
        print("the same bits:", all(torch.equal(weights[key], packaged[key]) for key in packaged))
        network.load_state_dict(weights)
        recorded = networks.VALIDATION_ACCURACY[name]
        assert abs(train.accuracy(network, splits["validation"]) - recorded) <= 0.01

    def test_augmentation_flips_and_shifts_without_changing_pixels(self) -> None:
        images = torch.zeros(200, 1, 28, 28)
        images[:, :, 10:12, 8] = torch.tensor([0.25, 0.75])
        moved = train.augmented(images, 2, torch.Generator().manual_seed(0))
        assert moved.shape == images.shape
        assert torch.equal(moved.sum((1, 2, 3)), torch.ones(200))
        rows = {int(row) for row in (moved == 0.25).nonzero()[:, 2]}
        columns = {int(column) for column in (moved == 0.25).nonzero()[:, 3]}
        assert rows == {8, 9, 10, 11, 12}
        assert columns == {6, 7, 8, 9, 10} | {17, 18, 19, 20, 21}

    @pytest.mark.parametrize(
        "field", ["epochs", "batch", "peak_rate", "weight_decay", "shift_pixels"]
    )
    def test_schedule_rejects_a_negative(self, field: str) -> None:
        with pytest.raises(ValueError, match=f"got .*{field}=-1"):
            dataclasses.replace(schedule(1), **{field: -1})

    def test_missing_source_names_the_package_to_install(self, tmp_path: Path) -> None:
        with pytest.raises(train.SourceMissing, match="apt-get install dataset-fashion-mnist"):
            train.package_arrays(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\0\0\x08\x01\0\0\0\x03\1\2",
            b"\0\0\x0d\x01\0\0\0\x03\1\2\3",
            b"\0\0\x08\x09\0\0\0\x03",
        ],
        ids=["empty", "short", "float", "cut header"],
    )
    def test_malformed_source_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "labels.gz"
        path.write_bytes(gzip.compress(content))
        with pytest.raises(train.SourceMalformed, match=r"labels\.gz is no IDX file"):
            train.read_idx(path)

    def test_source_that_is_no_gzip_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "labels.gz"
        path.write_bytes(b"<html>not found</html>")
        with pytest.raises(train.SourceMalformed, match=r"labels\.gz is no IDX file"):
            train.read_idx(path)


def test_package_is_small() -> None:
    folder = Path(recipes.demo.__file__).parent
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.name for path in files} >= {"fashion_mnist.npz", "residual.pt", "NOTICE.md"}
    assert sum(path.stat().st_size for path in files) <= MAX_PACKAGE_BYTES
