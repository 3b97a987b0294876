"""What the estimators share: how they name the configuration's keys, the order of clusters, seeds and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data

from gpuclust.config import COSINE
from gpuclust.errors import ConfigurationError, GpuclustError
from gpuclust.model.prediction import assign
from gpuclust.model.preparation import unit_rows

if TYPE_CHECKING:
    from gpuclust.algorithms.cluster import Clustering

FLOATS = (np.float64, np.float32)


class Estimator(BaseEstimator):  # type: ignore[misc]
    """An estimator that `gpuclust.fit` accepts: it names its algorithm and gives that algorithm's configuration.

    ``_algorithm`` is the name of the algorithm in `gpuclust.algorithms.registry`. ``_keys`` maps a parameter to the key of
    the configuration where the two differ in name. ``_of_fit_alone`` are the parameters that only the estimator's own
    ``fit`` takes.
    """

    _algorithm: ClassVar[str]
    _keys: ClassVar[Mapping[str, str]] = {}
    _of_fit_alone: ClassVar[tuple[str, ...]] = ()

    def _settings(self) -> dict[str, Any]:
        """The values of the configuration's keys for the parameters.

        Raises ConfigurationError for a parameter that only the estimator's own ``fit`` takes, and ValueError for one that
        is out of its range.
        """
        parameters = self.get_params(deep=False)
        for name in self._of_fit_alone:
            if parameters.pop(name) is not None:
                raise ConfigurationError(f"gpuclust.fit has no {name}; fit the estimator itself to use it")
        parameters.pop("random_state", None)
        self._validate_params()
        return {self._keys.get(name, name): value for name, value in parameters.items()}

    def _rows_to_fit(self, X: ArrayLike, *, at_least: int = 1) -> NDArray[Any]:
        """X as an array, float32 or float64, in C order; its features are remembered."""
        rows: NDArray[Any] = validate_data(self, X, dtype=FLOATS, order="C", ensure_min_samples=at_least)
        return self._unit(rows)

    def _rows(self, X: ArrayLike) -> NDArray[Any]:
        """X as an array like the one that was fitted. Raises NotFittedError, and ValueError for other features."""
        check_is_fitted(self)
        rows: NDArray[Any] = validate_data(self, X, dtype=FLOATS, order="C", reset=False)
        return self._unit(rows)

    def _unit(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The rows, divided by their length for the metric "cosine". Raises ValueError for a row of zeros."""
        if getattr(self, "metric", None) != COSINE:
            return rows
        if not rows.any(axis=1).all():
            raise ValueError("metric='cosine' needs rows that are not zero: a row of zeros has no direction")
        return np.ascontiguousarray(unit_rows(rows), rows.dtype)


class ByRegistry(Estimator):
    """An estimator whose ``fit`` and ``predict`` are those that the registry has for its algorithm."""

    _parameters: Mapping[str, NDArray[Any]]
    _options: Mapping[str, Any]

    def _cluster(self, X: ArrayLike, *, seed: int = 0, at_least: int = 1, **settings: Any) -> Clustering:
        """Fit X with the configuration's keys of ``_settings`` and ``settings``, and set ``labels_`` and what `predict` needs. Raises
        ValueError."""
        from gpuclust.algorithms.cluster import cluster_rows
        from gpuclust.algorithms.registry import get_algorithm

        rows = self._rows_to_fit(X, at_least=at_least)
        with value_errors(self):
            config = get_algorithm(self._algorithm).config(**self._settings() | settings)
            found = cluster_rows(rows, config, seed=seed)
        self.labels_, self._parameters, self._options = found.labels, found.parameters, found.options
        return found

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Assign new rows to the clusters; the rows that were fitted get their labels again.

        Raises ValueError for another number of features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), int32
            Noise, where the algorithm has it, is -1.
        """
        rows = self._rows(X)
        return assign(self._algorithm, self._parameters, self._options, rows)


class CountsItself(ByRegistry):
    """An estimator whose ``min_samples`` includes the row itself, as in scikit-learn; the kernels count the other rows."""

    min_samples: Any

    def _cluster(self, X: ArrayLike, *, seed: int = 0, at_least: int = 2, **settings: Any) -> Clustering:
        n_samples = _num_samples(X)
        if self.min_samples > n_samples > 1:  # one row is refused below
            raise ValueError(
                f"min_samples ({self.min_samples}) must be at most the number of samples in X ({n_samples})"
            )
        return super()._cluster(X, seed=seed, at_least=at_least, **settings)

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"min_samples": int(self.min_samples) - 1}


def seed_of(random_state: Any) -> int:
    """The seed that a ``random_state`` gives: an int itself, else a number drawn from the generator."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def in_python(text: str, keys: Mapping[str, str] | None = None) -> str:
    """A message that names configuration keys, with the names of Python's parameters in their place.

    >>> in_python("lower cluster.n_clusters or set data.features", {"n_components": "n_clusters"})
    'lower n_components or set features'
    """
    names = {key: parameter for parameter, key in (keys or {}).items()}
    text = re.sub(r"\bcluster\.(\w+)", lambda found: names.get(found[1], found[1]), text)
    text = re.sub(r"\bn_clusters(?==)", names.get("n_clusters", "n_clusters"), text)
    for key, parameter in {"data.features": "features", "sweep.metric": "metric", "tracking.uri": "tracking"}.items():
        text = re.sub(rf"(?<![\w.]){re.escape(key)}\b", parameter, text)
    return text


@contextmanager
def python_errors(keys: Mapping[str, str], path: str | None = None) -> Iterator[None]:
    """gpuclust's errors with the names of Python's parameters in place of configuration keys, and "the data" for ``path``."""
    try:
        yield
    except GpuclustError as error:
        text = in_python(str(error), keys)
        text = text.replace(path, "the data") if path else text
        if text == str(error):
            raise
        raise type(error)(text) from error


@contextmanager
def value_errors(estimator: Estimator) -> Iterator[None]:
    """gpuclust's errors as the ValueError that scikit-learn raises, with the names of the estimator's parameters."""
    try:
        yield
    except GpuclustError as error:
        raise ValueError(in_python(str(error), estimator._keys)) from error
