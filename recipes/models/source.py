"""Where a network comes from: `demo:NAME`, `file.py:factory`, `package.module:factory`, .pt2, .tflite."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.boundary import foreign
from recipes.errors import DataError, ModelError

if TYPE_CHECKING:
    import torch

DEMOS = ("residual", "separable", "transformer")
OUR_PACKAGES = ("orchestrator", "search", "device_farm", "profilers", "recipes")


@dataclass(frozen=True, slots=True)
class Reference:
    """A checked reference to something of the user's; nothing of it is loaded yet."""

    text: str
    """As the user wrote it."""
    kind: str
    """`demo`, `file` (a Python file), `module`, `pt2` or `tflite`."""
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
    if suffix in (".pt2", ".tflite"):
        path = (base / text).resolve()
        if not path.is_file():
            raise ModelError(f"--model {text!r}: no such file ({path})")
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
                    + (", demo:NAME, a .pt2 or a .tflite file" if option == "--model" else ""))
    if target.endswith(".py"):
        path = (base / target).resolve()
        if not path.is_file():
            raise error(f"{option} {text!r}: no such file ({path})")
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


def load_callable(reference: Reference, error: type[ModelError] | type[DataError]) -> Callable[[], Any]:
    """Import the user's factory. Runs user code: only in a worker process. Raises `error`."""
    if reference.folder and reference.folder not in sys.path:
        sys.path.append(reference.folder)
    if reference.kind == "file":
        name = f"_user_{Path(reference.target).stem}"
        module = sys.modules.get(name)
        if module is None or module.__file__ != reference.target:
            spec = importlib.util.spec_from_file_location(name, reference.target)
            if spec is None or spec.loader is None:
                raise error(f"{reference.target} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            with foreign(f"importing {reference.target}", error):
                spec.loader.exec_module(module)
    else:
        with foreign(f"importing {reference.target}", error):
            module = importlib.import_module(reference.target)
    factory = getattr(module, reference.factory, None)
    if not callable(factory):
        names = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        raise error(f"{reference.text!r}: {reference.target} has no callable {reference.factory!r}; it has: "
                    f"{', '.join(names) or 'none'}")
    return factory  # type: ignore[no-any-return]


def load_network(reference: Reference) -> torch.nn.Module:
    """Make the network. Runs user code: only in a worker process. Raises ModelError."""
    import torch

    if reference.kind == "demo":
        from recipes.demo import networks

        network: torch.nn.Module = getattr(networks, reference.target)()
        return network
    if reference.kind == "pt2":
        with foreign(f"loading {reference.target}", ModelError):
            return torch.export.load(reference.target).module(check_guards=False)
    made = None
    factory = load_callable(reference, ModelError)
    with foreign(f"{reference.text}()", ModelError):
        made = factory()
    if not isinstance(made, torch.nn.Module):
        raise ModelError(f"{reference.text}() returned {type(made).__name__}; expected a torch.nn.Module")
    return made
