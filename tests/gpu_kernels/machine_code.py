"""What a compiled kernel uses, read from its cubin (an ELF file), and the loops of its machine code, from nvdisasm."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

REGISTERS, FRAME = 0x2F, 0x11  # attributes of .nv.info: registers, and bytes of the stack, of a function
# The unit of a multiprocessor that executes an instruction; the others are executed as they are issued.
PIPES = {
    "fp64": r"DFMA|DADD|DMUL|DSETP|DMNMX",
    "special": r"MUFU|F2F|F2I|I2F|FRND|POPC|BREV|FLO|F2FP|I2FP",
    "load/store": r"LD[A-Z]*|ST[A-Z]*|ATOM[A-Z]*|RED|SHFL|MATCH",
    "multiply": r"IMAD",
    "fp32": r"FFMA|FADD|FMUL|FADD2|FFMA2|FMUL2",
    "control": r"BRA|BSSY|BSYNC|EXIT|NOP|CALL|RET|WARPSYNC|BAR|BMOV|DEPBAR|U[A-Z0-9]+|R2UR|S2UR|ULDC|S2R|CS2R|LDC|LDCU",
}


class NoDisassembler(Exception):
    """nvdisasm is not installed."""


@dataclass(frozen=True)
class Resources:
    """Registers of a thread, bytes of its local memory, and bytes of shared memory with a fixed size of a block."""

    registers: int
    stack: int
    shared: int


def resources(cubin: bytes) -> Resources:
    """What the kernel of a cubin uses, itself and the functions that it calls (the largest)."""
    attributes: dict[int, int] = {}
    shared = 0
    for name, kind, data, size in _sections(cubin):
        if name.startswith(".nv.shared."):
            shared = max(shared, size)
        if name != ".nv.info" or kind == 8:  # NOBITS
            continue
        at = 0
        while at < len(data):
            form, attribute, length = struct.unpack_from("<BBH", data, at)
            at += 4
            if form == 4:  # a value of `length` bytes follows: the symbol and its number
                if attribute in (REGISTERS, FRAME):
                    value = struct.unpack_from("<I", data, at + 4)[0]
                    attributes[attribute] = max(value, attributes.get(attribute, 0))
                at += length
    return Resources(attributes[REGISTERS], attributes.get(FRAME, 0), shared)


def _sections(elf: bytes) -> list[tuple[str, int, bytes, int]]:
    """Name, type, content and size of each section of a 64-bit ELF file."""
    assert elf[:5] == b"\x7fELF\x02", "not a 64-bit ELF file"
    start = struct.unpack_from("<Q", elf, 0x28)[0]
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, start + i * size) for i in range(count)]
    text = headers[names][4]
    return [
        (elf[text + name : elf.index(b"\0", text + name)].decode(), kind, elf[offset : offset + length], length)
        for name, kind, _, _, offset, length in headers
    ]


def disassembler() -> str:
    """The path of nvdisasm: on PATH or in the CUDA wheels of this Python."""
    wheels = find_spec("nvidia.cu13")
    folders = [Path(place) / "bin" for place in (wheels and wheels.submodule_search_locations) or ()]
    found = shutil.which("nvdisasm", path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)]))
    if found is None:
        raise NoDisassembler("nvdisasm is not installed in .venv-rapids: run make contract")
    return found


@dataclass(frozen=True)
class Code:
    """Instructions of a kernel, and the ranges of its loops as (first, last) numbers of them."""

    instructions: list[str]
    loops: list[tuple[int, int]]

    def bodies(self) -> list[list[str]]:
        """The instructions of each loop, without those of the loops inside it; first those outside all loops."""
        inner = [-1] * len(self.instructions)
        for number in sorted(range(len(self.loops)), key=lambda i: self.loops[i][0] - self.loops[i][1]):
            first, last = self.loops[number]
            inner[first : last + 1] = [number] * (last + 1 - first)  # the longest first: what is inside overwrites it
        found: list[list[str]] = [[] for _ in range(len(self.loops) + 1)]
        for number, instruction in zip(inner, self.instructions, strict=True):
            found[number + 1].append(instruction)
        return found


def disassemble(cubin: bytes) -> Code:
    """The machine code of a cubin. A branch backwards closes a loop."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([disassembler(), "-c", file.name], capture_output=True, text=True, check=True)
    instructions: list[str] = []
    labels: dict[str, int] = {}
    ends: dict[int, int] = {}
    for line in done.stdout.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?)\s*;", line):
            instructions.append(found[1])
    for at, instruction in enumerate(instructions):
        target = re.search(r"\bBRA\b.*?`\((\.L_x_\d+)\)", instruction)
        if target and labels.get(target[1], at + 1) < at:  # the empty loop at the end jumps to itself
            first = labels[target[1]]
            ends[first] = max(at, ends.get(first, 0))
    return Code([line for line in instructions if line != "NOP"], list(_without_padding(instructions, ends)))


def _without_padding(instructions: list[str], ends: dict[int, int]) -> list[tuple[int, int]]:
    """The ranges of loops, counted without NOP lines."""
    kept, number = [], 0
    for line in instructions:
        kept.append(number)
        number += line != "NOP"
    return [(kept[first], kept[last]) for first, last in sorted(ends.items())]


def pipe(instruction: str) -> str:
    """The unit of a multiprocessor that executes an instruction; "integer" is also for comparisons and moves."""
    opcode = re.sub(r"^@!?U?P[0-9T]+\s+", "", instruction).split()[0].split(".")[0]
    for name, pattern in reversed(PIPES.items()):  # LDC is not a memory access, so "control" is asked first
        if re.fullmatch(pattern, opcode):
            return name
    return "integer"
