"""Compile the kernels of the cases, measure them, and compare with the counts that are kept.

    .venv-rapids/bin/python -m tests.gpu_kernels.check [--update] [--devices 90] [MODULE ...]

prints one line for each problem, and with --verbose one for each kernel. --update writes what was found to counts.json.
No GPU is needed: NVVM and nvJitLink of the RAPIDS wheels compile for a device that is given by its number, as a launch would.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import multiprocessing
import os
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba.cuda.dispatcher as dispatcher
from numba.cuda.cudadrv import devices

import gpuclust
from gpuclust.runtime.jit_cuda import _KeyedByContent
from tests.gpu_kernels.case import Case, Loop
from tests.gpu_kernels.machine_code import Code, NoDisassembler, disassemble, disassembler, pipe, resources

PACKAGE = Path(str(gpuclust.__file__)).resolve().parent
COUNTS = Path(__file__).with_name("counts.json")
MODULES = ("lloyd", "assign", "em", "silhouette", "scores")
DEVICES = {"75": (7, 5, ""), "80": (8, 0, ""), "90": (9, 0, "a"), "100": (10, 0, "a"), "120": (12, 0, "a")}
MAX_GROWTH = 1.1
DEFAULT_SHARED = 48 << 10  # what a launch of numba may ask for on any device
REGISTERS_OF_A_MULTIPROCESSOR = 65536


def with_named_device() -> None:
    """Let numba compile for a device that is only a name."""
    device = SimpleNamespace(compute_capability=(9, 0), id=0)
    devices.get_context = lambda *_: SimpleNamespace(device=device)
    dispatcher.get_current_device = lambda: device


def cases(module: str) -> list[Case]:
    """The cases of a module of this folder, or none if it is not there."""
    if not Path(__file__).with_name(f"{module}.py").exists():
        return []
    found: list[Case] = importlib.import_module(f"tests.gpu_kernels.{module}").cases()
    return found


def measure(case: Case, chosen: list[str]) -> dict[str, dict[str, Any]]:
    """Device -> what the kernel uses, and the instructions of its loops by the unit that executes them, for one step."""
    kernel = dispatcher._Kernel(case.function.py_func, case.signature, **case.function.targetoptions)
    found = {}
    for device in chosen:
        cubin = kernel.library.get_cubin(cc=DEVICES[device]).code
        used = resources(cubin)
        found[device] = {"registers": used.registers, "stack": used.stack, "shared": used.shared}
        try:
            code = disassemble(cubin)
        except NoDisassembler:
            continue
        found[device]["spills"] = sum(
            pipe(line) == "load/store" and ("STL" in line or "LDL" in line) for line in code.instructions
        )
        found[device]["loops"] = {name: count(code, loop) for name, loop in case.loops.items()}
    return found


def count(code: Code, loop: Loop) -> dict[str, float] | None:
    """Instructions for one step of a loop, by unit, and "all"; None if no loop of the machine code has its marker."""
    outside, *inside = code.bodies()
    candidates = inside if loop.marker else [outside]
    best: list[str] = []
    most = (0, 0)
    for body in candidates:
        text = "\n".join(body)
        if all(re.search(need, text) for need in loop.needs) and not any(re.search(lack, text) for lack in loop.lacks):
            score = (sum(bool(re.search(loop.marker, line)) for line in body), -len(body))
            if score[0] and score > most:
                best, most = body, score
    if not best:
        return None
    steps = most[0] / loop.per_step if loop.marker else 1.0
    found: dict[str, float] = {"all": len(best)}
    for line in best:
        found[pipe(line)] = found.get(pipe(line), 0) + 1
    return {name: round(number / steps, 2) for name, number in found.items()}


def problems(case: Case, found: dict[str, dict[str, Any]], kept: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong with a kernel, one line each: it uses more than its case states, it spills, or it has grown."""
    lines = []
    key = getattr(case.function._cache, "_py_func", None)
    if isinstance(key, _KeyedByContent) and (unstable := [part for part in key.content() if " at 0x" in part]):
        lines.append(
            f"{case.name} refers to {unstable[0]}, which is another in each process, so it is never found in the cache"
        )
    for device, now in found.items():
        place = f"{case.name} on sm_{device}"
        for what, most in (("registers", case.max_registers), ("stack", case.max_stack), ("shared", case.max_shared)):
            if now[what] > most:
                unit = "registers" if what == "registers" else f"bytes of {what} memory"
                lines.append(f"{place} uses {now[what]} {unit}; its case allows {most}")
        if now["shared"] + case.dynamic_shared > DEFAULT_SHARED:
            lines.append(
                f"{place} needs {now['shared'] + case.dynamic_shared} bytes of shared memory; a launch gives {DEFAULT_SHARED}"
            )
        if now["registers"] * case.threads > REGISTERS_OF_A_MULTIPROCESSOR:
            lines.append(f"{place} needs more registers than a multiprocessor has for {case.threads} threads")
        if not case.max_stack and now.get("spills"):
            lines.append(f"{place} spills registers to local memory ({now['spills']} instructions)")
        before = kept.get(device, {}).get("loops", {})
        for name, loop in now.get("loops", {}).items():
            if loop is None:
                lines.append(f"{place}: no loop of the machine code is {name!r}; change its marker")
            elif name not in before:
                lines.append(f"{place}: counts.json has no loop {name!r}; run this with --update")
            elif loop["all"] > MAX_GROWTH * before[name]["all"]:
                lines.append(
                    f"{place}: a step of {name!r} takes {loop['all']} instructions, {before[name]['all']} in counts.json"
                )
    return lines


def without_case(found: Iterable[Case]) -> list[str]:
    """A line for each kernel of the package that no case compiles, and for each that `cuda_kernel` does not declare."""
    codes = [case.function.py_func.__code__ for case in found]
    compiled = {(Path(code.co_filename).resolve(), code.co_firstlineno) for code in codes}
    lines = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for decorator in getattr(node, "decorator_list", ()):
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                options = {keyword.arg for keyword in getattr(decorator, "keywords", ())}
                place = f"{path.relative_to(PACKAGE)}:{decorator.lineno}: {getattr(node, 'name', '')}"
                if ast.unparse(called) == "cuda.jit":
                    lines.append(f"{place} is not declared by cuda_kernel")
                elif ast.unparse(called) != "cuda_kernel" or "device" in options:
                    continue
                elif (path.resolve(), decorator.lineno) not in compiled:
                    lines.append(f"{place} has no case in tests/gpu_kernels")
    return lines


def _one(task: tuple[str, int, list[str]]) -> dict[str, dict[str, Any]]:
    module, number, chosen = task
    return measure(cases(module)[number], chosen)


def _line(case: Case, device: str, now: dict[str, Any]) -> str:
    loops = ", ".join(f"{name} {loop and loop['all']}" for name, loop in now.get("loops", {}).items())
    return f"{case.name:32} sm_{device:4} {now['registers']:4} registers {now['shared']:6} bytes  {loops}"


def _launch(case: Case) -> dict[str, Any]:
    """What counts.json keeps of a case itself."""
    steps = {name: loop.steps for name, loop in case.loops.items()}
    return {"unit": case.unit, "steps": steps, "threads": case.threads, "dynamic_shared": case.dynamic_shared}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", default=MODULES, metavar="MODULE", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--update", action="store_true", help="write counts.json")
    parser.add_argument("--verbose", action="store_true", help="print what each kernel uses")
    parser.add_argument("--devices", nargs="+", default=list(DEVICES), choices=DEVICES, help="compute capabilities")
    arguments = parser.parse_args()
    with_named_device()
    kept: dict[str, dict[str, Any]] = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    chosen = [(module, i, case) for module in arguments.modules for i, case in enumerate(cases(module))]
    tasks = [(module, i, arguments.devices) for module, i, _ in chosen]
    lines = []
    with multiprocessing.get_context("fork").Pool(min(len(os.sched_getaffinity(0)), len(tasks))) as pool:
        for (_, _, case), found in zip(chosen, pool.imap(_one, tasks), strict=True):
            if arguments.verbose:
                print(*(_line(case, device, now) for device, now in found.items()), sep="\n", flush=True)
            if arguments.update:
                kept[case.name] = {**kept.get(case.name, {}), **_launch(case), **found}
            lines += problems(case, found, kept.get(case.name, {}))
    if set(arguments.modules) == set(MODULES):
        names = {case.name for _, _, case in chosen}
        if arguments.update:
            kept = {name: counts for name, counts in kept.items() if name in names}
        lines += [f"counts.json has {name}, which is no case; run this with --update" for name in kept.keys() - names]
        lines += without_case(case for _, _, case in chosen)
    if arguments.update:
        COUNTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    try:
        disassembler()
    except NoDisassembler as reason:
        print(f"instructions are not counted: {reason}")
    print("\n".join(lines) if lines else f"{len(chosen)} kernels fit")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
