"""The parity card: small jobs of each algorithm, on the backends of this machine and in a file of another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuclust import parity
from gpuclust.algorithms.registry import algorithms
from gpuclust.cli import main
from gpuclust.errors import DataError
from gpuclust.parity import CaseResult, ParityCard, compare, load, save
from gpuclust.runtime.cpu import CpuBackend

CASES = parity.cases()
FEW = ("hdbscan", "kmeans engine=fused", "kmeans after PCA")


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """Three of the cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "cases", lambda: {name: CASES[name] for name in FEW})
        yield


@pytest.fixture(scope="module")
def card(few: None) -> ParityCard:
    """The card of the CPU alone."""
    return ParityCard([parity.run_backend(CpuBackend())], missing="no CUDA device is visible")


@pytest.fixture
def saved(card: ParityCard, tmp_path: Path) -> Path:
    """Its results in a file."""
    save(card, tmp_path / "cpu.json")
    return tmp_path / "cpu.json"


def test_every_algorithm_with_both_backends_has_a_case_for_each_engine() -> None:
    both = [name for name, algorithm in algorithms().items() if {"cpu", "gpu"} <= algorithm.fit.keys()]
    assert {"kmeans", "gmm", "hdbscan"} <= set(both)
    for name in both:
        engines = {getattr(config.cluster, "engine", None) for config in CASES.values() if config.cluster.name == name}
        chosen = any(f.name == "engine" for f in fields(algorithms()[name].config))
        assert engines == ({"auto", "library", "fused"} if chosen else {None})


def test_the_cases_find_the_groups_and_some_rows_on_borders(card: ParityCard) -> None:
    truth = np.arange(parity.N_ROWS) % parity.N_GROUPS
    for name, case in card.here[0].cases.items():
        assert case.repeats
        assert case.metrics["n_clusters"] == parity.N_GROUPS
        same = np.mean([np.bincount(truth[case.labels == label]).max() for label in range(parity.N_GROUPS)])
        share = same * parity.N_GROUPS / parity.N_ROWS
        assert 0.5 < share < 1.0, name  # noise, and rows that a change of a centre moves


def test_all_machines_cluster_the_same_rows() -> None:
    assert parity._digest() == "2b9c8e783fdcaf1e"


def test_a_file_holds_the_results(card: ParityCard, saved: Path) -> None:
    (found,) = load(saved)
    assert (found.backend, found.device) == ("cpu", CpuBackend().device)
    for name, case in found.cases.items():
        np.testing.assert_array_equal(case.labels, card.here[0].cases[name].labels)
        assert case.metrics == card.here[0].cases[name].metrics


def test_the_same_results_agree_and_each_tolerance_has_a_reason(card: ParityCard, saved: Path) -> None:
    whole = replace(card, others=load(saved))
    assert whole.failures == []
    ((_, _, figures),) = whole.pairs
    assert {f.case for f in figures} == set(FEW)
    assert {"labels", "n_clusters", "silhouette"} <= {f.figure for f in figures if f.case == "hdbscan"}
    assert {"inertia", "explained_variance"} <= {f.figure for f in figures if f.case == "kmeans after PCA"}
    assert all(f.agrees and len(f.tolerance.reason.split()) > 3 for f in figures)
    text = "\n".join(whole.lines())
    assert "every value is within its tolerance" in text
    assert all(reason in text for reason in {f.tolerance.reason for f in figures})


def changed(card: ParityCard, case: str, **what: Any) -> list[str]:
    """The figures of a case that are out of tolerance where the other machine's result of it has changed."""
    ours = card.here[0]
    theirs = replace(ours, cases={**ours.cases, case: replace(ours.cases[case], **what)})
    assert all(f.agrees for f in compare(ours, theirs) if f.case != case)
    return [f.figure for f in compare(ours, theirs) if not f.agrees]


def test_what_is_out_of_tolerance_is_found(card: ParityCard) -> None:
    case = card.here[0].cases["kmeans engine=fused"]
    labels, rows = case.labels, np.arange(parity.N_ROWS)
    moved = np.where(rows % 100 == 0, (labels + 1) % parity.N_GROUPS, labels)  # one row in a hundred
    assert changed(card, "kmeans engine=fused", labels=moved) == ["labels"]
    assert changed(card, "kmeans engine=fused", labels=(labels + 1) % parity.N_GROUPS) == []  # other numbers
    few = np.where(rows % 3000 == 0, (labels + 1) % parity.N_GROUPS, labels)
    assert changed(card, "kmeans engine=fused", labels=few) == []
    for metric, factor in {"inertia": 1.001, "silhouette": 1.01, "davies_bouldin": 0.99, "n_clusters": 1.2}.items():
        metrics = {**case.metrics, metric: case.metrics[metric] * factor}
        assert changed(card, "kmeans engine=fused", metrics=metrics) == [metric]
    of_tree = card.here[0].cases["hdbscan"]
    assert changed(card, "hdbscan", labels=np.where(rows % 20 == 0, -1, of_tree.labels)) == ["labels"]


def test_cases_that_fail_or_do_not_repeat_are_failures(card: ParityCard) -> None:
    ours = card.here[0]
    failed = CaseResult(np.empty(0, np.int32), {}, error="K-Means failed on the GPU: two words")
    broken = {"hdbscan": failed, "kmeans engine=fused": replace(ours.cases["kmeans engine=fused"], repeats=False)}
    theirs = replace(ours, backend="gpu", cases={**ours.cases, **broken})
    whole = ParityCard([ours, theirs])
    assert whole.failures == [
        "hdbscan failed on the gpu: K-Means failed on the GPU: two words",
        "kmeans engine=fused gave different labels in a second run on the gpu",
    ]
    assert "hdbscan" not in {f.case for f in compare(ours, theirs)}


def test_the_command_compares_with_a_file(
    card: ParityCard, saved: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(parity, "run_backend", lambda backend, report: card.here[0])
    monkeypatch.setattr(parity, "probe_gpu", lambda: "no CUDA device is visible")
    assert main(["doctor", "--parity", "--save", str(tmp_path / "b.json")]) == 0
    out = capsys.readouterr().out
    assert "gpu  not used: no CUDA device is visible" in out
    assert "nothing to compare with" in out
    assert load(tmp_path / "b.json")[0].cases.keys() == set(FEW)
    assert main(["doctor", "--parity", "--with", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compared"][0]["figures"][0]["agrees"] is True
    content = json.loads(saved.read_text())
    content["backends"][0]["cases"]["hdbscan"]["metrics"]["n_clusters"] = 6
    saved.write_text(json.dumps(content))
    assert main(["doctor", "--parity", "--with", str(saved)]) == 1
    assert "hdbscan: n_clusters of cpu and cpu is out of its tolerance" in capsys.readouterr().out


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: [],
        lambda c: c | {"table": "of other rows"},
        lambda c: c | {"format": 2},
        lambda c: {k: v for k, v in c.items() if k != "backends"},
        lambda c: c | {"backends": [{"backend": "gpu"}]},
        lambda c: c["backends"][0]["cases"]["hdbscan"].update(labels="no base64!") or c,
        lambda c: c["backends"][0]["cases"]["hdbscan"].update(labels="eJwDAAAAAAE=") or c,
        lambda c: c["backends"][0]["cases"]["hdbscan"].update(metrics={"inertia": "much"}) or c,
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(saved: Path, spoil: Any) -> None:
    saved.write_text(json.dumps(spoil(json.loads(saved.read_text()))))
    with pytest.raises(DataError, match=r"cpu.json (holds no|has) results"):
        load(saved)


def test_a_file_that_is_none_is_refused(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.json").write_bytes(b"\x00\xff")
    assert main(["doctor", "--parity", "--with", str(tmp_path / "a.json")]) == 2
    assert main(["doctor", "--parity", "--with", str(tmp_path / "none.json")]) == 2
    assert main(["doctor", "--save", str(tmp_path / "b.json")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "belong to gpuclust doctor --parity" in lines[2]
