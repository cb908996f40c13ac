"""What is in a library, and what is not."""

from __future__ import annotations

import io
from typing import Any

from elftools.elf.elffile import ELFFile

from recipes.compilers.tvm.legal import STATIC_8
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
