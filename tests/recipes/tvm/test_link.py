"""What is in a library, and what is not."""

from __future__ import annotations

import io
from typing import Any

from elftools.elf.elffile import ELFFile

from recipes.compilers.tvm.legal import STATIC_4, STATIC_8
from recipes.compilers.tvm.readback import calls
from tests.recipes.tvm.test_compiler import converted


def test_a_library_exports_its_functions_and_has_no_tables_for_exceptions() -> None:
    made = converted("separable")
    elf = ELFFile(io.BytesIO(made.artifact(made.candidate(STATIC_8))))
    assert {".text", ".dynsym"} <= {section.name for section in elf.iter_sections()}
    assert not [section.name for section in elf.iter_sections() if "eh_frame" in section.name]
    symbols: Any = elf.get_section_by_name(".dynsym")
    exported = {symbol.name for symbol in symbols.iter_symbols()
                if symbol.entry.st_shndx != "SHN_UNDEF"}
    assert all(name.startswith(("__tvm_ffi", "__TVM")) for name in exported), "no conversions of float16"
    assert "__tvm_ffi__library_bin" in exported


def test_what_is_not_weights_or_code_is_little() -> None:
    made = converted("residual")
    artifact = made.artifact(made.candidate(STATIC_4))
    elf = ELFFile(io.BytesIO(artifact))
    code = next(section.data_size for section in elf.iter_sections() if section.name == ".text")
    weights = sum(piece.weighted.weight.size for piece in made.found.pieces if piece.weighted is not None) // 2
    kernels = [name for name in calls(artifact) if name != "vm"]
    assert len(artifact) - code - weights < 1_100 * len(kernels), "1,340 when every constant was one of its own"
