"""Which runtime a board can execute, and where its wheels come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from device_farm.board_entry import RuntimeSpec
from device_farm.errors import SetupFailed
from device_farm.probe import Probe, PythonProbe


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime's package and what it needs."""

    name: str
    version: str
    package: str
    module: str
    machines: tuple[str, ...]
    oldest_python: tuple[int, int]
    newest_python: tuple[int, int]
    oldest_glibc: tuple[int, int]
    wheel_glibc: tuple[int, int]
    """The newest glibc that its wheels' tags name; tflite-runtime's tags ask for more than it needs."""
    numpy: str
    """Requirement: its interpreter imports it."""
    others: tuple[str, ...] = ()
    """Requirements for what else it imports, with wheels of the same tags."""


RUNTIMES = (
    Runtime(
        name="litert",
        version="2.3.0",
        package="ai-edge-litert",
        module="ai_edge_litert.interpreter",
        machines=("aarch64", "x86_64"),
        oldest_python=(3, 10),
        newest_python=(3, 14),
        oldest_glibc=(2, 34),
        wheel_glibc=(2, 34),
        numpy="numpy>=1.23.2",
    ),
    Runtime(
        name="tflite-runtime",
        version="2.14.0",
        package="tflite-runtime",
        module="tflite_runtime.interpreter",
        machines=("aarch64", "x86_64", "armv7l"),
        oldest_python=(3, 8),
        newest_python=(3, 11),
        oldest_glibc=(2, 27),
        wheel_glibc=(2, 34),
        numpy="numpy<2",
    ),
    Runtime(
        name="tvm",
        version="0.26.0",
        package="apache-tvm",
        module="tvm.runtime.vm",
        machines=("aarch64", "x86_64"),
        oldest_python=(3, 10),
        newest_python=(3, 14),
        oldest_glibc=(2, 28),
        wheel_glibc=(2, 28),
        numpy="numpy>=1.23.2",
        others=("apache-tvm-ffi==0.1.13.post3", "typing-extensions>=4.12"),
    ),
)
"""Best first."""
TFLITE = ("litert", "tflite-runtime")
"""Those that execute a .tflite file."""


@dataclass(frozen=True, slots=True)
class RuntimePlan:
    """What to install on a board."""

    runtime: Runtime
    version: str
    machine: str
    python: tuple[int, int]
    glibc: tuple[int, int]

    @property
    def folder_name(self) -> str:
        """Name below ROOT/runtimes."""
        return f"{self.runtime.name}-{self.version}"

    @property
    def key(self) -> str:
        """Name of what was fetched for such boards."""
        python, glibc = self.python, self.glibc
        return f"{self.folder_name}-{self.machine}-cp{python[0]}{python[1]}-glibc{glibc[0]}.{glibc[1]}"

    @property
    def numpy_from_board(self) -> bool:
        """Whether numpy must be the board's own: the package index has no numpy for 32-bit ARM."""
        return self.machine == "armv7l"


def plan_runtime(probe: Probe, wanted: RuntimeSpec | None = None, names: Sequence[str] = TFLITE) -> RuntimePlan:
    """Choose the runtime for a board: the wanted one, else the best that it can execute.

    Args:
        probe: what the board said of itself.
        wanted: by the inventory; it counts where it is one of `names`.
        names: the runtimes that would do.

    Raises:
        SetupFailed: It can execute none; the message says why, for each.
    """
    if probe.python is None:
        raise SetupFailed("no Python on the board: sudo apt-get install python3, or set 'python' in the inventory")
    return choose_runtime(probe.machine, probe.python, probe.glibc, wanted, names)


def choose_runtime(
    machine: str,
    python: PythonProbe,
    glibc: tuple[int, int] | None,
    wanted: RuntimeSpec | None = None,
    names: Sequence[str] = TFLITE,
) -> RuntimePlan:
    """Choose the runtime for a machine. Raises SetupFailed."""
    if glibc is None:
        raise SetupFailed("its C library is not glibc: the runtimes need it (Debian, Ubuntu, Raspberry Pi OS)")
    wanted = wanted if wanted is not None and wanted.name in names else None
    candidates = [runtime for runtime in RUNTIMES if runtime.name in ((wanted.name,) if wanted else names)]
    reasons = []
    for runtime in candidates:
        reason = _unsuitable(runtime, machine, python, glibc)
        if reason is None:
            version = wanted.version if wanted else runtime.version
            return RuntimePlan(runtime, version, machine, python.version[:2], glibc)
        reasons.append(f"{runtime.name} {reason}")
    raise SetupFailed(f"no runtime fits: {'; '.join(reasons)}. Install a system that one of them supports")


def _unsuitable(runtime: Runtime, machine: str, python: PythonProbe, glibc: tuple[int, int]) -> str | None:
    if machine not in runtime.machines:
        return f"needs {' or '.join(runtime.machines)}, got {machine}"
    oldest, newest, got = runtime.oldest_python, runtime.newest_python, python.version[:2]
    if not oldest <= got <= newest:
        return f"needs Python {_dotted(oldest)} to {_dotted(newest)}, got {_dotted(got)}"
    if python.implementation != "CPython":
        return f"needs CPython, got {python.implementation}"
    if glibc < runtime.oldest_glibc:
        return f"needs glibc {_dotted(runtime.oldest_glibc)} or newer, got {_dotted(glibc)}"
    return None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
