"""What a processor multiplies with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VNNI = "avx512_vnni"
DOTPROD = "asimddp"
SIGNS = "uint32"
"""A word of 32 signs: a set bit stands for +1, others for -1."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """One way of computing sums of products."""

    name: str
    lanes: int
    """32-bit values in a vector."""
    group: int
    """Products that one lane adds up at a time: neighbouring channels."""
    activation: str
    """Type of activations: uint8 where the instruction wants one factor without a sign."""
    weight: str
    total: str

    @property
    def is_float(self) -> bool:
        """Tell float arithmetic."""
        return self.total == "float32"

    @property
    def is_signs(self) -> bool:
        """Tell arithmetic with one bit: both factors are signs, 32 of them in a word."""
        return self.weight == SIGNS

    @property
    def registers(self) -> int:
        """Sums that a kernel may hold; with more some would be spilled, which can take twice as long."""
        return 10 if self.name.startswith("avx2") else 16

    @property
    def width(self) -> int:
        """Weights of a vector, of the type `weight`."""
        return self.lanes if self.is_signs else self.lanes * self.group

    @property
    def bias(self) -> str:
        """Type of what is added to a sum: of signs when it is scaled, else before."""
        return "float32" if self.is_signs else self.total

    @property
    def low(self) -> int:
        """The least integer activation."""
        return 0 if self.activation == "uint8" else -128

    @property
    def high(self) -> int:
        """The greatest integer activation."""
        return self.low + 255

    def dot(self, total: Any, activations: Any, weights: Any) -> Any:
        """Add products to a vector of sums.

        Args:
            total: (lanes,); of signs how many products are negative.
            activations: `group` of them as one value: int32 where the group is 4, a word of signs, else the activation
                itself.
            weights: (width,), those of a lane side by side.
        """
        from tvm.tirx.script import builder as tir

        wide = f"{self.total}x{self.lanes}"
        if self.is_float:
            return tir.call_llvm_pure_intrin(wide, f"llvm.fma.v{self.lanes}f32", tir.broadcast(activations, self.lanes),
                                           weights, total)
        if self.is_signs:
            apart = tir.broadcast(activations, self.lanes) ^ weights
            return total + tir.cast(tir.call_llvm_pure_intrin(
                f"uint32x{self.lanes}", f"llvm.ctpop.v{self.lanes}i32", apart), wide)
        if self.group == 1:
            return total + tir.broadcast(tir.cast(activations, "int32"), self.lanes) * tir.cast(weights, wide)
        spread = tir.reinterpret(f"int8x{4 * self.lanes}", tir.broadcast(activations, self.lanes))
        arguments = (weights, spread) if self.name == DOTPROD else (spread, weights)
        return tir.call_llvm_pure_intrin(wide, _INTRINSICS[self.name], total, *arguments)


_INTRINSICS = {VNNI: "llvm.x86.avx512.vpdpbusd.512", DOTPROD: "llvm.aarch64.neon.sdot.v4i32.v16i8"}


@dataclass(frozen=True, slots=True)
class Isa:
    """What a processor has."""

    name: str
    integer: Arithmetic
    floating: Arithmetic
    signs: Arithmetic
    """Reads and writes the integers' activations."""


def _isa(name: str, lanes: int, group: int, activation: str) -> Isa:
    return Isa(name, Arithmetic(name, lanes, group, activation, "int8", "int32"),
               Arithmetic(f"{name} float", lanes, 1, "float32", "float32", "float32"),
               Arithmetic(f"{name} signs", lanes, 32, activation, SIGNS, "int32"))


_VNNI, _AVX512, _AVX2 = _isa(VNNI, 16, 4, "uint8"), _isa("avx512", 16, 1, "int8"), _isa("avx2", 8, 1, "int8")
_DOTPROD, PLAIN = _isa(DOTPROD, 4, 4, "int8"), _isa("plain", 4, 1, "int8")


def isa_of(machine: str, features: tuple[str, ...]) -> Isa:
    """Return the best for a processor: `uname -m`, and the flags of /proc/cpuinfo."""
    if machine == "x86_64":
        for flag, isa in ((VNNI, _VNNI), ("avx512bw", _AVX512), ("avx2", _AVX2)):
            if flag in features:
                return isa
    return _DOTPROD if machine == "aarch64" and DOTPROD in features else PLAIN
