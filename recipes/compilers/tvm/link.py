"""Relax module -> the bytes of a shared library, always the same for the same module."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from recipes.errors import ModelError
from search.errors import InfeasibleCandidate


def library(module: Any, target: Any) -> bytes:
    """Compile and link a module of kernel calls.

    Args:
        module: as `lower.lower` returns it.
        target: TVM's.

    Raises:
        InfeasibleCandidate: TVM does not compile it.
        ModelError: this machine has no C compiler, which links it.
    """
    import tvm
    from tvm import relax
    from tvm.support.cc import get_cc

    if not get_cc():
        raise ModelError("the compiler tvm links with a C compiler, and there is none here: sudo apt-get install g++")
    try:
        executable = tvm.compile(relax.pipeline.get_pipeline("zero")(module), target=target)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InfeasibleCandidate(f"TVM does not compile it: {str(error).strip().splitlines()[-1]}") from error
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.so"
        executable.export_library(str(place))
        return place.read_bytes()
