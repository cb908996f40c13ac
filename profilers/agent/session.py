"""What a fresh child does with one artifact."""

from __future__ import annotations

import gc
import hashlib
import math
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from profilers.agent import cores, sensors, tensors
from profilers.agent.disturbance import Neighbours, Throttling
from profilers.agent.protocol import CORRUPT, REJECTED, STORAGE, Refusal

WINDOWS = 10
"""The warm-up's time is cut into so many windows; two in a row that agree end it."""
MIN_WINDOW_RUNS = 5
STABLE = 0.02
Z95 = 0.98
"""Half of 1.96: ranks of the median's 95 % interval are n / 2 -+ 0.98 sqrt(n)."""
MIN_SAMPLES = 6
"""Of fewer, even the whole range holds the median with less than 95 % probability: 1 - 2 ** (1 - n)."""
PROGRESS_S = 1.0
LOOK_NS = 20_000_000
"""Between the timed runs, so often, the child looks whether its clock was taken away."""
LONGEST = 3
"""Times `max_sampling_s`, when runs are thrown away."""


class Sampled(NamedTuple):
    """Timed runs."""

    wall_ns: list[int]
    cpu_ns: list[int]
    discarded_runs: int
    """Thrown away, because the clock was taken away meanwhile."""
    throttled: list[str]
    """By what."""
    still_throttled: bool
    """Too few were left: these are what was thrown away last."""


def perform(job: dict[str, Any], runtime: Any, emit: Callable[[dict[str, Any]], None]) -> None:
    """Do a `measure` or `run` job and emit its reply, a `result` or an `error`."""
    try:
        reply = measure(job, runtime) if job["type"] == "measure" else run(job, runtime, emit)
    except Refusal as refusal:
        reply = refusal.reply()
    except OSError as error:
        reply = Refusal(STORAGE, "{}: {}".format(error.filename or "outputs", error.strerror)).reply()
    reply["seq"] = job["seq"]
    emit(reply)


def measure(job: dict[str, Any], runtime: Any) -> dict[str, Any]:
    """Load, run the golden inputs, warm up, sample; then time kernels, where the runtime can."""
    settings = job["settings"]
    pinned = cores.pin(job["cores"], settings["threads"])
    started = time.perf_counter()
    interpreter = load(job["artifact"], job["sha256"], runtime, settings["threads"])
    loaded = time.perf_counter()
    batches = tensors.read(job["inputs"], interpreter)
    outputs = tensors.run(interpreter, batches, len(batches[0]), lambda: forward(interpreter))
    tensors.check_finite(outputs)
    before = sensors.read()
    throttling, neighbours = Throttling(pinned), Neighbours()
    gc.disable()
    warmup_runs = warm_up(interpreter, settings["max_warmup_s"])
    throttling.since()
    sampled = sample(interpreter, settings, started + settings["timeout_s"] / 2, throttling.since)
    gc.enable()
    beside = neighbours.so_far()
    after = sensors.read()
    profile = getattr(interpreter, "profile", None)
    kernels = profile(settings["max_profile_s"]) if profile is not None else []
    ended = time.perf_counter()
    return {
        "type": "result", "load_s": loaded - started, "session_s": ended - loaded, "warmup_runs": warmup_runs,
        "wall_ns": sampled.wall_ns, "cpu_ns": sampled.cpu_ns, "kernels": kernels, "before": before, "after": after,
        "conditions": {"cores": pinned, "cooled_s": job["cooled_s"], "discarded_runs": sampled.discarded_runs,
                       "throttled": sampled.throttled, "still_throttled": sampled.still_throttled, **beside},
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "outputs": tensors.inline_or_write(outputs, job["outputs"]),
    }


def run(job: dict[str, Any], runtime: Any, emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run every example of the inputs (or the first `limit`, in whole batches) and write the outputs."""
    interpreter = load(job["artifact"], job["sha256"], runtime, job["threads"])
    batches = tensors.read(job["inputs"], interpreter)
    total, batch = batches[0].shape[:2]
    if job["limit"] is not None:
        total = min(total, math.ceil(job["limit"] / batch))
    told = time.monotonic()

    def progress(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= PROGRESS_S:
            told = now
            emit({"type": "progress", "seq": job["seq"], "done": done, "total": total})

    outputs = tensors.run(interpreter, batches, total, lambda: forward(interpreter), progress)
    tensors.check_finite(outputs)
    tensors.write(outputs, job["outputs"])
    return {"type": "result", "runs": total}


def load(path: str, sha256: str, runtime: Any, threads: int) -> Any:
    """Read and check an artifact and prepare its interpreter. Raises Refusal: corrupt or rejected."""
    with open(path, "rb") as file:
        content = file.read()
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise Refusal(CORRUPT, f"{path}: expected SHA-256 {sha256}, got {got}")
    try:
        interpreter = runtime.Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, MemoryError) as error:
        raise Refusal(REJECTED, f"the runtime does not load the artifact: {str(error) or 'no memory'}") from error
    return interpreter


def forward(interpreter: Any) -> None:
    """Run once. Raises Refusal when the runtime gives up."""
    try:
        interpreter.invoke()
    except (ValueError, RuntimeError, MemoryError) as error:
        raise Refusal(REJECTED, f"the runtime does not run the artifact: {str(error) or 'no memory'}") from error


def warm_up(interpreter: Any, max_s: float) -> int:
    """Run until the medians of two windows in a row agree within 2 %, or the time is up; return the runs."""
    invoke, clock = interpreter.invoke, time.perf_counter
    deadline = clock() + max_s
    previous = math.inf
    runs = 0
    while True:
        window: list[float] = []
        window_end = min(clock() + max_s / WINDOWS, deadline)
        while True:
            start = clock()
            invoke()
            end = clock()
            window.append(end - start)
            if end >= deadline or (end >= window_end and len(window) >= MIN_WINDOW_RUNS):
                break
        runs += len(window)
        median = float(np.median(window))
        if end >= deadline or abs(median - previous) <= STABLE * median:
            return runs
        previous = median


def sample(interpreter: Any, settings: dict[str, Any], latest: float,
           throttled: Callable[[], list[str]] = list) -> Sampled:
    """Time runs until the median is known well enough.

    Ends between `min_runs` and `max_runs`: when the interval is narrow or `max_sampling_s` is over.
    A slow artifact ends at `latest` (of perf_counter) with fewer runs: slow is not hung.

    Args:
        interpreter: loaded and warm.
        settings: of the measurement.
        latest: of perf_counter.
        throttled: says what took the clock away since it was last asked; runs of that time are thrown away.
    """
    invoke, wall, cpu = interpreter.invoke, time.perf_counter_ns, time.process_time_ns
    wall_ns: list[int] = []
    cpu_ns: list[int] = []
    dropped: tuple[list[int], list[int]] = ([], [])
    discarded, reasons, good = 0, set(), 0
    max_runs, min_runs = settings["max_runs"], min(settings["min_runs"], settings["max_runs"])
    start = looked = time.perf_counter_ns()
    span, last = int(settings["max_sampling_s"] * 1e9), int(latest * 1e9)
    over, longest = start + span, min(last, start + LONGEST * span)
    check = min_runs
    while True:
        cpu_start = cpu()
        wall_start = wall()
        invoke()
        wall_end = wall()
        cpu_end = cpu()
        wall_ns.append(wall_end - wall_start)
        cpu_ns.append(cpu_end - cpu_start)
        done = len(wall_ns)
        enough = done >= max_runs
        if done >= check and not enough:
            enough = narrow(wall_ns, settings["target_ci"])
            check = done + max(10, done // 5)
        late = wall_end >= last or (done >= min_runs and wall_end >= over)
        if not (enough or late or wall_end - looked >= LOOK_NS):
            continue
        found = throttled()
        if found:
            reasons.update(found)
            discarded += done - good
            dropped = (wall_ns[good:], cpu_ns[good:])
            del wall_ns[good:], cpu_ns[good:]
            over += wall_end - looked
            enough = False
            late = wall_end >= longest
            check = max(check, good + 1)
        if enough or late:
            break
        good, looked = len(wall_ns), wall()
    still = discarded > 0 and len(wall_ns) < min(min_runs, MIN_SAMPLES)
    if still:
        wall_ns, cpu_ns = wall_ns + dropped[0], cpu_ns + dropped[1]
    return Sampled(wall_ns, cpu_ns, discarded, sorted(reasons), still)


def narrow(samples: list[int], target: float) -> bool:
    """Tell whether the median's 95 % interval lies within +- `target` of it.

    Order statistics, Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2: no
    distribution is assumed.
    """
    n = len(samples)
    low = math.ceil(n / 2 - Z95 * math.sqrt(n))
    high = math.ceil(n / 2 + Z95 * math.sqrt(n))
    if n < MIN_SAMPLES:
        return False
    ordered = sorted(samples)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return ordered[low - 1] >= median * (1 - target) and ordered[high - 1] <= median * (1 + target)
