"""Object files as they are linked."""

from __future__ import annotations

import io
import struct

_UNWINDING = ".eh_frame"
_EXCLUDED = 0x80000000
"""SHF_EXCLUDE: a linker leaves such a section out."""
_FLAGS = 8
"""Where `sh_flags` is in the header of a section, 64 bits."""


def without_unwinding(data: bytes) -> bytes:
    """Mark the tables of an object file, ELF of 64 bits, that only exceptions and debuggers read; kernels throw none.

    LLVM writes them for every function as soon as one of a module might throw.
    """
    from elftools.elf.elffile import ELFFile

    elf, found = ELFFile(io.BytesIO(data)), bytearray(data)
    for number, section in enumerate(elf.iter_sections()):
        if section.name == _UNWINDING:
            place = elf.header.e_shoff + number * elf.header.e_shentsize + _FLAGS
            struct.pack_into("<Q", found, place, section.header.sh_flags | _EXCLUDED)
    return bytes(found)
