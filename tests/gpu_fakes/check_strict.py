"""The stand-ins refuse what the real libraries refuse, have their flaws, and count what moves. Run by `tests.test_gpu_fakes`."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from numba import cuda, float32, int32

from tests.gpu_fakes import cuml as fake_cuml
from tests.gpu_fakes.device import DEVICE, DOWN, LAUNCH, UP, Failure
from tests.gpu_fakes.signatures import known, recorded
from tests.gpu_fakes.simulator import SimulatorError

HOST = np.arange(12, dtype=np.float64).reshape(6, 2)


# numba's device arrays


@pytest.mark.parametrize("index", [np.array([1, 2]), np.array([True] * 6), [1, 2], None, ..., np.array([1])], ids=repr)
def test_a_device_array_takes_integers_and_slices_only(index):
    X = cuda.to_device(HOST)
    with pytest.raises((TypeError, ValueError)):
        X[index]
    assert X[1, 1] == 3.0
    assert X[1:3].shape == (2, 2)
    assert X[np.int64(1)].shape == (2,)


@pytest.mark.parametrize("name", ["sum", "astype", "mean", "min", "copy", "__add__", "__iter__", "__lt__"])
def test_a_device_array_computes_nothing(name):
    if name in ("__add__", "__iter__", "__lt__"):
        assert name not in vars(type(cuda.to_device(HOST)))
    else:
        with pytest.raises(AttributeError):
            getattr(cuda.to_device(HOST), name)


def test_memory_of_the_device_starts_with_garbage():
    assert np.isnan(cuda.device_array(3).copy_to_host()).all()
    assert (cuda.device_array(3, np.int32).copy_to_host() > 2**30).all()


def test_views_are_not_copied_and_copies_are_not_views():
    import cupy as cp

    X = cp.asarray(HOST)
    view = cuda.as_cuda_array(X)
    with DEVICE.measure() as counts:
        view[0, 0] = 5.0
    assert float(X[0, 0]) == 5.0
    assert HOST[0, 0] == 0.0
    assert [(e.kind, e.n_bytes) for e in counts.events] == [(UP, 8)]
    assert cp.asarray(view)._memory is not None
    with pytest.raises(TypeError, match="cuda array interface"):
        cuda.as_cuda_array(HOST)
    with pytest.raises(ValueError, match="non-contiguous"):
        cuda.to_device(HOST[:, :1])


# The simulator


@cuda.jit
def _neighbour(values, out, barrier):
    """out[i] = values of the next thread, by shared memory."""
    shared = cuda.shared.array(8, float32)
    i = cuda.threadIdx.x
    shared[i] = values[i]
    if barrier:
        cuda.syncthreads()
    out[i] = shared[(i + 1) % 8]


@cuda.jit
def _divergent(out):
    if cuda.threadIdx.x < 4:
        cuda.syncthreads()
    else:
        cuda.syncthreads()
    out[0] = 1


@cuda.jit
def _outside(out):
    out[out.shape[0] + cuda.threadIdx.x] = 1.0


@cuda.jit
def _large(out):
    shared = cuda.shared.array(20_000, float32)
    shared[0] = out[0]


@cuda.jit
def _warp_sum(values, out):
    total = values[cuda.grid(1)]
    for distance in (16, 8, 4, 2, 1):
        total += cuda.shfl_down_sync(0xFFFFFFFF, total, distance)
    if cuda.laneid == 0:
        cuda.atomic.add(out, 0, total)


@cuda.jit(device=True)
def _twice(x):
    return 2 * x + cuda.threadIdx.x


@cuda.jit
def _with_device_function(out):
    out[cuda.grid(1)] = _twice(int32(cuda.blockIdx.x))


def test_a_missing_barrier_changes_the_result():
    values, out = cuda.to_device(np.arange(8, dtype=np.float32)), cuda.device_array(8, np.float32)
    _neighbour[1, 8](values, out, True)
    np.testing.assert_array_equal(out.copy_to_host(), np.roll(np.arange(8), -1))
    _neighbour[1, 8](values, out, False)
    assert np.isnan(out.copy_to_host()).any()


@pytest.mark.parametrize(
    ("kernel", "blocks", "threads", "shared", "message"),
    [
        (_divergent, 1, 8, 0, "different barriers"),
        (_large, 1, 1, 0, "bytes of shared memory"),
        (_large, 1, 1, 50_000, "dynamic shared memory"),
        (_large, 0, 1, 0, "a launch of"),
        (_large, 1, 2048, 0, "too large"),
        (_large, (1, 70_000), 1, 0, "too large"),
    ],
)
def test_a_launch_that_a_device_does_not_allow_is_an_error(kernel, blocks, threads, shared, message):
    with pytest.raises(SimulatorError, match=message):
        kernel[blocks, threads, 0, shared](cuda.device_array(4))


def test_an_index_outside_an_array_is_an_error():
    with pytest.raises(IndexError):
        _outside[1, 1](cuda.device_array(4))


def test_warps_shuffle_and_device_functions_see_their_thread():
    out = cuda.to_device(np.zeros(1))
    _warp_sum[2, 64](cuda.to_device(np.arange(128.0)), out)
    assert out[0] == 127 * 64
    found = cuda.device_array(6)
    _with_device_function[2, 3](found)
    np.testing.assert_array_equal(found.copy_to_host(), [0, 1, 2, 2, 3, 4])


def test_an_argument_on_the_host_warns_and_another_type_is_refused():
    with pytest.warns(Warning, match="Host array used in CUDA kernel"):
        _with_device_function[1, 3](np.zeros(3))
    with pytest.raises(TypeError, match="Numba type"):
        _with_device_function[1, 3]("text")


# CuPy


def test_nothing_becomes_a_host_array_unless_it_is_asked_for():
    import cupy as cp

    X = cp.asarray(HOST)
    for implicit in (np.asarray, np.array, lambda x: np.concatenate([x, HOST]), lambda x: HOST + x, lambda x: x @ HOST.T,
                     lambda x: cp.maximum(x, HOST), lambda x: cp.where(x > 0, HOST, x), lambda x: cp.stack([x, HOST]),
                     lambda x: np.add(HOST, x), lambda x: x.take(HOST[:, 0]), lambda x: x.dot(HOST.T), lambda x: x == HOST):  # fmt: skip
        with pytest.raises(TypeError):
            implicit(X)
    with pytest.raises(ValueError, match="cannot be used for fill"):
        X[...] = HOST
    with pytest.raises(TypeError):
        cp.sum(HOST)
    assert isinstance(np.sqrt(X), cp.ndarray)
    assert isinstance(X.sum(), cp.ndarray)
    assert isinstance(2.0 * X[0, 0], cp.ndarray)


@pytest.mark.parametrize(
    "call",
    [
        lambda cp, X: cp.zeros(3, device="gpu"),
        lambda cp, X: X.sum(where=True),
        lambda cp, X: X.mean(initial=0),
        lambda cp, X: cp.bincount(X[:, 0].astype(int), weights=None, minlength=3, right=True),
        lambda cp, X: X.get(copy=True),
        lambda cp, X: cp.asnumpy(X, dtype=float),
        lambda cp, X: cuda.to_device(HOST, dtype=float),
    ],
)
def test_a_parameter_that_the_real_function_lacks_is_refused(call):
    import cupy as cp

    with pytest.raises(TypeError):
        call(cp, cp.asarray(HOST))


def test_a_name_that_the_real_library_lacks_is_missing():
    import cudf
    import cupy as cp
    import rmm.mr

    for owner, name in ((cp, "astype_"), (cp.asarray(HOST), "sumsum"), (cudf, "read_arrow"), (rmm.mr, "Pool"),
                        (cudf.Series([1.0]), "to_torch"), (cudf.DataFrame({"a": [1]}), "itertuple_")):  # fmt: skip
        with pytest.raises(AttributeError):
            getattr(owner, name)


def test_copies_are_counted_with_their_size_and_their_place():
    import cupy as cp

    with DEVICE.measure() as counts:
        X = cp.asarray(HOST)
        X[cp.asarray([1, 2])]
        X[np.array([1, 2])]
        float(X.sum())
        bool((X > 3).any())
        cp.bincount(X[:, 0].astype(np.int64), minlength=3)
        X.get()
    up, down = ([e.n_bytes for e in counts.of(kind)] for kind in (UP, DOWN))
    assert up == [96, 16, 16]
    assert down == [8, 1, 1, 8, 96]
    assert counts.largest(DOWN) == 96
    assert counts.launches()["cupy.bincount"] == 1


def test_a_singular_matrix_is_nan_not_an_error():
    import cupy as cp

    assert bool(cp.isnan(cp.linalg.cholesky(cp.asarray([[1.0, 2.0], [2.0, 1.0]]))).all())


# cuML


def test_the_real_parameters_of_an_estimator_are_the_only_ones():
    import cupy as cp
    from cuml.cluster import KMeans
    from cuml.decomposition import PCA

    with pytest.raises(TypeError):
        KMeans(3)
    with pytest.raises(TypeError):
        KMeans(n_clusters=3, algorithm="lloyd")
    with pytest.raises(RuntimeError, match="tol must be > 0"):
        KMeans(n_clusters=2, tol=0.0).fit(cp.asarray(HOST))
    with pytest.raises(TypeError):
        PCA(n_components=0.9).fit(cp.asarray(HOST))


def test_k_means_differs_from_run_to_run():
    import cupy as cp
    from cuml.cluster import KMeans

    X = cp.asarray(np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))
    first, second = (KMeans(n_clusters=3, random_state=0).fit(X).cluster_centers_.get() for _ in range(2))
    assert (first != second).any()
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_the_tree_of_neighbours_can_be_longer_than_the_shortest():
    X = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    X[30:] = X[:30]
    distance = fake_cuml.float32_distances(X)
    tree = fake_cuml.knn_tree(distance, np.argsort(distance, axis=1)[:, :3], np.zeros(60, np.float32))
    assert tree.shape == (59, 3)
    assert (distance[np.arange(30), np.arange(30, 60)] != 0).any()  # of identical rows


# cuDF


def test_a_frame_goes_to_the_host_only_when_it_is_asked_for():
    import cudf
    import pyarrow as pa

    frame = cudf.DataFrame.from_arrow(pa.table({"x": [1.0, None], "t": ["a", None]}))
    for implicit in (list, np.asarray, bool, pa.array, lambda c: c + pd.Series([1.0, 2.0]), lambda c: c.to_list()):
        with pytest.raises((TypeError, ValueError)):
            implicit(frame["x"])
    with pytest.raises(ValueError, match="nulls"):
        frame["x"].to_numpy()
    with pytest.raises(ValueError, match="nulls"):
        frame[["x"]].to_cupy()
    assert np.isnan(frame[["x"]].to_cupy(na_value=np.nan).get()[1, 0])
    assert (frame["x"] > 0).to_pandas().tolist() == [True, None]  # a null is not compared
    assert frame["x"].dtype == np.float64
    assert frame.to_pandas()["x"].isna().tolist() == [False, True]


def test_its_csv_reader_takes_every_quote_for_a_delimiter():
    import cudf

    text = 'id,name\n1,7" Mix\n2,plain\n3,12" Mix\n4,more,than,two\n'
    frame = cudf.read_csv(io.BytesIO(text.encode()), dtype={"id": "float64", "name": "str"})
    assert frame.to_pandas()["id"].tolist() == [1.0, 4.0]  # two records are swallowed, the extra fields are cut off


# The device


def test_a_failure_comes_at_its_event_and_a_lost_device_stays_lost():
    import cupy as cp

    class Lost(Exception):
        pass

    X = cp.asarray(HOST)
    with DEVICE.failing(Failure(lambda: MemoryError("out"), LAUNCH, "sum", after=2)):
        X.sum()
        with pytest.raises(MemoryError):
            X.sum()
        X.sum()
    with DEVICE.failing(Failure(Lost, UP, sticky=True)):
        with pytest.raises(Lost):
            cp.asarray(HOST)
        with pytest.raises(Lost):
            X.get()
    assert float(X[0, 1]) == 1.0


def test_the_functions_written_here_have_the_recorded_parameters():
    import inspect

    import cudf
    import cupy as cp

    for module, names in (
        (cp, ("array", "asarray", "ascontiguousarray", "asnumpy", "empty", "empty_like", "bincount")),
        (cudf, ("concat",)),
    ):
        for name in names:
            own = list(inspect.signature(getattr(module, name)).parameters)
            line = recorded()[f"{module.__name__}.{name}"]
            assert [p for p in own if p not in ("kwargs",)] == [p for p in own if p in line and p != "kwargs"], (
                name,
                line,
            )
    assert known("cupy.ndarray.sum")
    assert not known("cupy.ndarray.sumsum")
