"""One session of ONNX Runtime in a process of its own, timed as the agent times; `onnx_rows` starts it.

    .venv/bin/python -m benchmarks.onnx_session MODEL.onnx INPUTS.npy RESULT.npz WARMUP_S SAMPLING_S
"""

from __future__ import annotations

import sys
import time

import numpy as np
import onnxruntime


def main() -> None:
    """Write `outputs`, (examples, ...), and `wall_ns`."""
    model, inputs, result = sys.argv[1:4]
    warmup_s, sampling_s = map(float, sys.argv[4:])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    examples = [{"x": row[None]} for row in np.load(inputs)]
    outputs = np.concatenate([session.run(None, example)[0] for example in examples])
    wall_ns: list[int] = []
    warm, begun = False, time.perf_counter()
    while not warm or time.perf_counter() - begun < sampling_s:
        before = time.perf_counter_ns()
        session.run(None, examples[0])
        wall_ns.append(time.perf_counter_ns() - before)
        if not warm and time.perf_counter() - begun >= warmup_s:
            warm, wall_ns, begun = True, [], time.perf_counter()
    np.savez(result, outputs=outputs, wall_ns=wall_ns)


if __name__ == "__main__":
    main()
