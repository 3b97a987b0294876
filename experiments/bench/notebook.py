"""A complete study of 114,000 tracks: scaling, K-Means with k = 2 to 10 and ten starts, silhouettes, PCA and a profile.

    python experiments/bench/notebook.py            # about three minutes on two cores

Ours is one command in its own process. Its time includes starting Python, imports, reading and cleaning the CSV, fits, exact
silhouettes, indices, profiles, figures, pages, a model, and logging to MLflow on SQLite (in an existing store). It runs in float64,
as the other side does, and once more in the default float32. The other side is the same study as in a notebook, with pandas
and scikit-learn, in this process and without its imports: read, scale, fit, score, project, profile. It makes no figure and stores
nothing.

The other side is measured completely except for the silhouettes, as scikit-learn's nine exact scores take most of an hour. For each
labelling, scikit-learn's functions (`pairwise_distances_chunked` and the reduction of `silhouette_samples`) score the first rows
against all others. The work is the same for each row, so the time is multiplied by rows / rows scored; it is marked as scaled
here and in the JSON.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from common import FEATURES, TRACKS, generated, heading, write
from silhouette import scikit_learn_rows
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from gpuclust.metrics.silhouette.score import silhouette
from gpuclust.tracking.mlflow import MlflowRecorder

SIZES = range(2, 11)
STARTS = 10
SCORED_ROWS = 500  # of each labelling
TARGET = 20  # times
WORSE = 1.0005  # the largest inertia allowed, as a multiple of scikit-learn's
REPEATS = 2  # of ours; the other side is measured once, between them
COLUMNS = FEATURES[11]


def table(folder: Path) -> tuple[Path, str]:
    """The CSV of the study; generated where the real tracks are not in the folder beside the checkout."""
    if TRACKS.exists():
        return TRACKS, "real tracks, 114,000 rows × 11 features"
    path = folder / "generated.csv"
    pd.DataFrame(generated(114_000, len(COLUMNS)), columns=COLUMNS).to_csv(path, index_label="track_id")
    return path, "GENERATED rows, 114,000 × 11 (the real tracks are not beside this checkout)"


def ours(path: Path, uri: str, experiment: str, dtype: str) -> float:
    """Seconds of the command."""
    command = [sys.executable, "-m", "gpuclust", "-m", "data=table", f"data.path={path}",
               f"data.features=[{','.join(COLUMNS)}]", "data.roles.id=track_id", f"dtype={dtype}", "cluster=kmeans",
               f"cluster.n_clusters=range({SIZES.start},{SIZES.stop})", f"cluster.n_init={STARTS}",
               f"tracking.uri={uri}", f"tracking.experiment={experiment}"]  # fmt: skip
    if TRACKS.exists():
        command += ["data.roles.group=track_genre"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return seconds


def recorded(uri: str, experiment: str) -> dict[int, dict[str, float]]:
    """The metrics of each k, from MLflow."""
    found = {int(job.metrics["n_clusters"]): dict(job.metrics) for job in MlflowRecorder(uri, experiment).jobs()}
    assert sorted(found) == list(SIZES), sorted(found)
    return found


def theirs(path: Path) -> tuple[dict[str, float], np.ndarray, dict[int, Any]]:
    """Seconds of each step of the notebook, the scaled matrix, and the models by k."""
    seconds: dict[str, float] = {}
    began = time.perf_counter()

    def lap(step: str) -> None:
        nonlocal began
        now = time.perf_counter()
        seconds[step] = seconds.get(step, 0.0) + now - began
        began = now

    frame = pd.read_csv(path)
    lap("read")
    X = StandardScaler().fit_transform(frame[COLUMNS])
    lap("scale")
    models = {}
    for k in SIZES:
        models[k] = KMeans(n_clusters=k, n_init=STARTS, random_state=0).fit(X)
    lap("kmeans")
    for k in SIZES:
        scikit_learn_rows(X, models[k].labels_, SCORED_ROWS)
    lap("silhouette_scaled")
    seconds["silhouette_scaled"] *= len(X) / SCORED_ROWS
    PCA(n_components=3).fit_transform(X)
    lap("pca")
    for k in SIZES:
        by = frame.assign(cluster=models[k].labels_).groupby("cluster")
        by[COLUMNS].agg(["mean", "median", "std"])
        if "track_genre" in frame:
            by["track_genre"].agg(lambda genres: genres.value_counts().head(5).to_dict())
    lap("profile")
    return seconds, X, models


def agreement(found: dict[int, dict[str, float]], X: np.ndarray, models: dict[int, Any]) -> dict[str, Any]:
    """Check that no inertia is worse, that no row is missing, and that the silhouettes of scikit-learn's labels are the same."""
    ratios = {k: found[k]["inertia"] / float(models[k].inertia_) for k in SIZES}
    assert max(ratios.values()) <= WORSE, ratios
    assert {metrics["n_rows"] for metrics in found.values()} == {len(X)}
    assert all(metrics["silhouette_se"] == 0 for metrics in found.values()), "exact, not sampled"
    rows = np.arange(SCORED_ROWS)
    labelings = [models[k].labels_ for k in SIZES]
    scored = silhouette(X, labelings, rows=rows, return_samples=True)
    differences = [
        float(np.abs(result.samples - scikit_learn_rows(X, labels, SCORED_ROWS)).max())
        for result, labels in zip(scored, labelings, strict=True)
    ]
    assert max(differences) < 1e-6, differences
    return {"inertia_ratios": ratios, "largest_silhouette_difference": max(differences)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of our command (default: %(default)s)")
    repeats = parser.parse_args().repeats
    with TemporaryDirectory() as root:
        path, what = table(Path(root))
        facts = heading("The notebook", what, f"K-Means k = {SIZES[0]} to {SIZES[-1]}, {STARTS} starts each")
        uri = f"sqlite:///{Path(root) / 'mlflow.db'}"
        MlflowRecorder(uri)
        runs = [ours(path, uri, "float64-0", "float64")]
        steps, X, models = theirs(path)
        runs += [ours(path, uri, f"float64-{i}", "float64") for i in range(1, repeats)]
        default = ours(path, uri, "float32", "float32")
        found = recorded(uri, "float64-0")
        agreed = agreement(found, X, models)
    mine, total = statistics.median(runs), sum(steps.values())
    print(f"agreement: inertia at most {max(agreed['inertia_ratios'].values()) - 1:+.4%} from scikit-learn's; on its labels "
          f"silhouettes of {SCORED_ROWS} rows differ by at most {agreed['largest_silhouette_difference']:.1e}")  # fmt: skip
    for step, seconds in steps.items():
        scaled = f"  (scaled from {SCORED_ROWS} of {len(X):,} rows of each labelling)" if "scaled" in step else ""
        print(f"  scikit-learn, {step.removesuffix('_scaled'):<12}{seconds:9.2f} s{scaled}")
    print(f"scikit-learn {total:.0f} s, of them {total - steps['silhouette_scaled']:.0f} s measured in full")
    print(f"ours, float64 {mine:.1f} s: 1/{total / mine:.0f} (1/{TARGET} wanted); float32, the default {default:.1f} s")
    by_k = {k: {m: found[k][m] for m in ("inertia", "silhouette", "fit_seconds", "score_seconds")} for k in SIZES}
    write(
        "notebook",
        {
            "environment": facts,
            "data": what,
            "scikit_learn_seconds": steps,
            "scikit_learn_silhouette": f"scaled from {SCORED_ROWS} of {len(X)} rows of each of {len(SIZES)} labelings",
            "scikit_learn_total_seconds": total,
            "ours_seconds": {"float64": runs, "float32": default},
            "ratio": total / mine,
            "ratio_without_silhouettes_of_theirs": (total - steps["silhouette_scaled"]) / mine,
            "agreement": agreed,
            "ours_by_k": by_k,
        },
    )


if __name__ == "__main__":
    main()
