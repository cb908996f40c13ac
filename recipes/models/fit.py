"""Do the data fit the network, and if not: which of its layers takes which shape?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from recipes.errors import DataError
from recipes.ports import Array

if TYPE_CHECKING:
    import torch

Shape = tuple[int | None, ...]
"""Of one example; None where any size will do."""
REMEDY = "give data of the size that the model was made for, or another model"


def check_shapes(wanted: Mapping[str, Shape], inputs: Mapping[str, Array], positional: bool, where: str) -> None:
    """Compare inputs (N, ...) with what a network says of itself; names count unless they go by position.

    Raises DataError.
    """
    pairs = zip(wanted.items(), inputs.values(), strict=False) if positional else (
        ((name, shape), inputs[name]) for name, shape in wanted.items() if name in inputs)
    for (name, shape), array in pairs:
        got = array.shape[1:]
        if len(got) != len(shape) or any(s is not None and s != g for s, g in zip(shape, got, strict=True)):
            raise DataError(f"{where} have the wrong size: the model takes {name} {_batch(shape)}, got {_batch(got)}; "
                            f"{REMEDY}{_channels_first(shape, got)}")


def refusing_layer(module: torch.nn.Module, run: Callable[[], Any]) -> str | None:
    """Run a network that fails, and say which of its layers got a shape that it does not take.

    Args:
        module: the network.
        run: runs it.

    Returns:
        What to say; None where the failure has another reason.
    """
    running: list[tuple[str, torch.nn.Module, Shape | None]] = []

    def enter(name: str) -> Callable[[Any, Any], None]:
        def note(part: Any, arguments: tuple[Any, ...]) -> None:
            running.append((name, part, tuple(arguments[0].shape) if arguments and hasattr(arguments[0], "shape")
                            else None))
        return note

    def leave(part: Any, arguments: Any, result: Any) -> None:
        running.pop()

    hooks = [hook for name, part in module.named_modules()
             for hook in (part.register_forward_pre_hook(enter(name)), part.register_forward_hook(leave))]
    try:
        run()
    except Exception:  # noqa: BLE001 - the user's code may raise anything; what it raised first is reported
        return _explain(*running[-1]) if running else None
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _explain(name: str, part: torch.nn.Module, got: Shape | None) -> str | None:
    wanted = _taken(part)
    if wanted is None or got is None:
        return None
    axis, size, words = wanted
    if len(got) > axis and got[axis] == size:
        return None
    hint = "; PyTorch's images are channels first, (N, C, H, W)" if axis == 1 and got[-1] == size else ""
    what = f"its layer {name!r}" if name else "the network"
    return f"{what} ({type(part).__name__}) takes {size} {words}, got {_show(got)}; {REMEDY}{hint}"


def _taken(part: torch.nn.Module) -> tuple[int, int, str] | None:
    """Return which axis of a layer's input has which size, and what that axis is called; None: any."""
    from torch import nn

    if isinstance(part, nn.Linear):
        return -1, part.in_features, "features in the last axis"
    if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return 1, part.in_channels, "channels in the second axis"
    if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return 1, part.num_features, "channels in the second axis"
    if isinstance(part, nn.LayerNorm):
        return -1, part.normalized_shape[-1], "features in the last axis"
    return None


def _channels_first(wanted: Shape, got: Shape) -> str:
    moved = (*wanted[1:], wanted[0]) if wanted else wanted
    return "; PyTorch's images are channels first, (N, C, H, W)" if len(wanted) == 3 and moved == got else ""


def _batch(shape: Shape) -> str:
    return f"({', '.join(['N', *('any' if size is None else str(size) for size in shape)])})"


def _show(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})"
