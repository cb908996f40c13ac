"""Run a shared library in this process."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recipes.ports import Array, Ports


class Runner:
    """A library that was compiled for this machine."""

    def __init__(self, artifact: bytes, ports: Ports) -> None:
        import tvm
        from tvm.runtime.vm import VirtualMachine

        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "model.so"
            place.write_bytes(artifact)
            self._machine: Any = VirtualMachine(tvm.runtime.load_module(str(place)), tvm.cpu())
        self._ports = ports

    def run(self, inputs: Mapping[str, Array], example: int) -> list[Array]:
        """Return every output for one example; see `Ports.encode` for the inputs."""
        import tvm

        encoded = [port.encode(inputs[port.source][example:example + 1]) for port in self._ports.inputs]
        return [np.asarray(found.numpy()) for found in self._machine["main"](*map(tvm.runtime.tensor, encoded))]
