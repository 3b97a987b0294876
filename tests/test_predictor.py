"""Rows placed by a model that was read: as the fit placed them, alone or among others, whatever their values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuclust.errors import ModelError
from gpuclust.model.bundle import ARRAYS, MODEL, UNPLACED, Bundle
from tests.test_bundle import CASES, built


@pytest.mark.parametrize("case", [*CASES, "imputed"])
def test_a_row_is_placed_unless_it_has_an_obstacle(case: str, context: Any, tmp_path: Path) -> None:
    overrides = CASES.get(case, ["cluster=kmeans", "cluster.n_clusters=3", "clean.nulls=median"])
    made, result, raw = built(context, [*overrides, "clean.bounds.tempo=[20,300]"])
    bundle = Bundle.load(made.save(tmp_path))
    placed = bundle.predict(raw)
    if "hdbscan" not in case:
        np.testing.assert_array_equal(placed.cluster, result.clustering.labels)
        # The fit and the prediction compute in float64 and round to float32; sums in another order may give its neighbour.
        np.testing.assert_allclose(placed.confidence, result.clustering.confidence, rtol=3e-7, atol=1e-7)
        np.testing.assert_allclose(placed.distance, result.clustering.distance, rtol=3e-7)
    # Rows that were not fitted: between, beyond, missing, infinite and out of bounds.
    rng = np.random.default_rng(0)
    new = raw[rng.integers(0, len(raw), 500)] + rng.normal(size=(500, raw.shape[1])) * raw.std(axis=0)
    new[:40, rng.integers(0, raw.shape[1], 40)] = np.nan
    new[40:50, 0] = np.inf
    new[50:60, list(bundle.features).index("tempo")] = 1e4
    found = bundle.predict(new)
    assert (found.cluster == UNPLACED).any()
    for row, cluster in zip(new, found.cluster, strict=True):
        assert (bundle.obstacle(row) is None) == (cluster != UNPLACED)


def test_rows_alone_are_placed_as_among_others(context: Any, tmp_path: Path) -> None:
    for case in ("kmeans pca", "gmm full", "hdbscan"):
        bundle, _, raw = built(context, CASES[case])
        predictor = Bundle.load(bundle.save(tmp_path / case.replace(" ", "-")))
        together = predictor.predict(raw[:50]).cluster
        np.testing.assert_array_equal([predictor.predict(raw[i : i + 1]).cluster[0] for i in range(50)], together)


def test_any_number_is_placed_or_refused(context: Any, tmp_path: Path) -> None:
    predictors = []
    for case in ("kmeans", "gmm full", "hdbscan"):
        bundle, _, _ = built(context, CASES[case])
        predictors.append(Bundle.load(bundle.save(tmp_path / case.replace(" ", "-"))))
    width = len(predictors[0].features)

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
        Bundle.load(folder)
    model = (folder / MODEL).read_text()
    (folder / MODEL).write_text(model.replace('"kmeans"', '"optics"'))
    with pytest.raises(ModelError, match="'optics' is not known"):
        Bundle.load(folder)
