"""What a kernel's case states: how it is called, what it may use, and which of its loops are counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numba import types


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A loop of the compiled kernel, found by an instruction in it.

    ``marker`` is a regular expression for a line of machine code ("FFMA", r"LDG\\.E\\.64", "LDS"); the loop is the one with the most such
    lines, those of loops inside it not counted. ``per_step`` is how many such lines one step of the source's loop has, so that a loop that the
    compiler unrolled, and a loop that is written out d times, are counted by the step. "" stands for the instructions outside all
    loops. ``steps`` is the number of steps, of all threads together, for one unit of work (a row, a pair, a cell). Where several loops have the marker, ``needs`` and
    ``lacks`` are expressions that lines of the loop must, and must not, match.
    """

    marker: str
    per_step: float = 1
    steps: float = 1
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kernel for one list of argument types.

    ``function`` is what `cuda_kernel` returned. ``max_registers`` is for a thread; ``max_shared`` and ``dynamic_shared`` are bytes for a block: what
    is declared with a fixed size, which is checked, and what a launch asks for besides. ``threads`` are those of a block of the
    launch. ``unit`` is what ``loops`` are for one of: "row", "pair", "cell". ``max_stack`` is bytes of
    local memory of a thread, where arrays that are indexed at run time are; a spilled register counts there too.
    """

    name: str
    function: Any
    signature: tuple[Any, ...]
    max_registers: int
    max_shared: int
    loops: dict[str, Loop]
    threads: int = 256
    dynamic_shared: int = 0
    unit: str = "row"
    max_stack: int = 0


def array(dtype: Any, n_dimensions: int) -> types.Array:
    """The type of a C-contiguous array on the device, as `cupy.ndarray` and `DeviceNDArray` arguments have it."""
    return types.Array(dtype, n_dimensions, "C")
