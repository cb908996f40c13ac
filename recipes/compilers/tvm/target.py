"""What TVM must know of the machine that will run an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recipes.target import Target

FLAGS: Mapping[str, Mapping[str, str]] = {
    "x86_64": {"sse4_1": "sse4.1", **{name: name for name in (
        "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")},
        "avx512_vnni": "avx512vnni", "avx512_vpopcntdq": "avx512vpopcntdq", "avx512_fp16": "avx512fp16"},
    "aarch64": {"asimddp": "dotprod", "asimdhp": "fullfp16", "i8mm": "i8mm"}}
"""Machine -> flag of /proc/cpuinfo that code is made for, where the board has it -> LLVM's name."""


def llvm_target(target: Target) -> Any:
    """Return TVM's target. Raises ValueError for a machine that has none."""
    import tvm

    return tvm.target.Target(target_options(target))


def kernel_options(target: Target) -> dict[str, object]:
    """Return the target of kernels of our own: what is worth unrolling is unrolled; so as fast at half the size.

    Raises ValueError for a machine that has none.
    """
    return {**target_options(target), "opt-level": 1}


def target_options(target: Target) -> dict[str, object]:
    """Return TVM's target as it is written: only what the board's processor says that it has is used.

    Raises ValueError for a machine that has none.
    """
    names = [FLAGS[target.machine][flag] for flag in features(target)]
    if target.machine == "x86_64":
        return {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64",
                "mattr": [f"+{name}" for name in names]}
    return {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+neon", *(f"+{name}" for name in names)]}


def features(target: Target) -> tuple[str, ...]:
    """Return what code for a machine uses of its processor: flags of /proc/cpuinfo.

    Raises ValueError for a machine that no code is made for.
    """
    if target.machine not in FLAGS:
        raise ValueError(f"the compiler tvm makes code for x86_64 and aarch64, not for {target.machine}")
    return tuple(flag for flag in FLAGS[target.machine] if flag in target.cpu_features)
