"""The geometry of a convolution."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """The geometry of a convolution; a linear layer has one row, its vectors for pixels, and a window of 1 x 1."""

    height: int
    width: int
    channels: int
    kernels: int
    """Output channels."""
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, left, bottom, right."""
    dilation: tuple[int, int] = (1, 1)

    @property
    def rows(self) -> int:
        """Height of the output."""
        return self._size(self.height, 0)

    @property
    def columns(self) -> int:
        """Width of the output."""
        return self._size(self.width, 1)

    def _size(self, given: int, axis: int) -> int:
        padded = given + self.padding[axis] + self.padding[axis + 2]
        return (padded - self.dilation[axis] * (self.kernel[axis] - 1) - 1) // self.stride[axis] + 1

    def reach(self, count: int, axis: int) -> int:
        """Return how many rows (axis 0) or columns (1) so many outputs read."""
        return (count - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis] + 1
