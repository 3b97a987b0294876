"""cuML: estimators with the real parameters that compute on the host, with the flaws of the real ones.

- `KMeans` adds in the precision of the matrix, in an order that changes: two fits of the same data give centres that differ in the
  last digits. ``empty_cluster`` makes it leave a cluster without rows, as the real one may: it keeps such a centre.
- `HDBSCAN` gives the spanning tree of the graph of nearest neighbours, with float32 distances made from squares.
- `DBSCAN` gives a border row to any of the clusters that reach it: here to the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gpu_fakes.arrays import inner, ndarray, wrap
from tests.gpu_fakes.device import launch, to_device, to_host
from tests.gpu_fakes.signatures import StandIn, bind


def matrix_of(X: Any) -> np.ndarray:
    """The memory of a matrix (n_samples, n_features) of float32 or float64."""
    if not hasattr(X, "__cuda_array_interface__"):
        X = wrap(np.asarray(X))
        to_device(X.nbytes, "cuML")
    memory: np.ndarray = inner(X)
    if memory.ndim != 2:
        raise ValueError(f"Expected 2D array, got {memory.ndim}D array instead")
    if memory.dtype not in (np.float32, np.float64):
        raise ValueError(f"Expected input to be of type in [dtype('float32'), dtype('float64')] but got {memory.dtype}")
    if not np.isfinite(memory).all():
        raise ValueError("Input contains NaN or infinity")
    return memory


class Estimator:
    """An estimator with the parameters of the real one; the arrays that it fits have the type of its input."""

    package = "cuml.cluster"

    def __init__(self, **parameters: Any) -> None:
        bound = bind(f"{self.package}.{type(self).__name__}", (), parameters)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            setattr(self, name, value)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Fit X."""
        bound = bind(f"{self.package}.{type(self).__name__}.fit", args, kwargs)
        launch(f"{self.package}.{type(self).__name__}.fit")
        X = bound.arguments["X"]
        self._mirror = isinstance(X, ndarray) and getattr(self, "output_type", None) in (None, "cupy", "input")
        self._fit(matrix_of(X), bound.arguments.get("sample_weight"))
        return self

    def _fit(self, X: np.ndarray, sample_weight: Any) -> None:
        raise NotImplementedError

    def _give(self, **arrays: np.ndarray) -> None:
        for name, array in arrays.items():
            found = wrap(np.ascontiguousarray(array))
            setattr(self, name, found if self._mirror or getattr(self, "output_type", None) == "cupy" else found.get())


class KMeans(Estimator):
    """cuML's K-Means."""

    n_fits = 0
    empty_cluster = False

    def _fit(self, X: np.ndarray, sample_weight: Any) -> None:
        from sklearn.cluster import KMeans as Host

        if not self.tol > 0:  # type: ignore[attr-defined]
            raise RuntimeError("cuVS: tol must be > 0")
        if self.n_clusters > len(X):  # type: ignore[attr-defined]
            raise RuntimeError("cuVS: # of samples < # of clusters")
        if isinstance(self.init, str) and self.init not in ("k-means++", "scalable-k-means++", "k-means||", "random"):  # type: ignore[has-type]
            raise ValueError(f"init={self.init!r}")
        init = self.init if isinstance(self.init, str) and self.init == "random" else "k-means++"
        n_init = 1 if self.n_init == "auto" else int(self.n_init)  # type: ignore[attr-defined]
        given = inner(self.init) if not isinstance(self.init, str) else init
        fitted = Host(
            self.n_clusters,  # type: ignore[attr-defined]
            init=given,
            n_init=n_init if isinstance(given, str) else 1,
            max_iter=self.max_iter,  # type: ignore[attr-defined]
            tol=self.tol,  # type: ignore[attr-defined]
            random_state=self.random_state,  # type: ignore[attr-defined]
        ).fit(X.astype(np.float64), sample_weight=None if sample_weight is None else inner(sample_weight))
        KMeans.n_fits += 1
        noise = np.random.default_rng(KMeans.n_fits).normal(size=fitted.cluster_centers_.shape)
        spread = float(np.abs(X).max()) * np.finfo(X.dtype).eps * np.sqrt(len(X))
        centers = (fitted.cluster_centers_ + spread * noise).astype(X.dtype)
        if KMeans.empty_cluster:
            centers[-1] = 100 * np.abs(X).max()
        labels = ((X[:, None, :] - centers[None]) ** 2).sum(axis=2).argmin(axis=1)
        self._give(cluster_centers_=centers, labels_=labels.astype(np.int32))
        self.inertia_, self.n_iter_ = float(fitted.inertia_), int(fitted.n_iter_)
        to_host(8, "cuML's convergence")


class _HDBSCANState:
    def __init__(self, core: np.ndarray) -> None:
        self.n_clusters, self._core = 1, core

    def to_dict(self) -> dict[str, Any]:
        """As the real one."""
        return {"n_leaves": len(self._core), "n_clusters": 1, "core_dists": wrap(self._core)}


class HDBSCAN(Estimator):
    """cuML's HDBSCAN, as far as its spanning tree."""

    _min_spanning_tree: np.ndarray | None = None

    def _fit(self, X: np.ndarray, sample_weight: Any) -> None:
        if X.dtype != np.float32:
            X = X.astype(np.float32)
        k = int(self.min_samples or self.min_cluster_size)  # type: ignore[attr-defined]
        if not 1 <= k <= 1023 or k >= len(X):
            raise ValueError(f"min_samples={k}")
        distance = float32_distances(X)
        near = np.argsort(distance, axis=1, kind="stable")[:, : k + 1]
        core = np.take_along_axis(distance, near[:, -1:], axis=1)[:, 0]
        self._state = _HDBSCANState(core)
        if self.gen_min_span_tree:  # type: ignore[attr-defined]
            edges = knn_tree(distance, near, core)
            self._min_spanning_tree = edges
            to_host(edges.nbytes, "cuML's tree")


class DBSCAN(Estimator):
    """cuML's DBSCAN; the row itself is one of ``min_samples``."""

    def _fit(self, X: np.ndarray, sample_weight: Any) -> None:
        from sklearn.cluster import DBSCAN as Host

        if not self.eps > 0:  # type: ignore[attr-defined]
            raise ValueError(f"eps={self.eps}")  # type: ignore[attr-defined]
        order = np.arange(len(X))[::-1]
        fitted = Host(eps=self.eps, min_samples=self.min_samples).fit(X[order])  # type: ignore[attr-defined]
        labels = fitted.labels_[order].astype(np.int32)
        self._give(labels_=labels, core_sample_indices_=np.sort(order[fitted.core_sample_indices_]).astype(np.int32))


class NearestNeighbors(Estimator):
    """cuML's, by brute force; the distances are those of `float32_distances`."""

    package = "cuml.neighbors"

    def _fit(self, X: np.ndarray, sample_weight: Any) -> None:
        self._X = X.astype(np.float32)

    def kneighbors(self, *args: Any, **kwargs: Any) -> Any:
        """The neighbours of rows, nearest first, and their distances unless ``return_distance=False``."""
        bound = bind("cuml.neighbors.NearestNeighbors.kneighbors", args, kwargs)
        bound.apply_defaults()
        given = bound.arguments
        k = given["n_neighbors"] or self.n_neighbors  # type: ignore[attr-defined]
        rows = self._X if given["X"] is None else matrix_of(given["X"]).astype(np.float32)
        if not 1 <= k <= min(len(self._X), 1024):
            raise ValueError(f"n_neighbors={k} must be 1 to {len(self._X)}")
        launch("cuml.neighbors.NearestNeighbors.kneighbors")
        both = np.concatenate([rows, self._X])
        distance = float32_distances(both)[: len(rows), len(rows) :]
        near = np.argsort(distance, axis=1, kind="stable")[:, :k].astype(np.int64)
        found = wrap(np.take_along_axis(distance, near, axis=1)), wrap(near)
        return found if given["return_distance"] else found[1]


def float32_distances(X: np.ndarray) -> np.ndarray:
    """|x|² + |y|² - 2xy, in float32, as cuVS computes it: (n, n)."""
    norms = (X * X).sum(axis=1, dtype=np.float32)
    squares = norms[:, None] + norms[None] - np.float32(2) * (X @ X.T)
    np.fill_diagonal(squares, 0)
    return np.sqrt(np.maximum(squares, np.float32(0)))


def knn_tree(distance: np.ndarray, near: np.ndarray, core: np.ndarray) -> np.ndarray:
    """The minimum spanning tree (n - 1, 3) float64 over the edges to the nearest neighbours, whose components are then joined."""
    n = len(distance)
    reach = np.maximum(distance, np.maximum(core[:, None], core[None]))
    row, column = np.repeat(np.arange(n), near.shape[1]), near.ravel()
    parent, edges = list(range(n)), []

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def add(rows: np.ndarray, columns: np.ndarray) -> None:
        for at in np.argsort(reach[rows, columns], kind="stable"):
            i, j = int(rows[at]), int(columns[at])
            if root(i) != root(j):
                parent[root(i)] = root(j)
                edges.append((i, j, float(reach[i, j])))

    add(row, column)
    if len(edges) < n - 1:
        add(*np.nonzero(~np.eye(n, dtype=bool)))
    return np.array(edges, dtype=np.float64).reshape(-1, 3)


class PCA(Estimator):
    """cuML's PCA, which takes a whole number of components."""

    package = "cuml.decomposition"

    def _fit(self, X: np.ndarray, sample_weight: Any) -> None:
        from sklearn.decomposition import PCA as Host

        if self.n_components is not None and not isinstance(self.n_components, int):  # type: ignore[attr-defined]
            raise TypeError("n_components must be a whole number")
        if self.svd_solver not in ("auto", "full", "jacobi"):  # type: ignore[attr-defined]
            raise ValueError(f"svd_solver={self.svd_solver!r}")  # type: ignore[attr-defined]
        if X.shape[1] < 2:
            raise ValueError("cuML's PCA needs two features")
        fitted = Host(self.n_components, svd_solver="full").fit(X)  # type: ignore[attr-defined]
        names = ("components_", "mean_", "explained_variance_", "explained_variance_ratio_", "singular_values_")
        self._give(**{name: getattr(fitted, name) for name in names})


class UMAP(Estimator):
    """cuML's UMAP: the positions of this one are principal components, float32."""

    package = "cuml.manifold"

    def _fit(self, X: np.ndarray, sample_weight: Any) -> None:
        from sklearn.decomposition import PCA as Host

        if self.build_algo == "nn_descent" and self.random_state is not None:  # type: ignore[attr-defined]
            raise AssertionError("the real one warns and uses brute_force_knn")
        if not 1 < self.n_neighbors < len(X):  # type: ignore[attr-defined]
            raise ValueError("n_neighbors should be between 2 and the number of rows")
        self._give(embedding_=Host(self.n_components, svd_solver="full").fit_transform(X).astype(np.float32))  # type: ignore[attr-defined]

    def fit_transform(self, *args: Any, **kwargs: Any) -> Any:
        """Fit X and give its positions."""
        bound = bind("cuml.manifold.UMAP.fit_transform", args, kwargs)
        return self.fit(bound.arguments["X"]).embedding_


class _Scaler(Estimator):
    package = "cuml.preprocessing"
    fitted: tuple[str, ...] = ()

    def _fit(self, X: np.ndarray, sample_weight: Any) -> None:
        import sklearn.preprocessing

        found = getattr(sklearn.preprocessing, type(self).__name__)().fit(X)
        self._give(**{name: getattr(found, name) for name in self.fitted})


class StandardScaler(_Scaler):
    """cuML's."""

    fitted = ("mean_", "var_", "scale_")


class MinMaxScaler(_Scaler):
    """cuML's."""

    fitted = ("data_min_", "data_max_", "data_range_", "scale_", "min_")


class RobustScaler(_Scaler):
    """cuML's."""

    fitted = ("center_", "scale_")


def make() -> dict[str, StandIn]:
    """The modules by name."""
    found = {
        name: StandIn(name)
        for name in (
            "cuml", "cuml.cluster", "cuml.cluster.hdbscan", "cuml.cluster.hdbscan.hdbscan", "cuml.decomposition", "cuml.preprocessing",
            "cuml.manifold", "cuml.neighbors",
        )
    }  # fmt: skip
    for cls in (KMeans, DBSCAN, HDBSCAN, NearestNeighbors, PCA, UMAP, StandardScaler, MinMaxScaler, RobustScaler):
        setattr(found[cls.package], cls.__name__, cls)
    found["cuml.cluster.hdbscan.hdbscan"]._HDBSCANState = _HDBSCANState
    found["cuml"].__version__ = "26.10.00"
    return found
