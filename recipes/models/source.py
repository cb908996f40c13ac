"""Where a network comes from: `demo:NAME`, `file.py:factory`, `package.module:factory`, .pt2, .onnx, .tflite."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from recipes.boundary import foreign
from recipes.errors import DataError, ModelError

DEMOS = ("residual", "separable", "transformer")
FILES = (".pt2", ".onnx", ".tflite")
OUR_PACKAGES = ("orchestrator", "search", "device_farm", "profilers", "recipes")


@dataclass(frozen=True, slots=True)
class Reference:
    """A checked reference to something of the user's; nothing of it is loaded yet."""

    text: str
    """As the user wrote it."""
    kind: str
    """`demo`, `file` (a Python file), `module`, `pt2`, `onnx` or `tflite`."""
    target: str
    """Absolute path, dotted module, or the demo's name."""
    factory: str = ""
    folder: str = ""
    """The folder from which modules are imported."""


def parse_model(text: str, base: Path) -> Reference:
    """Check a `--model`. Relative paths are taken from `base`. Raises ModelError."""
    if text.startswith("demo:"):
        name = text.removeprefix("demo:")
        if name not in DEMOS:
            raise ModelError(f"--model {text!r}: no such demo; there are "
                             + ", ".join(f"demo:{demo}" for demo in DEMOS))
        return Reference(text, "demo", name)
    suffix = Path(text).suffix
    if suffix in FILES:
        path = (base / text).resolve()
        if not path.is_file():
            raise ModelError(_no_file("--model", text, path))
        return Reference(text, suffix[1:], str(path), folder=str(base))
    return _factory(text, base, "--model", ModelError)


def parse_data(text: str, base: Path) -> Reference:
    """Check a `--data`, as `parse_model` does. Raises DataError."""
    if text.startswith("demo:"):
        if text != "demo:fashion_mnist":
            raise DataError(f"--data {text!r}: the only demo data are demo:fashion_mnist")
        return Reference(text, "demo", "fashion_mnist")
    return _factory(text, base, "--data", DataError)


def _factory(text: str, base: Path, option: str, error: type[ModelError] | type[DataError]) -> Reference:
    target, colon, factory = text.rpartition(":")
    if not colon or not factory.isidentifier():
        raise error(f"{option} {text!r}: expected FILE.py:FACTORY or PACKAGE.MODULE:FACTORY"
                    + (", demo:NAME, a .pt2, .onnx or .tflite file" if option == "--model" else ""))
    if target.endswith(".py"):
        path = (base / target).resolve()
        if not path.is_file():
            raise error(_no_file(option, text, path))
        return Reference(text, "file", str(path), factory, str(path.parent))
    top = target.partition(".")[0]
    if top in OUR_PACKAGES:
        hidden = next((p for p in (base / f"{top}.py", base / top) if p.exists()), None)
        what = f"your {hidden}" if hidden else "a module of yours of that name"
        raise error(f"{option} {text!r}: {what} is hidden by this tool's own package {top!r}; rename it, or name "
                    f"the file: {target.replace('.', '/')}.py:{factory}")
    if not all(part.isidentifier() for part in target.split(".")):
        raise error(f"{option} {text!r}: {target!r} is neither a .py file nor a dotted module name")
    return Reference(text, "module", target, factory, str(base))


def _no_file(option: str, text: str, path: Path) -> str:
    what = "this is a folder" if path.is_dir() else "no such file"
    return f"{option} {text!r}: {what}: {path}; correct the path"


def load_callable(reference: Reference, error: type[ModelError] | type[DataError]) -> Callable[[], Any]:
    """Import the user's factory. Runs user code: only in a worker process. Raises `error`."""
    _look_first_in(reference.folder)
    try:
        with foreign(f"importing {reference.target}", error):
            module = _import_file(reference.target) if reference.kind == "file" \
                else importlib.import_module(reference.target)
    except error as problem:
        hint = _hint(reference, problem.__cause__)
        if hint is None:
            raise
        raise error(f"{problem}; {hint}") from problem.__cause__
    factory = getattr(module, reference.factory, None)
    if not callable(factory):
        names = sorted(n for n, v in vars(module).items()
                       if callable(v) and not n.startswith("_") and getattr(v, "__module__", "") == module.__name__)
        raise error(f"{reference.text!r}: {reference.target} has no callable {reference.factory!r}; it has: "
                    f"{', '.join(names) or 'none'}")
    _refuse_arguments(reference, factory, error)
    return factory  # type: ignore[no-any-return]


def _refuse_arguments(reference: Reference, factory: Callable[..., Any],
                      error: type[ModelError] | type[DataError]) -> None:
    """A factory is called without arguments. Raises `error` for one that needs some."""
    try:
        signature = inspect.signature(factory)
        code = inspect.unwrap(factory)
        place = f"{inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]}"
    except (TypeError, ValueError, OSError):
        return  # not written in Python: calling it will tell
    needed = [p.name for p in signature.parameters.values()
              if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise error(f"{reference.text}: a factory is called without arguments, but {reference.factory}{signature} in "
                    f"{place} needs {', '.join(needed)}; give every argument a default, or name a function that calls "
                    f"it: def make(): return {reference.factory}({', '.join(f'{name}=...' for name in needed)})")


def _look_first_in(folder: str) -> None:
    """Let the user's folder come before installed packages, as for `python FILE`; our names stay ours."""
    for name in OUR_PACKAGES:
        importlib.import_module(name)
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _import_file(path: str) -> ModuleType:
    name = f"_user_{Path(path).stem}"
    known = sys.modules.get(name)
    if known is not None and known.__file__ == path:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _hint(reference: Reference, cause: BaseException | None) -> str | None:
    """Say what to do where an import failed because a module is hidden or looked for elsewhere."""
    if isinstance(cause, (ImportError, AttributeError)):
        folder = Path(reference.folder)
        hidden = [p for n in OUR_PACKAGES for p in (folder / f"{n}.py", folder / n)
                  if p.exists() and str(p) != reference.target and n in str(cause)]
        if hidden:
            return f"your {hidden[0]} is hidden by this tool's own package {hidden[0].stem!r}: rename it"
    if isinstance(cause, ModuleNotFoundError):
        return f"modules are looked for in {reference.folder} and among the installed packages of {sys.prefix}"
    return None
