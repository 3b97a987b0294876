"""Known answers: data whose number of clusters is known, or that has none, judged by a sweep's curves alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpuclust.analysis.verdict import CLEAR, NONE, OPEN, SEVERAL, Preferred, verdict
from gpuclust.compose import plan
from gpuclust.metrics.gap import gap_statistic
from gpuclust.pipeline import sweep
from gpuclust.tracking import recorder as tags
from tests.known_answers import BACKEND, gmm_curves, groups, hdbscan_curves, kmeans_curves, merged, moons, standardised

SIZES = range(1, 12)
SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [3, 5, 8])
def test_separated_groups_are_counted_by_a_kmeans_sweep(k: int, seed: int) -> None:
    found = verdict(kmeans_curves(groups(k, n_columns=2 + seed, n_rows=1000, seed=seed), SIZES))
    assert (found.kind, found.sizes) == (CLEAR, (k,)), found
    assert str(k) in found.text


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [3, 5])
def test_separated_groups_are_counted_by_a_mixture_sweep(k: int, seed: int) -> None:
    found = verdict(gmm_curves(groups(k, n_columns=2 + seed, n_rows=700, seed=seed), range(1, 9)))
    assert (found.kind, found.sizes) == (CLEAR, (k,)), found
    assert any("BIC" in line for line in found.because)


def test_eight_groups_by_both_algorithms() -> None:
    X = groups(8, n_columns=4, n_rows=1200, seed=0)
    found = verdict(merged(kmeans_curves(X, SIZES), gmm_curves(X, range(6, 11))))
    assert (found.kind, found.sizes) == (CLEAR, (8,)), found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n_columns", [1, 2, 3, 8])
def test_uniform_rows_have_no_natural_number(n_columns: int, seed: int) -> None:
    X = standardised(np.random.default_rng(seed).uniform(size=(1000, n_columns)))
    found = verdict(kmeans_curves(X, SIZES))
    assert (found.kind, found.sizes) == (NONE, ()), found
    assert found.text.startswith("No natural number of clusters")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n_columns", [1, 2, 3, 8])
def test_one_gaussian_of_any_shape_has_none(n_columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = standardised(rng.normal(size=(1000, n_columns)) @ rng.normal(size=(n_columns, n_columns)))
    assert verdict(kmeans_curves(X, SIZES)).kind == NONE


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_mixtures_find_none_where_there_is_none(draw: str) -> None:
    for seed in range(2):
        X = standardised(getattr(np.random.default_rng(seed), draw)(size=(600, 3)))
        found = verdict(merged(kmeans_curves(X, range(2, 8)), gmm_curves(X, range(1, 6))))
        assert found.kind == NONE, found


@pytest.mark.parametrize("seed", range(2))
def test_the_gap_agrees_with_what_is_known(seed: int) -> None:
    X = groups(4, n_columns=3, n_rows=500, seed=seed)
    gap = gap_statistic(X, [8], n_references=5, seed=seed, backend=BACKEND)
    assert verdict({}, gap=gap).sizes == (4,)
    flat = standardised(np.random.default_rng(seed).uniform(size=(500, 3)))
    gap = gap_statistic(flat, [8], n_references=5, seed=seed, backend=BACKEND)
    assert verdict({}, gap=gap).kind == NONE


@pytest.mark.parametrize("seed", SEEDS)
def test_hdbscan_counts_two_moons_with_noise(seed: int) -> None:
    found = verdict(hdbscan_curves(moons(seed), [20, 40, 80, 160]))
    assert (found.kind, found.sizes) == (CLEAR, (2,)), found


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_hdbscan_names_nothing_on_a_single_cloud(draw: str) -> None:
    for seed in range(3):
        X = standardised(getattr(np.random.default_rng(seed), draw)(size=(1500, 2)))
        assert verdict(hdbscan_curves(X, [15, 25, 50, 100, 200])).kind == NONE


@pytest.mark.parametrize("seed", range(2))
def test_across_algorithms_hdbscan_is_preferred_on_two_moons(seed: int, context, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = swept(context, moons(seed), tmp_path, "cluster=kmeans,gmm,hdbscan", "cluster.n_clusters=2,3,4,5,6",
                   "cluster.min_cluster_size=25,50,100")  # fmt: skip
    assert result.chosen is not None
    by_silhouette = max(result.outcomes, key=lambda o: o.metrics["silhouette"])
    assert by_silhouette.job.config.cluster.name != "hdbscan", (
        "silhouette alone would be fair here, so this shows nothing"
    )
    assert result.chosen.job.config.cluster.name == "hdbscan"
    assert result.conclusion is not None
    assert result.conclusion.verdict.sizes == (2,)
    assert "HDBSCAN" in result.conclusion.verdict.text
    files = context.recorder.runs[result.parent].files
    assert {"verdict.json", "comparison.json"} <= files.keys()
    assert sum(name.startswith("contingency_") for name in files) == 3


def test_on_round_groups_the_algorithms_agree_and_silhouette_chooses(context, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    X = groups(3, n_columns=3, n_rows=600, seed=1)
    result = swept(
        context,
        X,
        tmp_path,
        "cluster=kmeans,hdbscan",
        "cluster.n_clusters=2,3,4,5",
        "cluster.min_cluster_size=20,40,80",
    )
    assert result.selection is not None
    assert result.selection.metric == "silhouette_with_noise"
    assert result.conclusion is not None
    assert (result.conclusion.verdict.kind, result.conclusion.verdict.sizes) == (CLEAR, (3,))


def swept(context, X: np.ndarray, folder: Path, *overrides: str) -> sweep.SweepResult:  # type: ignore[no-untyped-def]
    path = folder / "rows.csv"
    pd.DataFrame(X, columns=[f"f{j}" for j in range(X.shape[1])]).to_csv(path, index=False)
    p = plan(["data=table", f"data.path={path}", "report=none", *overrides], multirun=True)
    return sweep.run(p, sweep.jobs_of(p, context.backend), context)


def test_the_verdict_is_on_the_parent_run(context, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = swept(
        context, groups(3, n_columns=2, n_rows=400, seed=0), tmp_path, "cluster.n_clusters=2,3,4,5", "analysis.gap=3"
    )
    parent = context.recorder.runs[result.parent]
    assert result.conclusion is not None
    assert parent.tags[tags.VERDICT] == result.conclusion.verdict.text
    assert parent.tags["gpuclust.verdict_kind"] == CLEAR
    note = parent.tags["mlflow.note.content"]
    assert result.conclusion.verdict.text in note
    assert all(line in note for line in result.conclusion.verdict.because)
    assert parent.curves["curve/gap"].keys() == {1, 2, 3, 4, 5}
    assert {"verdict.json", "gap.json"} <= parent.files.keys()


# What the rules say of curves written by hand.


def points(values: dict[int, float]) -> list[tuple[float, float, float]]:
    return [(k, v, 0.0) for k, v in values.items()]


def test_bic_that_still_falls_and_a_low_silhouette_are_the_reasons() -> None:
    curves = {
        "bic": {"full": points({k: 1000 - 10 * k for k in range(1, 16)})},
        "icl": {"full": points({k: 1000 - 9 * k for k in range(1, 16)})},
        "silhouette": {"full": points({k: 0.2 - 0.001 * k for k in range(2, 16)})},
        "split_gain": {"full": points({k: 0.1 * k for k in range(2, 16)})},
    }
    found = verdict(curves)
    assert found.kind == NONE
    assert "BIC is still falling at the largest size (15 components)" in found.text
    assert "low, flat silhouette (max " in found.text


@pytest.mark.parametrize(("sizes", "advice"), [(range(2, 6), "extend the range to 2..10"), (range(4, 9), "2..8")])
def test_an_optimum_at_an_end_of_the_range_is_open(sizes: range, advice: str) -> None:
    sign = 1 if sizes[0] == 2 else -1
    curve = {k: 0.7 + sign * 0.03 * k for k in sizes}
    found = verdict({"silhouette": {"kmeans": points(curve)}, "split_gain": {"kmeans": points(curve)}})
    assert found.kind == OPEN
    assert "extend the range" in found.text
    assert advice in found.text


def test_several_are_named_when_figures_disagree() -> None:
    curves = {
        "silhouette": {"kmeans": points({2: 0.6, 3: 0.7, 4: 0.55, 5: 0.5})},
        "split_gain": {"kmeans": points({2: 1.0, 3: 1.5, 4: 1.2, 5: 1.1})},
        "bic": {"full": points({1: 100, 2: 90, 3: 80, 4: 70, 5: 75})},
        "icl": {"full": points({1: 100, 2: 91, 3: 82, 4: 72, 5: 79})},
    }
    curves["silhouette"]["full"] = points({2: 0.5, 3: 0.5, 4: 0.6, 5: 0.4})
    curves["split_gain"]["full"] = points({2: 1.0, 3: 1.1, 4: 1.4, 5: 1.2})
    found = verdict(curves)
    assert found.kind == SEVERAL
    assert set(found.sizes) == {3, 4}


def test_hdbscan_names_nothing_where_one_cluster_is_nearly_everything() -> None:
    sizes = (20, 40, 80)
    curves = {
        "relative_validity": {"hdbscan": points(dict.fromkeys(sizes, 0.5))},
        "n_clusters": {"hdbscan": points(dict.fromkeys(sizes, 2.0))},
        "noise_fraction": {"hdbscan": points(dict.fromkeys(sizes, 0.01))},
        "largest_fraction": {"hdbscan": points(dict.fromkeys(sizes, 0.6))},
    }
    assert verdict(curves).sizes == (2,)
    assert verdict(curves | {"largest_fraction": {"hdbscan": points(dict.fromkeys(sizes, 0.95))}}).kind == NONE


def test_an_elongated_cloud_cut_in_two_does_not_count_for_its_silhouette() -> None:
    curves = {
        "silhouette": {"kmeans": points({2: 0.62, 3: 0.58, 4: 0.56})},
        "split_gain": {"kmeans": points({2: 0.01, 3: -0.05, 4: -0.1})},
    }
    assert verdict(curves).kind == NONE


def test_a_prediction_strength_alone_is_never_clear() -> None:
    found = verdict({"prediction_strength": {"kmeans": points({2: 0.95, 3: 0.9, 4: 0.4})}})
    assert (found.kind, found.sizes) == (SEVERAL, (3,))


def test_a_prediction_strength_against_all_others_does_not_count() -> None:
    low = {
        "silhouette": {"kmeans": points({2: 0.19, 3: 0.2, 4: 0.18})},
        "split_gain": {"kmeans": points({2: 1, 3: 2, 4: 1})},
        "prediction_strength": {"kmeans": points({2: 0.95, 3: 0.9, 4: 0.4})},
    }
    assert verdict(low).kind == NONE
    assert verdict(low | {"silhouette": {"kmeans": points({2: 0.3, 3: 0.4, 4: 0.38})}}).sizes == (3,)


def test_two_sizes_are_too_few() -> None:
    found = verdict({"silhouette": {"kmeans": points({2: 0.6, 3: 0.7})}})
    assert (found.kind, found.sizes) == (OPEN, ())


def test_a_preference_against_strong_criteria_is_several() -> None:
    sizes = (25, 50, 100)
    curves = {
        "silhouette": {"kmeans": points({2: 0.6, 3: 0.7, 4: 0.5})},
        "split_gain": {"kmeans": points({2: 1, 3: 2, 4: 1})},
    }
    plateau = {
        "relative_validity": {"hdbscan": points(dict.fromkeys(sizes, 0.5))},
        "n_clusters": {"hdbscan": points(dict.fromkeys(sizes, 2.0))},
    }
    assert verdict(curves).sizes == (3,)
    preferred = Preferred("hdbscan x", 2, "because")
    found = verdict(curves | plateau, preferred=preferred)
    assert (found.kind, set(found.sizes)) == (SEVERAL, {2, 3})
    assert "because" in found.because
    assert verdict(plateau, preferred=preferred).kind == CLEAR
    assert verdict({}, preferred=preferred).kind != CLEAR


@pytest.mark.real
def test_the_public_study_has_no_natural_number(real_data: Path, context) -> None:  # type: ignore[no-untyped-def]
    """Seven 0..1 features of real tracks, five rescaled components: BIC has no minimum, and the verdict says so by itself.

    The full covariance alone, at every third size, to keep it short; the study itself runs 1..15 with all four types.
    """
    features = "danceability,energy,speechiness,acousticness,instrumentalness,liveness,valence"
    p = plan(
        ["data=tracks", f"data.path={real_data / 'tracks_114k.csv'}", f"data.features=[{features}]", "clean.duplicates=id",
         "scale=minmax", "reduce=pca", "reduce.n_components=5", "reduce.rescale=true", "score=quick", "report=none",
         "cluster=gmm", "cluster.n_clusters=1,4,7,10"], multirun=True,
    )  # fmt: skip
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert result.conclusion is not None
    assert result.conclusion.verdict.kind == NONE
    assert "BIC is still falling at the largest size (10 components)" in result.conclusion.verdict.text
    assert "low silhouette (max " in result.conclusion.verdict.text
