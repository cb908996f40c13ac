"""All compilers on the same networks and machine, interleaved: latency, size, error, build time.

    .venv/bin/python -m benchmarks.compilers [--networks residual,wide] [--rounds 5] [--tuned]

Schemes are uniform: every layer takes the scheme, or the next wider one that it can take. Latencies are medians of the
rounds' medians, measured by the agent as in a search; ONNX Runtime, where it is installed, in processes of its own. Its
file and LiteRT's hold no instructions: `code` is what is not weights. The error is the largest difference from
PyTorch's float outputs as a share of their range. `known s` is how long a candidate takes to build when its kernels are
known. One bit is timed alone: without training its outputs are worth nothing. `--tuned` measures the tiles of every
kernel first, and adds rows with the fastest. Two more tables follow: the demo networks' instructions on emulated
aarch64 processors (`benchmarks.emulated`), and what a measurement costs beside TVM's RPC (`benchmarks.rpc_overhead`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import compiler_rows, emulated, onnx_rows, rpc_overhead, wide
from benchmarks.compiler_rows import Case, Machine, table
from benchmarks.networks import LinearStack, MobileNetV2
from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.compilers.tvm.compiler import TvmCompiler
from recipes.demo import networks
from recipes.demo.data import fashion_mnist
from recipes.ports import Array

EXAMPLES = 8
RPC_ROUNDS = 20


def _images() -> Array:
    return np.asarray(fashion_mnist()["calibration"][:EXAMPLES])


def _random(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=(EXAMPLES, *shape)).astype(np.float32)


def _seeded(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(0)
    return make()


CASES: Mapping[str, Case] = {
    "residual": Case(networks.residual, _images),
    "separable": Case(networks.separable, _images),
    "transformer": Case(networks.transformer, _images),
    "wide": Case(wide.network, _images),
    "mobilenetv2": Case(partial(_seeded, MobileNetV2), partial(_random, 3, 96, 96)),
    "linear": Case(partial(_seeded, LinearStack), partial(_random, 1024)),
}


def main() -> None:
    """Print one table per network, and those of other benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tuned", action="store_true")
    asked = parser.parse_args()
    without = onnx_rows.missing()
    if without:
        print(without, flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        machines = [Machine(TfliteCompiler(), folder), Machine(TvmCompiler(signs=True), folder)]
        for name in asked.networks.split(","):
            case = CASES[name]
            rows = [row for machine in machines
                    for row in compiler_rows.rows_of(name, case, machine, folder, asked.tuned)]
            rows += [] if without else onnx_rows.rows_of(name, case, folder)
            for _ in range(asked.rounds - 1):
                for row in rows:
                    row.again()
            print(table(rows), flush=True)
        for machine in machines:
            machine.runner.close()
        demos = [name for name in emulated.NETWORKS if name in asked.networks.split(",")]
        if demos:
            print(emulated.report(folder, demos), flush=True)
        print(rpc_overhead.report(folder, RPC_ROUNDS), flush=True)


if __name__ == "__main__":
    main()
