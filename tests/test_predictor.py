"""Rows placed by the served model, held against the bundle: two implementations of one promise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuclust.errors import ModelError
from gpuclust.model.predictor import UNPLACED, Placement, read_predictor
from gpuclust.tracking.bundle import ARRAYS, MODEL, Bundle
from tests.test_bundle import CASES, built

Same = Callable[[Bundle, np.ndarray], Placement]


def agree(ours: Placement, theirs: Any) -> None:
    np.testing.assert_array_equal(ours.cluster, theirs.cluster)
    np.testing.assert_array_equal(ours.coordinates, theirs.coordinates)
    # Both compute in float64 and round to float32; the order of sums may move a value to its neighbour.
    np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=3e-7, atol=1e-7)
    np.testing.assert_allclose(ours.distance, theirs.distance, rtol=3e-7)


@pytest.mark.parametrize("case", [*CASES, "imputed"])
def test_it_places_rows_as_the_bundle_does(case: str, context: Any, tmp_path: Path) -> None:
    overrides = CASES.get(case, ["cluster=kmeans", "cluster.n_clusters=3", "clean.nulls=median"])
    bundle, result, raw = built(context, [*overrides, "clean.bounds.tempo=[20,300]"])
    predictor = read_predictor(bundle.save(tmp_path))
    placed = predictor.predict(raw)
    agree(placed, bundle.predict(raw))
    if "hdbscan" not in case:
        np.testing.assert_array_equal(placed.cluster, result.clustering.labels)
    # Rows that were not fitted: between, beyond, missing, infinite and out of bounds.
    rng = np.random.default_rng(0)
    new = raw[rng.integers(0, len(raw), 500)] + rng.normal(size=(500, raw.shape[1])) * raw.std(axis=0)
    new[:40, rng.integers(0, raw.shape[1], 40)] = np.nan
    new[40:50, 0] = np.inf
    new[50:60, list(bundle.features).index("tempo")] = 1e4
    ours, theirs = predictor.predict(new), bundle.predict(new)
    agree(ours, theirs)
    assert (ours.cluster == UNPLACED).any()
    for row, cluster in zip(new, ours.cluster, strict=True):
        assert (predictor.obstacle(row) is None) == (cluster != UNPLACED)


def test_rows_alone_are_placed_as_among_others(context: Any, tmp_path: Path) -> None:
    for case in ("kmeans pca", "gmm full", "hdbscan"):
        bundle, _, raw = built(context, CASES[case])
        predictor = read_predictor(bundle.save(tmp_path / case.replace(" ", "-")))
        together = predictor.predict(raw[:50]).cluster
        np.testing.assert_array_equal([predictor.predict(raw[i : i + 1]).cluster[0] for i in range(50)], together)


def test_any_number_is_placed_or_refused(context: Any, tmp_path: Path) -> None:
    predictors = []
    for case in ("kmeans", "gmm full", "hdbscan"):
        bundle, _, _ = built(context, CASES[case])
        predictors.append(read_predictor(bundle.save(tmp_path / case.replace(" ", "-"))))
    width = len(predictors[0].space.features)

    @given(st.lists(st.floats(), min_size=width, max_size=width))
    def placed(row: list[float]) -> None:
        for predictor in predictors:
            answer = predictor.predict(np.array([row]))
            (cluster,), (confidence,) = answer.cluster, answer.confidence
            assert (cluster == UNPLACED) == (predictor.obstacle(np.array(row)) is not None)
            if cluster != UNPLACED:
                assert 0 <= confidence <= 1
                assert np.isfinite(answer.coordinates).all()

    placed()


def test_a_damaged_model_is_said_to_be_one(context: Any, tmp_path: Path) -> None:
    bundle, _, _ = built(context, CASES["kmeans"])
    folder = bundle.save(tmp_path)
    with np.load(folder / ARRAYS) as arrays:
        kept = dict(arrays)
    np.savez(folder / ARRAYS, **{name: value for name, value in kept.items() if name != "parameters/centers"})
    with pytest.raises(ModelError, match="damaged"):
        read_predictor(folder)
    model = (folder / MODEL).read_text()
    (folder / MODEL).write_text(model.replace('"kmeans"', '"dbscan"'))
    with pytest.raises(ModelError, match="'dbscan' is not known"):
        read_predictor(folder)
