"""The choice of a job and its reason."""

import pytest

from gpuclust.analysis.selection import (
    Candidate,
    Optimum,
    Selection,
    Unranked,
    better,
    default_metric,
    knee,
    optimum,
    prefer_hdbscan,
    requirements,
    select,
    select_across,
)
from gpuclust.metrics.validity import HIGHER_IS_BETTER


def candidates(metric: str, *values: float, algorithm: str = "kmeans") -> list[Candidate]:
    return [Candidate(f"job {i}", algorithm, {metric: v, "n_clusters": i + 2}) for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("algorithms", "metric"),
    [
        (["kmeans"], "silhouette"),
        (["gmm", "gmm"], "bic"),
        (["hdbscan"], "relative_validity"),
        (["kmeans", "gmm"], "silhouette"),
        (["kmeans", "hdbscan"], "silhouette_with_noise"),
    ],
)
def test_the_metric_that_chooses_by_default(algorithms: list[str], metric: str) -> None:
    assert default_metric(algorithms) == metric


@pytest.mark.parametrize("metric", HIGHER_IS_BETTER)
def test_the_best_is_the_highest_or_the_lowest(metric: str) -> None:
    found = select(candidates(metric, 1.0, 3.0, 2.0), metric)
    assert found is not None
    assert found.index == (1 if HIGHER_IS_BETTER[metric] else 0)
    assert better(metric, 2.0, 1.0) == HIGHER_IS_BETTER[metric]
    assert f"job {found.index} has the {'highest' if HIGHER_IS_BETTER[metric] else 'lowest'}" in found.reason
    assert "next is job 2" in found.reason


def test_ties_go_to_fewer_clusters() -> None:
    jobs = [Candidate("b", "kmeans", {"silhouette": 0.5, "n_clusters": 9}),
            Candidate("a", "kmeans", {"silhouette": 0.5, "n_clusters": 3})]  # fmt: skip
    found = select(jobs)
    assert found is not None
    assert found.index == 1


def test_jobs_without_the_metric_are_left_out_and_counted() -> None:
    jobs = [*candidates("silhouette", 0.1, 0.2), Candidate("one cluster", "kmeans", {"n_clusters": 1})]
    found = select(jobs)
    assert found is not None
    assert found.index == 1
    assert found.reason.endswith("; one cluster found fewer than two clusters and is not ranked")
    unmeasured = Candidate("no score", "kmeans", {"n_clusters": 4})
    other = select([*jobs, unmeasured])
    assert other is not None
    assert other.reason.endswith("; 2 jobs without silhouette were not compared")


def test_what_was_not_measured_is_replaced_and_said() -> None:
    found = select(candidates("calinski_harabasz", 10.0, 20.0))
    assert found is not None
    assert (found.index, found.metric) == (1, "calinski_harabasz")
    assert "silhouette was not measured" in found.reason


def test_only_what_satisfies_the_requirements_is_chosen() -> None:
    jobs = [
        Candidate(f"job {i}", "hdbscan", {"silhouette_with_noise": s, "noise_fraction": noise, "n_clusters": 4})
        for i, (s, noise) in enumerate([(0.5, 0.6), (0.3, 0.2), (0.4, 0.29)])
    ]
    found = select_across(jobs, "silhouette_with_noise", requirements(["noise_fraction < 0.3", "n_clusters>=4"]))
    assert isinstance(found, Selection)
    assert found.index == 2
    assert found.reason.endswith("; 1 job does not satisfy noise_fraction<0.3, n_clusters>=4")
    everything = select_across(jobs, "silhouette_with_noise", requirements(["n_clusters=4"]))
    assert isinstance(everything, Selection)
    assert everything.index == 0
    assert "satisfy" not in everything.reason
    none = select_across(jobs, "auto", requirements(["noise_fraction<=0.1", "dbcw>0"]))
    assert isinstance(none, Unranked)
    assert none.best == ()
    assert (
        "none satisfies noise_fraction<=0.1, dbcw>0 (noise fraction is 0.2 to 0.6; no job has the metric dbcw"
        in none.reason
    )


def test_the_requirements_hold_in_each_space() -> None:
    jobs = [
        Candidate(f"{space}{i}", "kmeans", {"silhouette": s, "n_clusters": i}, space, f"scale={space}")
        for space in "ab"
        for i, s in ((2, 0.9), (3, 0.5), (4, 0.6))
    ]
    found = select_across(jobs, "silhouette", requirements(["n_clusters>2"]))
    assert isinstance(found, Unranked)
    assert found.best == (2, 5)


def test_nothing_to_choose_from() -> None:
    assert select([]) is None


def test_a_cluster_of_nearly_everything_is_no_structure_to_prefer() -> None:
    others = [Candidate("kmeans k=2", "kmeans", {"n_clusters": 2})]
    validity, same = {"hdbscan": 0.1, "kmeans k=2": -0.9}, {"kmeans k=2": 0.1}

    def density(largest: float) -> Candidate:
        return Candidate("hdbscan", "hdbscan", {"n_clusters": 2, "noise_fraction": 0.0, "largest_fraction": largest})

    assert prefer_hdbscan(density(0.6), others, validity, same) is not None
    assert prefer_hdbscan(density(0.957), others, validity, same) is None


def points(values: dict[int, float]) -> list[tuple[float, float, float]]:
    return [(k, v, 0.0) for k, v in values.items()]


def test_a_density_is_preferred_only_on_every_condition() -> None:
    density = Candidate("h", "hdbscan", {"n_clusters": 2, "noise_fraction": 0.1})
    others = [Candidate("k", "kmeans", {}), Candidate("g", "gmm", {})]
    validity, same = {"h": 0.02, "k": -0.9, "g": -0.5}, {"k": 0.4, "g": 0.5}
    reason = prefer_hdbscan(density, others, validity, same)
    assert reason is not None
    assert "k -0.90, g -0.50" in reason
    assert "10% of the rows are noise" in reason
    assert prefer_hdbscan(density, others, validity | {"g": 0.1}, same) is None, "another does not cut through density"
    assert prefer_hdbscan(density, others, validity | {"h": -0.1}, same) is None, "it cuts through density itself"
    assert prefer_hdbscan(density, others, validity, same | {"g": 0.95}) is None, "another found the same groups"
    assert prefer_hdbscan(density, [], validity, same) is None
    noisy = Candidate("h", "hdbscan", {"n_clusters": 2, "noise_fraction": 0.3})
    assert prefer_hdbscan(noisy, others, validity, same) is None
    single = Candidate("h", "hdbscan", {"n_clusters": 1, "noise_fraction": 0.1})
    assert prefer_hdbscan(single, others, validity, same) is None


@pytest.mark.parametrize("at", [3, 4, 6])
def test_the_knee_of_two_straight_lines_is_where_they_meet(at: int) -> None:
    curve = points({k: 100.0 - 20 * min(k, at) - 0.5 * max(k - at, 0) for k in range(1, 11)})
    assert knee(curve) == at
    assert knee(curve[::-1]) == at, "the order of the points does not matter"


def test_no_knee() -> None:
    assert knee(points({2: 10.0, 3: 5.0})) is None, "two points"
    assert knee(points({2: 1.0, 3: 2.0, 4: 3.0})) is None, "it rises"
    assert knee(points({k: 10.0 - k for k in range(1, 9)})) is None, "a straight line"


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("bic", {1: 30, 2: 20, 3: 10}, Optimum(3, 10, True)),
        ("bic", {1: 30, 2: 20, 3: 25}, Optimum(2, 20, False)),
        ("silhouette", {2: 0.3, 3: 0.5, 4: 0.5}, Optimum(3, 0.5, False)),
        ("bic", {}, None),
    ],
)
def test_optimum_of_a_line_and_whether_it_is_at_the_end(
    metric: str, values: dict[int, float], expected: Optimum | None
) -> None:
    assert optimum(metric, points(values)) == expected
