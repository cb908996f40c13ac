"""What a compiler must do: turn a network into a float model, and that into the artifact of any candidate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from recipes.blobs import BlobStore
from recipes.compilers.graph import Graph, Operator
from recipes.compilers.layers import LayerMap
from recipes.models.network import Network
from recipes.ports import Array, Ports
from recipes.target import Target
from search.candidate import Candidate
from search.space import Calibration


class Quantiser(Protocol):
    """One float model with its statistics, parsed once; makes any number of candidates."""

    layers: LayerMap

    def quantise(self, candidate: Candidate, io: str = "float") -> bytes:
        """Return the bytes of a candidate's artifact, read back and found to be what was asked.

        Args:
            candidate: of the space of `layers`; its widths are those of the float model.
            io: `float`, or `int8` for an artifact with int8 inputs and outputs.

        Raises:
            InfeasibleCandidate: it cannot be made, or something else was made.
        """


class Compiler(Protocol):
    """A way from a network to artifacts; without state, so that workers get it as it is.

    Its float model is bytes that hold the network's graph and every weight: the same network gives the same bytes.
    """

    def __hash__(self) -> int:
        """Those of one name are one, as keys of what was parsed before."""

    @property
    def name(self) -> str:
        """What `--compiler` calls it."""

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Names of the runtimes that execute its artifacts, best first."""

    @property
    def converts_with(self) -> tuple[str, ...]:
        """Distributions whose versions decide the float model."""

    @property
    def quantises_with(self) -> tuple[str, ...]:
        """Distributions whose versions decide statistics and artifacts."""

    def convert(self, network: Network, example: Mapping[str, Array], positional: bool) -> tuple[bytes, Ports]:
        """Return the float model of a network for a batch of one, and its ports. Runs user code.

        Args:
            network: its parameters are contiguous.
            example: argument name -> array (1, ...) in the network's own layout.
            positional: pass the arrays by position and not by name.

        Raises:
            ModelError: the network does not run, export or convert.
        """

    def graph(self, model: bytes) -> Graph:
        """Read a float model. Raises ValueError when it is none."""

    def path(self, model: bytes, op: Operator) -> str:
        """Return the PyTorch module path of an operator of a float model; `` where it is not known."""

    def host_target(self, target: Target) -> Target:
        """Return the target whose artifacts this machine executes in place of a board's; the board's own if it can.

        Both compute the same integers; floats to within the noise of arithmetic.
        """

    def layers(self, model: bytes, target: Target) -> LayerMap:
        """Return what may be chosen for a float model on a target.

        Raises ValueError when there is nothing to choose, or too many layers.
        """

    def calibrate(self, model: bytes, ports: Ports, inputs: Mapping[str, Array]) -> bytes:
        """Return statistics of every tensor of a float model: its least and greatest value.

        Args:
            model: a float model.
            ports: of that model.
            inputs: argument name -> array (N, ...) in the network's own layout.
        """

    def clip(self, model: bytes, ports: Ports, inputs: Mapping[str, Array],
             statistics: bytes) -> Mapping[Calibration, bytes]:
        """Return the statistics of the methods that clip, from the inputs and the statistics of `calibrate`."""

    def outputs(self, model: bytes, ports: Ports, inputs: Mapping[str, Array], limit: int) -> tuple[Array, ...]:
        """Run a float model in this process on the first `limit` inputs; return its outputs, (N, ...) each."""

    def tensors(self, model: bytes, ports: Ports, inputs: Mapping[str, Array]) -> Mapping[int, Array]:
        """Run a float model once, as plainly as can be; return what its operators compute, by tensor.

        Args:
            model: a float model.
            ports: of that model.
            inputs: one example, argument name -> array (1, ...) in the network's own layout.
        """

    def quantiser(self, model: bytes, statistics: bytes, layers: LayerMap, target: Target,
                  blobs: BlobStore | None = None, schedules: bytes | None = None) -> Quantiser:
        """Return what makes artifacts of a float model; what several share may be kept as blobs.

        Args:
            model: a float model.
            statistics: of its tensors.
            layers: what may be chosen.
            target: the board.
            blobs: where to keep what several artifacts share.
            schedules: what was measured to be fast on such a board; only for compilers that can be tuned.
        """

    def quantised_ports(self, ports: Ports, artifact: bytes) -> Ports:
        """Describe the ports of an artifact with integer inputs and outputs: types, scales, zero points."""
