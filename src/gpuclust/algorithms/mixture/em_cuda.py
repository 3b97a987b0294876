"""The EM pass and the iterations of EM on a CUDA device, by the kernels of `kernels_cuda`.

An iteration is three launches on data that stay on the device: statistics, their sum, and the M-step. The host reads the state of a
run every `ITERATIONS_PER_CHECK` iterations. Arrays come from any library that offers ``__cuda_array_interface__``. Imported only where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from gpuclust.algorithms.mixture import kernels_cuda as kernels
from gpuclust.algorithms.mixture.em import (
    Array,
    EMScores,
    EMSettings,
    EMStatistics,
    KernelParameters,
    kernel_parameters,
    recentre,
)
from gpuclust.algorithms.mixture.kernels_cuda import Shape
from gpuclust.algorithms.mixture.m_step import (
    EMRun,
    IteratingBackend,
    MixtureParameters,
    empty_component,
    ill_defined,
    not_finite,
    shape,
)
from gpuclust.errors import FitError
from gpuclust.runtime.jit import ignore_small_grid_warnings
from gpuclust.runtime.jit_cuda import RepeatedLaunch

SHARED_BYTES = 47 * 1024  # what a block may use on every device without asking for more, less what the system takes
WARPS = 8  # of a block, where few components need fewer
TOTAL_WARPS = 8192  # of a launch, about as many as a large device holds
MAX_PARTIALS = 256 * 2**20  # bytes of partial sums on the device
ROWS_IN_REGISTERS = 128  # that a lane adds in the matrix's type before the sum goes on in float64
MERGERS = 32
ITERATIONS_PER_CHECK = 8
KINDS = {"full": kernels.FULL, "tied": kernels.TIED, "diag": kernels.DIAG, "spherical": kernels.SPHERICAL}


@dataclass(frozen=True)
class Launch:
    """How a kernel over rows is launched: ``lines`` are the partial sums of a block, added after ``tiles_to_add`` tiles."""

    shape: Shape
    warps: int
    blocks: int
    shared_bytes: int
    lines: int = 1
    tiles_to_add: int = 1


@lru_cache(maxsize=64)
def em_launch(n: int, d: int, k: int, dtype: str, diagonal: bool) -> Launch:
    """The launch of `kernels_cuda.em_tiles` for X (n, d) and k components. Raises FitError where shared memory does not suffice."""
    item_size = np.dtype(dtype).itemsize

    def bytes_of(shape: Shape, warps: int) -> int:
        tile = (k + 1 + shape.padded) * shape.rows * 32 * warps
        scratch = 33 * shape.chunk * warps
        return item_size * (k + (max(tile, scratch) if k * shape.parts <= warps else tile + scratch))

    two_rows, one_row = Shape(d, diagonal, dtype, 2), Shape(d, diagonal, dtype, 1)
    items, limit = k * one_row.parts, one_row.max_warps
    fitting = [(one_row, warps) for warps in range(min(limit, items - 1), 0, -1)]
    if items <= limit:
        warps = items * max(1, WARPS // items)
        fitting = [(two_rows, warps)] * (dtype == "float32") + [(one_row, warps), (one_row, items), *fitting]
    for shape_, warps in fitting:
        size = bytes_of(shape_, warps)
        if size <= SHARED_BYTES:
            break
    else:
        raise _too_many(k, d)
    lines = max(1, warps // items)
    tile = 32 * shape_.rows * warps
    most = MAX_PARTIALS // (8 * lines * (k * shape_.entries + 1))
    blocks = max(1, min(-(-n // tile), TOTAL_WARPS // warps, most))
    tiles_to_add = max(1, ROWS_IN_REGISTERS * lines // (shape_.rows * warps))
    return Launch(shape_, warps, blocks, size, lines, tiles_to_add)


@lru_cache(maxsize=64)
def score_launch(n: int, d: int, k: int, dtype: str, diagonal: bool) -> Launch:
    """The launch of `kernels_cuda.score_rows`, as `em_launch`."""
    shape_ = Shape(d, diagonal, dtype, 1)
    for warps in range(WARPS, 0, -1):
        size = np.dtype(dtype).itemsize * (k + (k + 1 + shape_.padded) * 32 * warps)
        if size <= SHARED_BYTES:
            return Launch(shape_, warps, max(1, min(-(-n // (32 * warps)), TOTAL_WARPS // warps)), size)
    raise _too_many(k, d)


def _too_many(k: int, d: int) -> FitError:
    return FitError(
        f"{k} components of {d} features are too many for the device's shared memory; use backend=cpu, fewer features "
        "(reduce=pca), or fewer components"
    )


def packed(c: KernelParameters, shape: Shape, base: float) -> np.ndarray:
    """The records of parameters (k * record,) in their dtype; ``base`` is added to the constants."""
    k, d = c.centres.shape
    records = np.zeros((k, shape.record), dtype=c.centres.dtype)
    constants = c.constants.astype(np.float64) + base
    records[:, 0] = constants
    records[:, 1] = constants - records[:, 0]
    records[:, 2 : 2 + d] = c.centres
    records[:, 2 + shape.padded : 2 + shape.padded + d] = c.offsets
    if shape.diagonal:
        records[:, shape.factor_positions()] = c.factors[:, 0]
    else:
        lower = np.tril_indices(d)
        records[:, shape.factor_positions()[lower]] = c.factors[:, lower[0], lower[1]]
    return records.reshape(-1)


class Workspace:
    """The device memory and the launches of passes over matrices of one shape, which all iterations use."""

    def __init__(self, X: Array, k: int, covariance_type: str, max_iter: int) -> None:
        n, d = X.shape
        self.k, self.d, self.kind = k, d, KINDS[covariance_type]
        self.parameter_shape = shape(covariance_type, k, d)
        self.launch = em_launch(n, d, k, str(X.dtype), covariance_type in ("diag", "spherical"))
        how, length = self.launch, k * self.launch.shape.entries + 1
        self.layout = kernels.state_layout(k, d, int(np.prod(self.parameter_shape)), max_iter)
        self.max_iter = max_iter
        self.records = cuda.device_array(k * how.shape.record, dtype=X.dtype)
        self.partial = cuda.device_array((how.blocks * how.lines, length), dtype=np.float64)
        self.merged = cuda.device_array(length, dtype=np.float64)
        self.state = cuda.device_array(self.layout.size, dtype=np.float64)
        size = d if self.kind in (kernels.FULL, kernels.TIED) else 1
        self.work = cuda.device_array((k if max_iter else 0, 2, size, d), dtype=np.float64)

    def start(self, c: KernelParameters, base: float) -> None:
        """Begin with given parameters: one upload of the parameters, and one of the header of the state."""
        self.records.copy_to_device(packed(c, self.launch.shape, base))
        self.state[: self.layout.lower_bounds].copy_to_device(np.zeros(self.layout.lower_bounds))

    def statistics(self, X: Array, weight: Array, labels: Array) -> tuple[RepeatedLaunch, RepeatedLaunch]:
        """The launches for the statistics of the rows with the parameters in the records; they stay on the device."""
        how = self.launch
        return (
            RepeatedLaunch(
                kernels.em_tiles(how.shape), how.blocks, 32 * how.warps,
                X, weight, labels, self.records, self.partial, self.state, self.k, how.tiles_to_add,
                shared=how.shared_bytes,
            ),
            RepeatedLaunch(
                kernels.merge, -(-len(self.merged) // kernels.MERGED_ENTRIES), (kernels.MERGED_ENTRIES, MERGERS),
                self.partial, self.state, self.merged,
            ),
        )  # fmt: skip

    def m_step(self, settings: EMSettings, resolution: float, total: float) -> RepeatedLaunch:
        """The launch that replaces the parameters by the maximum-likelihood estimates from the statistics."""
        return RepeatedLaunch(
            kernels.m_step(self.kind <= kernels.TIED), self.k, kernels.M_STEP_THREADS,
            self.merged, self.state, self.records, self.work, self.k, self.d, self.launch.shape.block, self.kind,
            settings.reg_covar, resolution, settings.tol, total, self.max_iter,
        )  # fmt: skip

    def found(self, c: KernelParameters) -> EMStatistics:
        """The statistics about the centres, on the host; the log-likelihood lacks the base."""
        line = self.merged.copy_to_host()
        of_components = line[:-1].reshape(self.k, -1)
        d = self.d
        scatter = np.zeros(c.factors.shape)
        if c.factors.shape[1] == 1:
            scatter[:, 0] = of_components[:, :d]
        else:
            rows, columns = np.tril_indices(d)
            scatter[:, rows, columns] = of_components[:, : len(rows)]
        return EMStatistics(float(line[-1]), of_components[:, -1].copy(), of_components[:, -1 - d : -1].copy(), scatter)

    def outcome(self) -> EMRun:
        """The parameters and lower bounds of a run that is done. Raises FitError where it failed."""
        state, at, k = self.state.copy_to_host(), self.layout, self.k
        failures = state[at.failures : at.counts]
        if (failures == kernels.NOT_FINITE).any():
            raise not_finite()
        for failure in (kernels.EMPTY, kernels.ILL_DEFINED):
            components = np.flatnonzero(failures == failure)
            if components.size:
                c = int(components[0])
                raise empty_component(c, k, state[at.counts + c]) if failure == kernels.EMPTY else ill_defined(c)
        n_iter = int(state[kernels.DONE]) or self.max_iter
        parameters = MixtureParameters(
            weights=state[at.weights : at.means],
            means=state[at.means : at.covariances].reshape(k, self.d),
            covariances=state[at.covariances : at.cholesky].reshape(self.parameter_shape),
            precisions_cholesky=state[at.cholesky :].reshape(self.parameter_shape),
        )
        bounds = state[at.lower_bounds : at.lower_bounds + n_iter].tolist()
        return EMRun(parameters, bounds, converged=bool(state[kernels.CONVERGED]))


class CudaPasses(IteratingBackend):
    """The passes on the current CUDA device. Its memory is kept for the next pass over a matrix of the same shape, until one with another
    number of components comes."""

    def __init__(self) -> None:
        self._workspaces: dict[tuple[Any, ...], Workspace] = {}

    def matrix(self, X: Array) -> Array:
        """X (n, d) as an array on the device, float32 or float64; no copy of one that is there."""
        if isinstance(X, np.ndarray):
            X = cuda.to_device(X if X.dtype in (np.float32, np.float64) else X.astype(np.float64))
        X = _device(X)
        if X.dtype not in (np.float32, np.float64):
            raise FitError(f"a matrix of {X.dtype} on the device cannot be fitted; convert it to float32 or float64")
        return X

    def host(self, X: Array) -> np.ndarray:
        """X in host memory."""
        return X if isinstance(X, np.ndarray) else _device(X).copy_to_host()

    def take(self, X: Array, numbers: np.ndarray) -> Array:
        """Rows of X by their numbers, in X's dtype on the device."""
        X = self.matrix(X)
        rows = cuda.device_array((len(numbers), X.shape[1]), dtype=X.dtype)
        with ignore_small_grid_warnings():
            kernels.take_rows[-(-len(numbers) // 128), 128](X, cuda.to_device(numbers.astype(np.int64)), rows)
        return rows

    def labels(
        self, X: Array, weights: np.ndarray, means: np.ndarray, precisions_cholesky: np.ndarray, covariance_type: str
    ) -> Array:
        """The most probable component of each row, (n,) int32 on the device."""
        c = kernel_parameters(weights, means, precisions_cholesky, covariance_type, np.dtype(np.float64))
        return self._score_arrays(X, None, c)[0]

    def nearest(self, X: Array, centres: np.ndarray) -> Array:
        """The nearest of the centres (k, d) to each row, (n,) int32 on the device."""
        k = len(centres)
        return self.labels(X, np.full(k, 1 / k), centres, np.ones(k), "spherical")

    def iterate(
        self,
        X: Array,
        parameters: MixtureParameters,
        settings: EMSettings,
        sample_weight: Array | None,
        report: Callable[[float], None],
    ) -> EMRun:
        """Iterations of EM from given parameters; the host does nothing between its reads of the state."""
        if settings.max_iter == 0:
            return EMRun(parameters, [], converged=False)
        p = parameters
        c = kernel_parameters(p.weights, p.means, p.precisions_cholesky, settings.covariance_type, X.dtype)
        space = self._workspace(X, len(p.weights), settings.covariance_type, settings.max_iter)
        weight, total = self._weights(sample_weight, len(X))
        none = cuda.device_array(0, dtype=np.int32)
        resolution = 10 * float(np.finfo(X.dtype).eps)
        space.start(c, c.base)
        with ignore_small_grid_warnings():
            launches = (*space.statistics(X, weight, none), space.m_step(settings, resolution, total))
        for iteration in range(1, settings.max_iter + 1):
            for launch in launches:
                launch()
            if iteration % ITERATIONS_PER_CHECK == 0 and iteration < settings.max_iter:
                done = space.state[: kernels.HEADER].copy_to_host()[kernels.DONE]
                report(iteration / settings.max_iter)
                if done:
                    break
        return space.outcome()

    def score_rows(
        self, X: Array, parameters: Mapping[str, np.ndarray], covariance_type: str
    ) -> tuple[EMScores, np.ndarray]:
        """As `mixture.cpu.score_rows`, on the device: scores in float64 whatever X is, and the distances to the own means."""
        X, p = self.matrix(X), parameters
        c = kernel_parameters(p["weights"], p["means"], p["precisions_cholesky"], covariance_type, np.dtype(np.float64))
        labels, confidence, distance, _, _, totals = self._score_arrays(X, None, c, distances=True)
        log_likelihood, entropy = totals.copy_to_host().sum(axis=0)
        log_likelihood += c.base * len(X)
        scores = EMScores(
            labels.copy_to_host(), confidence.copy_to_host(), np.empty(0), float(log_likelihood), float(entropy)
        )
        return scores, distance.copy_to_host()

    def _moments(self, X: Array, labels: Array, sample_weight: Array | None, c: KernelParameters) -> EMStatistics:
        weight, total = self._weights(sample_weight, len(X))
        return recentre(self._sums(X, labels, weight, c), c, total)

    def sums(self, X: Array, c: KernelParameters) -> EMStatistics:
        """The statistics of the rows about the centres of ``c``, to which those of other rows can be added; the log-likelihood lacks the
        base."""
        return self._sums(X, np.empty(0, np.int32), self._weights(None, len(X))[0], c)

    def _sums(self, X: Array, labels: Array, weight: Array, c: KernelParameters) -> EMStatistics:
        space = self._workspace(X, len(c.constants), "full" if c.matrices else "diag", 0)
        if isinstance(labels, np.ndarray):
            labels = cuda.to_device(labels.astype(np.int32))
        space.start(c, 0.0)
        with ignore_small_grid_warnings():
            for launch in space.statistics(X, weight, _device(labels)):
                launch()
        return space.found(c)

    def _scores(self, X: Array, sample_weight: Array | None, c: KernelParameters, responsibilities: bool) -> EMScores:
        arrays = self._score_arrays(X, sample_weight, c, log_prob=True, responsibilities=responsibilities)
        labels, confidence, _, log_prob, shares, totals = arrays
        log_likelihood, entropy = totals.copy_to_host().sum(axis=0)
        log_likelihood += c.base * self._weights(sample_weight, len(X))[1]
        return EMScores(
            labels.copy_to_host(),
            confidence.copy_to_host(),
            log_prob.copy_to_host(),
            float(log_likelihood),
            float(entropy),
            shares.copy_to_host() if responsibilities else None,
        )

    def _score_arrays(
        self,
        X: Array,
        sample_weight: Array | None,
        c: KernelParameters,
        *,
        log_prob: bool = False,
        distances: bool = False,
        responsibilities: bool = False,
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Labels, confidence, distances, log p(x), shares and totals on the device, as `kernels_cuda.score_rows` leaves them."""
        (n, d), k, dtype = X.shape, len(c.centres), c.centres.dtype
        how = score_launch(n, d, k, str(dtype), c.factors.shape[1] == 1)
        arrays = (
            cuda.device_array(n, dtype=np.int32),
            cuda.device_array(n, dtype=np.float32),
            cuda.device_array(n if distances else 0, dtype=np.float32),
            cuda.device_array(n if log_prob else 0, dtype=np.float64),
            cuda.device_array((n if responsibilities else 0, k), dtype=dtype),
            cuda.device_array((how.blocks, 2), dtype=np.float64),
        )
        records = cuda.to_device(packed(c, how.shape, 0.0))
        weight, _ = self._weights(sample_weight, n)
        with ignore_small_grid_warnings():
            kernels.score_rows(how.shape)[how.blocks, 32 * how.warps, 0, how.shared_bytes](
                X, weight, records, k, c.base, *arrays
            )
        return arrays

    def _workspace(self, X: Array, k: int, covariance_type: str, max_iter: int) -> Workspace:
        key = (*X.shape, str(X.dtype), k, covariance_type, max_iter)
        if key not in self._workspaces:
            if any(other.k != k for other in self._workspaces.values()):
                self._workspaces.clear()
            self._workspaces[key] = Workspace(X, k, covariance_type, max_iter)
        return self._workspaces[key]

    def _weights(self, sample_weight: Array | None, n: int) -> tuple[Array, float]:
        """Sample weights on the device, or nothing for ones, and their sum."""
        if sample_weight is None:
            return cuda.device_array(0, dtype=np.float64), float(n)
        if isinstance(sample_weight, np.ndarray):
            sample_weight = cuda.to_device(sample_weight.astype(np.float64))
        return _device(sample_weight), float(self.host(sample_weight).sum())


def _device(array: Array) -> Array:
    """numba's array over one that is on the device."""
    return array if hasattr(array, "copy_to_host") else cuda.as_cuda_array(array)
