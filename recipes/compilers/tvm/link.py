"""Kernel calls -> the bytes of a shared library, always the same for the same candidate.

A kernel is compiled once for a kind of processor, and its object is a blob: a candidate made of known kernels is only
linked. LLD links, as ziglang's wheel brings it: for every processor, and the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from recipes.blobs import BlobStore
from recipes.compilers.tvm.elf import without_unwinding
from recipes.compilers.tvm.kernels.parts import argument, kernel
from recipes.compilers.tvm.lower import Lowered
from recipes.compilers.tvm.target import kernel_options, llvm_target
from recipes.steps import run_step
from recipes.target import Target
from search.errors import InfeasibleCandidate

TOOLS = ("apache-tvm", "apache-tvm-ffi")
_LLD = ("ld.lld", "-shared", "--strip-all", "--hash-style=gnu", "-z", "noseparate-code", "--gc-sections")
"""Without what only a debugger reads; pages of code and data follow each other without gaps; TVM's conversions of
float16, which are in every object, stay where something calls them."""
_EXPORTED = "{ global: __tvm_ffi*; __TVM*; local: *; };"
"""What the runtime looks up."""
_PASSES = {"tirx.disable_assert": True}
"""Kernels do not check what they are given, which is known when they are called: 4 KB less each. `main` does."""
_NOTHING = "nothing"
_KERNELS = Path(__file__).parent / "kernels"


def library(lowered: Lowered, target: Target, blobs: BlobStore | None = None) -> bytes:
    """Compile and link a candidate.

    Args:
        lowered: what it calls.
        target: the board.
        blobs: where objects of kernels are kept; None: they are compiled again.

    Raises:
        InfeasibleCandidate: TVM does not compile it.
        ValueError: there is no code for such a machine.
    """
    import tvm
    from tvm import relax

    machine = llvm_target(target)
    with tempfile.TemporaryDirectory() as folder:
        try:
            objects = []
            for name, make in lowered.kernels.items():
                objects.append(Path(folder) / f"{name}.o")
                objects[-1].write_bytes(kernel_object(name, make, target, blobs))
            module = relax.pipeline.get_pipeline("zero")(lowered.module)
            module.update_func(tvm.ir.GlobalVar(_NOTHING), _nothing())
            with tvm.transform.PassContext(config=_PASSES):
                executable = tvm.compile(module, target=machine)
        except (RuntimeError, ValueError, TypeError) as error:
            raise InfeasibleCandidate(f"TVM does not compile it: {str(error).strip().splitlines()[-1]}") from error
        place = Path(folder) / "model.so"
        executable.export_library(str(place), addons=[str(file) for file in objects], fcompile=_link)
        return place.read_bytes()


def _link(output: str, objects: Sequence[str], **_: object) -> None:
    """Link objects to a shared library; TVM's `fcompile`. What they lack, the runtime has."""
    import ziglang

    for file in map(Path, objects):
        file.write_bytes(without_unwinding(file.read_bytes()))
    zig, exported = Path(str(ziglang.__file__)).parent / "zig", Path(f"{output}.map")
    exported.write_text(_EXPORTED)
    done = subprocess.run([zig, *_LLD, "--version-script", exported, "-o", output, *objects], capture_output=True,
                          text=True)
    if done.returncode:
        raise InfeasibleCandidate(f"it cannot be linked: {done.stderr.strip()}")


def _nothing() -> Any:
    """Return a function that is never called: TVM packs a network without code of its own as C, for a C compiler."""
    from tvm.tirx.script import builder as tir

    def body() -> None:
        one = argument("one", (1,), "int32")
        tir.buffer_store(one, tir.int32(1), [0])

    return kernel(_NOTHING, body)


def kernel_object(name: str, make: Callable[[], Any], target: Target, blobs: BlobStore | None) -> bytes:
    """Return a kernel's object file, compiled now or before."""
    if blobs is None:
        return _compiled(name, make, target)
    made = {"name": name, "target": kernel_options(target), "source": templates_digest()}
    step = run_step(blobs, "kernel", made, TOOLS, lambda: {"object": _compiled(name, make, target)})
    return blobs.path(step.outputs["object"]).read_bytes()


def code_size(compiled: bytes) -> int:
    """Return the bytes of an object file that end up in a library: code, constants and unwind tables."""
    from elftools.elf.constants import SH_FLAGS
    from elftools.elf.elffile import ELFFile

    sections = ELFFile(io.BytesIO(compiled)).iter_sections()
    return sum(section["sh_size"] for section in sections if section["sh_flags"] & SH_FLAGS.SHF_ALLOC)


def _compiled(name: str, make: Callable[[], Any], target: Target) -> bytes:
    import tvm

    with tvm.transform.PassContext(config=_PASSES):
        built = tvm.compile(tvm.IRModule({name: make()}), target=tvm.target.Target(kernel_options(target)))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "kernel.o"
        built.mod.write_to_file(str(place), "o")
        return place.read_bytes()


@cache
def templates_digest() -> str:
    """Return a digest of what kernels are written by: another version of it makes other objects."""
    texts = [file.read_bytes() for file in sorted(_KERNELS.glob("*.py"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()
