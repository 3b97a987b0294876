"""Agreement, matching, outside labels and noise against scikit-learn, pandas and brute force; the compare command."""

import csv
import dataclasses
import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import entropy as scipy_entropy
from sklearn import metrics as sk

from gpuclust.algorithms.cluster import canonical
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.hdbscan.predict import soft_membership
from gpuclust.analysis.comparison import compare, compare_all
from gpuclust.analysis.external_validation import compare_to_reference
from gpuclust.analysis.noise import assign_noise, noise_profile
from gpuclust.cli import main
from gpuclust.compare import compare_runs, write
from gpuclust.compose import plan
from gpuclust.errors import DataError, ExportError
from gpuclust.export import export, find_run
from gpuclust.metrics.agreement import agreement, contingency, expected_mutual_information, match, without_noise
from gpuclust.pipeline import sweep
from gpuclust.report.terminal import matching
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.matrix import Matrix
from gpuclust.tracking.mlflow import MlflowRecorder
from tests.fitting import fit_one
from tests.known_answers import groups

labelings = hnp.arrays(np.int32, st.shared(st.integers(2, 60), key="n"), elements=st.integers(-1, 4))


def assert_as_scikit_learn(first: np.ndarray, second: np.ndarray) -> None:
    found = agreement(contingency(first, second).table)
    # float64 sums of at most some hundred terms.
    assert found.ari == pytest.approx(sk.adjusted_rand_score(first, second), abs=1e-12)
    assert found.homogeneity == pytest.approx(sk.homogeneity_score(first, second), abs=1e-12)
    assert found.completeness == pytest.approx(sk.completeness_score(first, second), abs=1e-12)
    assert found.ami == pytest.approx(sk.adjusted_mutual_info_score(first, second), abs=1e-9)
    assert found.n_rows == len(first)


@settings(deadline=None)
@given(labelings, labelings)
def test_agreement_is_scikit_learns(first: np.ndarray, second: np.ndarray) -> None:
    # All rows alone on both sides: scikit-learn divides rounding errors there; the same partition is 1 here.
    if not len(np.unique(first)) == len(np.unique(second)) == len(first):
        assert_as_scikit_learn(first, second)


@pytest.mark.parametrize(("n", "k"), [(1000, 3), (20_000, 40), (300_000, 7)])
def test_agreement_of_large_labelings(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    first = rng.integers(-1, k, n)
    second = np.where(rng.uniform(size=n) < 0.3, rng.integers(-1, k + 2, n), first)
    assert_as_scikit_learn(first, second)


def test_expected_mutual_information_of_uneven_clusters() -> None:
    from sklearn.metrics.cluster import expected_mutual_information as theirs

    rng = np.random.default_rng(0)
    first = rng.choice(6, 5000, p=[0.9, 0.05, 0.03, 0.01, 0.007, 0.003])
    second = rng.choice(4, 5000, p=[0.5, 0.4, 0.09, 0.01])
    table = contingency(first, second).table
    found = expected_mutual_information(table.sum(axis=1), table.sum(axis=0))
    assert found == pytest.approx(theirs(table, 5000), rel=1e-9)


@given(labelings, labelings)
def test_the_contingency_table_is_pandas_crosstab(first: np.ndarray, second: np.ndarray) -> None:
    found = contingency(first, second)
    expected = pd.crosstab(first, second)
    assert sorted(found.first) == expected.index.tolist()
    np.testing.assert_array_equal(found.table, expected.loc[list(found.first), list(found.second)].to_numpy())
    assert found.first == tuple(sorted(found.first, key=lambda c: (c == -1, c))), "noise is the last line"
    kept = (first >= 0) & (second >= 0)
    assert without_noise(found).table.sum() == kept.sum()


@given(labelings, labelings)
def test_the_matching_shares_as_many_rows_as_any_other(first: np.ndarray, second: np.ndarray) -> None:
    counts = contingency(first, second)
    found = match(counts)
    ours, theirs = ([c for c in values if c != -1] for values in (counts.first, counts.second))
    assert sorted(m.first for m in found if m.first is not None) == sorted(ours)
    assert sorted(m.second for m in found if m.second is not None) == sorted(theirs)
    small, large = (ours, theirs) if len(ours) <= len(theirs) else (theirs, ours)
    a, b = (first, second) if small is ours else (second, first)
    best = max(
        (
            sum(int(((a == x) & (b == y)).sum()) for x, y in zip(small, chosen, strict=True))
            for chosen in permutations(large, len(small))
        ),
        default=0,
    )
    assert sum(m.shared for m in found) == best
    for m in found:
        if m.first is not None and m.second is not None:
            mine, their = first == m.first, second == m.second
            assert m.shared == (mine & their).sum() > 0
            assert m.jaccard == pytest.approx((mine & their).sum() / (mine | their).sum())


def test_a_renumbering_is_found_and_said_in_words() -> None:
    labels = np.array([0] * 50 + [1] * 30 + [-1] * 20)
    other = np.array([3] * 50 + [0] * 30 + [7] * 20)
    found = compare("hdbscan", labels, "gmm", other)
    assert found.in_words() == [
        "hdbscan 0 is gmm 3 (100% of the rows in either)",
        "hdbscan 1 is gmm 0 (100% of the rows in either)",
    ]
    assert found.without_noise.ari == found.without_noise.ami == 1.0
    assert found.without_noise.n_rows == 80
    assert found.with_noise.ari == 1.0
    lines = list(csv.reader(found.to_csv().splitlines()))
    assert lines[0] == ["hdbscan \\ gmm", "0", "3", "7", "total"]
    assert lines[-2] == ["noise", "0", "0", "20", "20"]
    assert lines[-1] == ["total", "30", "50", "20", "100"]
    assert [m.second for m in found.matches] == [3, 0, 7]


def test_different_rows_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="same table"):
        compare("a", np.zeros(3, int), "b", np.zeros(4, int))


def test_every_pair_in_order() -> None:
    named = {name: np.array([0, 1, i % 2]) for i, name in enumerate("abc")}
    assert [(c.first, c.second) for c in compare_all(named)] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_an_outside_label_by_hand() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, 400).astype(np.int32)
    centers = np.array([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0]])
    # Half of the rows have two genres; the codes are laid flat, as for list-valued columns.
    rows = np.sort(np.concatenate([np.arange(400), np.arange(0, 400, 2)]))
    codes = rng.integers(0, 5, len(rows))
    codes[labels[rows] == 0] %= 2
    values = list("abcde")
    found = compare_to_reference(labels, centers, codes=codes, rows=rows, values=values, column="genre")
    own = labels[rows]
    assert found.n_values == 600
    assert found.ami == pytest.approx(sk.adjusted_mutual_info_score(codes, own), abs=1e-9)
    assert found.homogeneity == pytest.approx(sk.homogeneity_score(codes, own), abs=1e-12)
    inside = own >= 0
    assert found.ami_without_noise == pytest.approx(sk.adjusted_mutual_info_score(codes[inside], own[inside]), abs=1e-9)
    squares = ((centers[:, None] - centers[None]) ** 2).sum(axis=2)
    at_large = squares[np.ix_(own[inside], own[inside])].mean()
    for g in found.groups:
        mine = own[inside & (codes == values.index(g.value))]
        assert g.size == len(mine)
        assert g.entropy == pytest.approx(scipy_entropy(np.bincount(mine, minlength=3)))
        assert g.evenness == pytest.approx(g.entropy / np.log(3))
        assert g.spread == pytest.approx(squares[np.ix_(mine, mine)].mean() / at_large)
        assert g.main_share == pytest.approx(np.bincount(mine).max() / len(mine))
    assert [g.spread for g in found.groups] == sorted((g.spread for g in found.groups), reverse=True)
    whole = scipy_entropy(np.bincount(codes[inside]))
    for c in found.clusters:
        mine = codes[own == c.cluster]
        assert c.coherence == pytest.approx(1 - scipy_entropy(np.bincount(mine)) / whole)
        assert c.top_share == pytest.approx(np.bincount(mine).max() / len(mine))
    # Cluster 0 has two of five genres: the most coherent, so the last.
    assert found.clusters[-1].cluster == 0
    assert found.least_coherent == min(found.clusters, key=lambda c: c.coherence).cluster
    assert found.unrelated == tuple(g.value for g in found.groups if g.spread >= 1 and g.size >= 20)
    json.dumps(found.to_dict())


def hdbscan_with_noise() -> tuple[np.ndarray, object]:
    rng = np.random.default_rng(0)
    X = np.concatenate([groups(3, n_columns=2, n_rows=400, seed=0), rng.uniform(-3, 3, (60, 2))]).astype(np.float32)
    backend, request = CpuBackend(), HdbscanConfig(min_cluster_size=40)
    fit = fit_one(X, request)
    matrix = Matrix(X, np.zeros((len(X), 3), np.float32), None, "m", 0.0)  # type: ignore[arg-type]
    return X, canonical(fit, request, matrix, backend, 0.0)


def test_assign_noise_gives_noise_rows_a_cluster_and_keeps_the_labels() -> None:
    X, clustering = hdbscan_with_noise()
    labels = clustering.labels.copy()
    noise = labels == -1
    assert 0.02 < noise.mean() < 0.5
    found = assign_noise(clustering.labels, clustering.confidence, clustering.parameters, soft_membership)
    np.testing.assert_array_equal(clustering.labels, labels)
    np.testing.assert_array_equal(found.cluster[~noise], labels[~noise])
    np.testing.assert_array_equal(found.confidence[~noise], clustering.confidence[~noise])
    assert (found.cluster[noise] >= 0).all()
    assert ((found.confidence[noise] >= 0) & (found.confidence[noise] <= 1)).all()
    # The whole table's soft membership, of which the assign_noise computes the noise alone.
    everyone, membership = soft_membership(clustering.parameters)
    np.testing.assert_array_equal(found.cluster[noise], clustering.parameters["canonical"][everyone[noise]])
    np.testing.assert_array_equal(found.confidence[noise], membership[noise])
    # Rows go to the cluster whose members are near: for most rows that of the nearest clustered row.
    distances = ((X[noise][:, None] - X[~noise][None]) ** 2).sum(axis=2)
    nearest = labels[~noise][distances.argmin(axis=1)]
    assert (found.cluster[noise] == nearest).mean() > 0.8

    raw = X.astype(np.float64)
    described = noise_profile(labels, found, raw=raw, features=("a", "b"))
    assert described.size == noise.sum()
    frame = pd.DataFrame(raw, columns=["a", "b"])
    for feature in ("a", "b"):
        z = (frame[feature][noise].mean() - frame[feature].mean()) / frame[feature].std(ddof=0)
        assert described.z[feature] == pytest.approx(z)
        assert described.spread[feature] == pytest.approx(
            frame[feature][noise].std(ddof=0) / frame[feature].std(ddof=0)
        )
    assert sum(rows for rows, _ in described.destinations.values()) == noise.sum()
    json.dumps(described.to_dict())


@pytest.fixture
def tracked(context, uri: str):  # type: ignore[no-untyped-def]
    return dataclasses.replace(context, recorder=MlflowRecorder(uri, "e"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    X = groups(3, n_columns=2, n_rows=300, seed=0)
    frame = pd.DataFrame(X, columns=["a", "b"])
    frame.insert(0, "id", [f"t{i}" for i in range(len(frame))])
    frame["genre"] = np.random.default_rng(0).choice(["rock", "jazz", "folk"], len(frame))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "rows.csv"


def ran(context, path: Path, *overrides: str) -> dict[str, str]:  # type: ignore[no-untyped-def]
    """Run a job or a sweep; run ids by job name."""
    base = ["data=table", f"data.path={path}", "data.features=[a,b]", "data.roles.group=genre", "report=none"]
    p = plan([*base, *overrides], multirun=True)
    return {o.job.name: o.run_id for o in sweep.run(p, sweep.jobs_of(p, context.backend), context).outcomes}


def test_runs_are_compared_from_the_store_and_written(tracked, table: Path, tmp_path: Path, uri: str, capsys) -> None:  # type: ignore[no-untyped-def]
    ids = ran(tracked, table, "cluster.n_clusters=3,4") | ran(
        tracked, table, "cluster=hdbscan", "cluster.min_cluster_size=20"
    )
    found = compare_runs(list(ids.values()), recorder=tracked.recorder, context=tracked)
    assert list(found.runs) == ["kmeans k=3", "kmeans k=4", "hdbscan min_cluster_size=20"]
    assert found.n_rows == 300
    assert len(found.comparisons) == 3
    out = write(found, tmp_path / "compared")
    rows = pd.read_csv(out / "comparison.csv")
    assert rows["ami"].tolist() == [c.with_noise.ami for c in found.comparisons]
    matches = pd.read_csv(out / "matches_kmeans_k=3_by_hdbscan_min_cluster_size=20.csv")
    assert len(matches) == 3
    assert matches["jaccard"].min() > 0.8
    assert (out / "contingency_kmeans_k=3_by_kmeans_k=4.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ExportError, match="exists"):
        write(found, out)
    arguments = ["compare", *list(ids.values())[1:], "--uri", uri, "--experiment", "e", "--backend", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "second")]) == 0
    printed = capsys.readouterr().out
    assert "AMI" in printed
    assert "kmeans k=4" in printed
    assert "Jaccard" in printed
    assert (tmp_path / "second" / "comparison.json").is_file()
    assert main(arguments[:2]) == 2


def test_runs_that_were_cleaned_differently_are_matched_by_id(tracked, table: Path) -> None:  # type: ignore[no-untyped-def]
    ids = list(ran(tracked, table, "cluster.n_clusters=3").values())
    ids += ran(tracked, table, "cluster.n_clusters=3", "clean.bounds.a=[-1.0,null]").values()
    found = compare_runs(ids, recorder=tracked.recorder, context=tracked)
    kept = int((pd.read_csv(table)["a"] >= -1.0).sum())
    assert found.n_rows == kept < 300
    assert "cleaned differently" in found.notes[0]
    assert [name.startswith("kmeans k=3 (") for name in found.runs] == [True, True]
    with pytest.raises(ExportError, match="named twice"):
        compare_runs([ids[0], ids[0]], recorder=tracked.recorder, context=tracked)
    with pytest.raises(ExportError, match="two runs"):
        compare_runs(ids[:1], recorder=tracked.recorder, context=tracked)


def repeated(path: Path) -> Path:
    """The same table with every id on three rows, and the ids of the first rows missing."""
    frame = pd.read_csv(path)
    frame["id"] = [f"t{i // 3}" for i in range(len(frame))]
    frame.loc[:4, "id"] = None
    frame.to_csv(path, index=False)
    return path


def test_rows_with_repeated_ids_are_matched_by_their_place_in_the_file(tracked, table: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    frame = pd.read_csv(repeated(table))
    ids = [*ran(tracked, table, "cluster.n_clusters=3").values(),
           *ran(tracked, table, "cluster.n_clusters=4", "clean.bounds.a=[-1.0,null]").values(),
           *ran(tracked, table, "cluster.n_clusters=3", "data.n_rows=200", "data.seed=3").values()]  # fmt: skip
    exports = [
        export(find_run(tracked.recorder, run_id), tmp_path / run_id, recorder=tracked.recorder, context=tracked).folder
        for run_id in ids
    ]
    # An export keeps the features of its rows, which tell the rows of this table apart.
    labels = [pd.read_parquet(folder / "assignments.parquet").set_index(["a", "b"])["cluster"] for folder in exports]
    first, second, third = (one.rename(i) for i, one in enumerate(labels))
    found = compare_runs(ids[:2], recorder=tracked.recorder, context=tracked)
    kept = pd.concat([first, second], axis=1, join="inner")
    assert found.n_rows == len(kept) == (frame["a"] >= -1.0).sum() < 300
    assert found.comparisons[0].with_noise.ami == pytest.approx(
        sk.adjusted_mutual_info_score(kept[0], kept[1]), abs=1e-9
    )
    found = compare_runs(ids, recorder=tracked.recorder, context=tracked)
    kept = pd.concat([first, second, third], axis=1, join="inner")
    assert found.n_rows == len(kept) < 200
    for comparison, (a, b) in zip(found.comparisons, [(0, 1), (0, 2), (1, 2)], strict=True):
        assert comparison.with_noise.ari == pytest.approx(sk.adjusted_rand_score(kept[a], kept[b]), abs=1e-12)


def test_exports_are_compared_without_a_store(
    tracked, table: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    repeated(table)
    ids = [*ran(tracked, table, "cluster.n_clusters=3,4").values(),
           *ran(tracked, table, "cluster.n_clusters=3", "clean.bounds.a=[-1.0,null]").values()]  # fmt: skip
    one, two, three = (
        export(find_run(tracked.recorder, i), tmp_path / i, recorder=tracked.recorder, context=tracked).folder
        for i in ids
    )
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["compare", str(one), str(two), "--out", str(tmp_path / "both")]) == 0
    printed = capsys.readouterr().out
    labels = [pd.read_parquet(folder / "assignments.parquet")["cluster"].to_numpy() for folder in (one, two)]
    (comparison,) = compare_runs(ids[:2], recorder=tracked.recorder, context=tracked).comparisons
    assert comparison.with_noise.ami == pytest.approx(sk.adjusted_mutual_info_score(*labels), abs=1e-9)
    assert f"{comparison.with_noise.ami:.4f}" in printed
    lines = [line.split() for line in printed.splitlines()]
    for m in comparison.matches:
        first, second = ("-" if c is None else str(c) for c in (m.first, m.second))
        if "-" in (first, second):
            assert [first, second] in lines
            continue
        mine, theirs = labels[0] == m.first, labels[1] == m.second
        shares = [mine.sum(), theirs.sum(), (mine | theirs).sum()]
        assert [first, second, f"{m.shared:,}", *(f"{m.shared / n:.1%}" for n in shares)] in lines
    assert not list((tmp_path / "empty").iterdir())
    written = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert list(written["runs"].values()) == ids[:2]
    # Fewer rows, and ids that repeat: only the runs know which row is which.
    assert main(["compare", str(one), str(three)]) == 2
    err = capsys.readouterr().err
    assert "rows with the same id" in err
    assert f"gpuclust compare {ids[0]} {ids[2]}" in err


def test_an_export_that_was_changed_is_not_compared(tracked, table: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ids = list(ran(tracked, table, "cluster.n_clusters=3,4").values())
    one, two = (
        export(find_run(tracked.recorder, i), tmp_path / i, recorder=tracked.recorder, context=tracked).folder
        for i in ids
    )
    found = compare_runs([str(one), ids[1]], recorder=tracked.recorder, context=tracked)
    (again,) = compare_runs(ids, recorder=tracked.recorder, context=tracked).comparisons
    assert found.comparisons[0].to_dict() == again.to_dict()
    other = tmp_path / "other.csv"
    pd.read_csv(table).assign(a=lambda f: f["a"] + 1).to_csv(other, index=False)
    (run_id,) = ran(tracked, other, "cluster.n_clusters=3").values()
    moved = export(
        find_run(tracked.recorder, run_id), tmp_path / "x", recorder=tracked.recorder, context=tracked
    ).folder
    with pytest.raises(ExportError, match="different tables"):
        compare_runs([str(one), str(moved)], recorder=None, context=tracked)
    (two / "clusters.parquet").write_bytes(b"")
    with pytest.raises(ExportError, match="was changed since its export"):
        compare_runs([str(one), str(two)], recorder=None, context=tracked)


def test_noise_is_in_the_matching() -> None:
    labels, other = np.array([0] * 50 + [1] * 30 + [-1] * 20), np.array([0] * 45 + [-1] * 15 + [1] * 20 + [-1] * 20)
    table = matching(compare("one", labels, "two", other))
    columns = [list(column.cells) for column in table.columns]
    assert [list(row) for row in zip(*columns, strict=True)] == [
        ["0", "0", "45", "90.0%", "100.0%", "90.0%"],
        ["1", "1", "20", "66.7%", "100.0%", "66.7%"],
        ["noise", "noise", "20", "100.0%", "57.1%", "57.1%"],
    ]
    many = np.arange(100)
    assert matching(compare("one", many, "two", many)).row_count == 41


def test_runs_of_different_tables_cannot_be_compared(tracked, table: Path) -> None:  # type: ignore[no-untyped-def]
    ids = list(ran(tracked, table, "cluster.n_clusters=3").values())
    p = plan(["data.n_rows=300", "report=none", "cluster.n_clusters=3"])
    (other,) = sweep.run(p, sweep.jobs_of(p, tracked.backend), tracked).outcomes
    with pytest.raises(ExportError, match="different tables"):
        compare_runs([*ids, other.run_id], recorder=tracked.recorder, context=tracked)
