"""What TVM must know of the machine that will run an artifact."""

from __future__ import annotations

from typing import Any

from recipes.target import Target

X86_FLAGS = ("sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
             "avx512_vnni")
"""Flags of /proc/cpuinfo that code is made for, where the board has them."""
ARM_FLAGS = {"asimddp": "dotprod", "asimdhp": "fullfp16", "i8mm": "i8mm"}
"""Flag of /proc/cpuinfo -> LLVM's name."""


def llvm_target(target: Target) -> Any:
    """Return TVM's target. Raises ValueError for a machine that has none."""
    import tvm

    return tvm.target.Target(target_options(target))


def target_options(target: Target) -> dict[str, object]:
    """Return TVM's target as it is written: only what the board's processor says that it has is used.

    Raises ValueError for a machine that has none.
    """
    has = set(target.cpu_features)
    if target.machine == "x86_64":
        names = [flag.replace("sse4_1", "sse4.1").replace("avx512_vnni", "avx512vnni") for flag in X86_FLAGS
                 if flag in has]
        return {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64",
                "mattr": [f"+{name}" for name in names]}
    if target.machine == "aarch64":
        names = [name for flag, name in ARM_FLAGS.items() if flag in has]
        return {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+neon", *(f"+{name}" for name in names)]}
    raise ValueError(f"the compiler tvm makes code for x86_64 and aarch64, not for {target.machine}")
