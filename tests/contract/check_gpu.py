"""Does every call of the GPU code fit the RAPIDS that is installed here? Run by ``make contract``.

    python -m tests.contract.check_gpu [--verbose]

No GPU is needed: the modules are imported, their source is walked, every call is bound to the real signature, every
attribute is looked up on the real class, and cuML's estimators are constructed. Exit status 1 when anything does not
fit, or cannot be followed and is not declared below.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.contract.expressions import Report
from tests.contract.values import Declared
from tests.contract.walker import Walker, problems_of

ROOTS = ("cuml", "cudf", "cupy", "rmm", "pylibraft", "cuvs", "pynvml", "numba")
CONSTRUCTED = ("cuml",)
"""Packages whose constructors run without a GPU."""


def declared() -> Declared:
    """What RAPIDS does not say of itself, each with the reason why it is so."""
    import cudf
    import cupy
    import numpy as np
    from cudf.core.accessors.string import StringMethods
    from cudf.core.series import DatetimeProperties
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    return Declared(
        returns={
            # Functions of cupy's main module carry no return annotations; those used here give arrays.
            "cupy.*": cupy.ndarray,
            # numba.cuda's functions that make arrays carry none either.
            "numba.to_device": DeviceNDArray,
            "numba.device_array": DeviceNDArray,
            "numba.as_cuda_array": DeviceNDArray,
            # Functions that give an array on the host.
            "numba.DeviceNDArray.copy_to_host": np.ndarray,
            "cupy.asnumpy": np.ndarray,
            # Properties and methods without annotations, or with such as a type checker alone can read.
            "cudf.Series.str": StringMethods,
            "cudf.Series.dt": DatetimeProperties,
            "cudf.Series.dtype": np.dtype,
            "cudf.Series.*": cudf.Series,
            "cudf.StringMethods.*": cudf.Series,
            "cudf.DataFrame.*": cudf.DataFrame,
            # Fitted attributes mirror the type of the input (cuML's ReflectedAttr): CuPy arrays here.
            "cuml.internals.outputs.ReflectedAttr": cupy.ndarray,
            # cudf.concat gives what it is given, and gets frames here.
            "cudf.concat": cudf.DataFrame,
            "cudf.read_parquet": cudf.DataFrame,
            "cudf.to_numeric": cudf.Series,
        },
        # Compiled, and its docstring begins with a sentence; test_contract.py calls it.
        unsigned={"rmm.CudaAsyncMemoryResource": "initial_pool_size"},
        # Code that both backends run takes the array module as xp, and says Array, Frame and Column: here, CuPy's and cuDF's.
        names={"xp": cupy},
        aliases={"Array": cupy.ndarray, "Frame": cudf.DataFrame, "Column": cudf.Series},
    )


SAID_IN_SOURCE = {
    # gpu_hdbscan.py takes the core distances out of the dictionary that a fitted state gives.
    "cuml.cluster.hdbscan.hdbscan": '"core_dists": self.core_dists',
    # gpu_kmeans.py asks for k-means++ as scikit-learn means it, one seed after another.
    "cuml.cluster.kmeans": 'kmeans.init == "k-means++"',
}
"""What no signature tells: lines that the sources of RAPIDS, which come with its binaries, must hold."""


def unsaid() -> Iterator[str]:
    """The lines of SAID_IN_SOURCE that are not there."""
    for name, line in SAID_IN_SOURCE.items():
        file = Path(str(importlib.import_module(name).__file__))
        source = file.with_name(f"{name.rpartition('.')[2]}.pyx")
        if line not in source.read_text():
            yield f"{source.name} no longer says {line}"


def modules() -> tuple[list[str], list[str]]:
    """The modules that may import RAPIDS, and those whose code runs on either backend's arrays and frames."""
    import gpuclust

    top = Path(str(gpuclust.__file__)).parent
    names = {file: ".".join(("gpuclust", *file.relative_to(top).with_suffix("").parts)) for file in top.rglob("*.py")}
    ours = sorted(file for file in names if file.name in ("gpu.py", "cudf_frames.py"))
    # data/frames.py is the part of the frames that is pandas' own.
    others = set(names) - {*ours, top / "data" / "frames.py"}
    shared = sorted(file for file in others if SHARED.search(file.read_text()))
    return [names[file] for file in ours], [names[file] for file in shared]


SHARED = re.compile(r"\bxp\.|^from gpuclust.data.table import .*\b(Frame|Column)\b", re.M)


def check(modules: Sequence[str], known: Declared) -> list[Report]:
    """One report for each module; one that cannot be imported has that as its problem."""
    reports = []
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            reports.append(Report(problems=[f"{name} cannot be imported: {error}"]))
        else:
            reports.append(Walker(module, ROOTS, known, CONSTRUCTED).walk())
    return reports


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print the findings, and return the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--verbose", action="store_true", help="list everything that was checked")
    options = parser.parse_args(arguments)
    known = declared()
    ours, shared = modules()
    reports = check([*ours, *shared], known)
    findings = list(problems_of(reports[: len(ours)], reports[len(ours) :]))
    findings += [*unsaid(), *(f"declared but not needed: {name}" for name in unused(known))]
    for name, report in zip([*ours, *shared], reports, strict=True):
        print(
            f"{name}: {len(report.calls)} calls, {len(report.attributes)} attributes, "
            f"{len(report.constructed)} constructors run, {len(report.unresolved)} uses not followed"
        )
        if options.verbose:
            lines = [*report.calls, *report.attributes, *report.constructed, *report.unresolved]
            print(*(f"  {line}" for line in lines), sep="\n")
    if not all(report.calls for report in reports[: len(ours)]):
        findings.append("a module of the GPU backend makes no call to RAPIDS: is this the right package?")
    print(*findings, sep="\n")
    print(f"{'does not fit' if findings else 'fits'}: {installed()}")
    return 1 if findings else 0


def unused(known: Declared) -> list[str]:
    """Declared entries that nothing needed."""
    return sorted({*known.returns, *known.unsigned} - known.used)


def installed() -> str:
    """The versions that were checked against."""
    import cudf
    import cuml
    import cupy
    import rmm

    return (
        ", ".join(f"{m.__name__} {m.__version__}" for m in (cuml, cudf, cupy, rmm))
        + f", gpuclust {version('gpuclust')}"
    )


if __name__ == "__main__":
    sys.exit(main())
