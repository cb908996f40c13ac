"""What a processor multiplies with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

VNNI = "avx512_vnni"
DOTPROD, NEON = "asimddp", "neon"
HALVES = {"x86_64": "avx512_fp16", "aarch64": "asimdhp"}
"""Machine -> flag of /proc/cpuinfo that says that vectors of float16 are multiplied."""
AS_FLOAT32 = "float16_as_float32"
"""A feature of this machine where it stands for a board that has float16: it computes them in float32."""
LANE_BITS = {"int32": 32, "float32": 32, "float16": 16}
SIGNS = "uint32"
"""A word of 32 signs: a set bit stands for +1, others for -1."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """One way of computing sums of products."""

    name: str
    lanes: int
    """Sums in a vector."""
    group: int
    """Products that one lane adds up at a time: neighbouring channels."""
    activation: str
    """Type of activations: uint8 where the instruction wants one factor without a sign."""
    weight: str
    total: str
    as_float32: bool = False
    """Float16 is computed in float32 where the processor cannot: to the same bit, several times slower."""

    @property
    def is_float(self) -> bool:
        """Tell float arithmetic: all factors and sums are of one type."""
        return self.total.startswith("float")

    @property
    def is_signs(self) -> bool:
        """Tell arithmetic with one bit: both factors are signs, 32 of them in a word."""
        return self.weight == SIGNS

    @property
    def registers(self) -> int:
        """Sums that a kernel may hold; with more some would be spilled, which can take twice as long."""
        if self.as_float32:
            return 4
        return 10 if self.name.startswith("avx2") or self.name == NEON else 16

    @property
    def width(self) -> int:
        """Weights of a vector, of the type `weight`."""
        return self.lanes if self.is_signs else self.lanes * self.group

    @property
    def factors(self) -> int:
        """Factors of one load: on aarch64 each is a lane that the next multiplication takes by itself."""
        return 1 if self.is_signs or not self.name.startswith((DOTPROD, NEON)) else 128 // LANE_BITS[self.total]

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
            return self.fused(total, tir.broadcast(activations, self.lanes), weights)
        if self.is_signs:
            apart = tir.broadcast(activations, self.lanes) ^ weights
            return total + tir.cast(tir.call_llvm_pure_intrin(
                f"uint32x{self.lanes}", f"llvm.ctpop.v{self.lanes}i32", apart), wide)
        if self.group == 1:
            return total + tir.broadcast(tir.cast(activations, "int32"), self.lanes) * tir.cast(weights, wide)
        spread = tir.reinterpret(f"int8x{4 * self.lanes}", tir.broadcast(activations, self.lanes))
        if self.name == NEON:
            return total + _pairs(weights, spread)
        arguments = (weights, spread) if self.name == DOTPROD else (spread, weights)
        return tir.call_llvm_pure_intrin(wide, _INTRINSICS[self.name], total, *arguments)


    def fused(self, total: Any, one: Any, two: Any) -> Any:
        """Return total + one * two of floats, (lanes,) each, rounded once."""
        from tvm.tirx.script import builder as tir

        kind = f"{self.total}x{self.lanes}"
        if self.as_float32:
            return tir.cast(self._odd(*(tir.cast(each, f"float32x{self.lanes}") for each in (one, two, total))), kind)
        return tir.call_llvm_pure_intrin(kind, f"llvm.fma.v{self.lanes}f{self.total[5:]}", one, two, total)

    def _odd(self, one: Any, two: Any, three: Any) -> Any:
        """Return one * two + three as float32, rounded to odd: rounded to float16 it is as if it were rounded once.

        Boldo and Melquiond 2008, Emulation of a FMA and correctly rounded sums, doi:10.1109/TC.2007.70819. The product
        of two float16 is exact; what the sum loses is found as Knuth does, TAOCP 4.2.2.
        """
        from tvm.tirx.script import builder as tir

        def wide(value: int) -> Any:
            return tir.broadcast(tir.int32(value), self.lanes)

        def add(first: Any, second: Any, sign: int = 1) -> Any:
            """Add, or subtract; as a call, since TVM would find that nothing is lost."""
            return tir.call_llvm_pure_intrin(f"float32x{self.lanes}", f"llvm.fma.v{self.lanes}f32", second,
                                           tir.broadcast(tir.float32(sign), self.lanes), first)

        product = one * two
        total = add(product, three)
        back = add(total, product, -1)
        lost = add(add(product, add(total, back, -1), -1), add(three, back, -1))
        none = tir.broadcast(tir.float32(0), self.lanes)
        bits = tir.reinterpret(f"int32x{self.lanes}", total)
        up = (bits >> wide(31)) | wide(1)
        step = tir.Select(lost > none, up, tir.Select(lost < none, wide(0) - up, wide(0)))
        odd = tir.Select((bits & wide(1)) == wide(0), step, wide(0))
        return tir.reinterpret(f"float32x{self.lanes}", bits + odd)


def _pairs(weights: Any, activations: Any) -> Any:
    """Return sums of four products of int8 (16,), as int32 (4,): products and sums of two of them fit 16 bits."""
    from tvm.tirx.script import builder as tir

    halves = (tir.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.smull.v8i16", part("int8x8", weights),
                                        part("int8x8", activations)) for part in (tir.vectorlow, tir.vectorhigh))
    twos = tir.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.addp.v8i16", *halves)
    return tir.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", twos)


_INTRINSICS = {VNNI: "llvm.x86.avx512.vpdpbusd.512", DOTPROD: "llvm.aarch64.neon.sdot.v4i32.v16i8"}


@dataclass(frozen=True, slots=True)
class Isa:
    """What a processor has."""

    name: str
    integer: Arithmetic
    floating: Arithmetic
    signs: Arithmetic
    """Reads and writes the integers' activations."""
    half: Arithmetic | None = None
    """Float16: factors, sums and results. None where the processor has none."""


def _isa(name: str, lanes: int, group: int, activation: str) -> Isa:
    return Isa(name, Arithmetic(name, lanes, group, activation, "int8", "int32"),
               Arithmetic(f"{name} float", lanes, 1, "float32", "float32", "float32"),
               Arithmetic(f"{name} signs", lanes, 32, activation, SIGNS, "int32"))


_VNNI, _AVX512, _AVX2 = _isa(VNNI, 16, 4, "uint8"), _isa("avx512", 16, 1, "int8"), _isa("avx2", 8, 1, "int8")
_DOTPROD, _NEON, PLAIN = (_isa(DOTPROD, 4, 4, "int8"), _isa(NEON, 4, 4, "int8"), _isa("plain", 4, 1, "int8"))


def isa_of(machine: str, features: tuple[str, ...]) -> Isa:
    """Return the best for a processor: `uname -m`, and the flags of /proc/cpuinfo."""
    if machine == "aarch64":
        found = _DOTPROD if DOTPROD in features else _NEON
    else:
        known = (VNNI, _VNNI), ("avx512bw", _AVX512), ("avx2", _AVX2)
        found = next((isa for flag, isa in known if flag in features and machine == "x86_64"), PLAIN)
    if HALVES.get(machine) in features:
        return replace(found, half=_half(found, 32 if machine == "x86_64" else 8, False))
    return replace(found, half=_half(found, found.floating.lanes, True)) if AS_FLOAT32 in features else found


def _half(isa: Isa, lanes: int, as_float32: bool) -> Arithmetic:
    return Arithmetic(f"{isa.name} half", lanes, 1, "float16", "float16", "float16", as_float32)
