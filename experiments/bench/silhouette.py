"""Silhouette: exact on 114,000 tracks, for one labeling and for nine at once, compared with scikit-learn.

    python experiments/bench/silhouette.py      # about three minutes on two cores; --gpu runs only the part on a GPU

scikit-learn's exact score of 114,000 rows takes minutes, and its work is the same for every row. So scikit-learn's functions
(`pairwise_distances_chunked` and the reduction of `silhouette_samples`) score only the first rows against all others, and
the time is multiplied by rows / rows scored. Ours is timed on the same rows and on all of them. On a GPU our pass is compared with
cuML's score called directly; both results are compared with our exact one on the CPU.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from common import enlarged, gpu_too, heading, interleaved, only_gpu, real_tracks, synchronised, write
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_chunked, silhouette_score
from sklearn.metrics.cluster._unsupervised import _silhouette_reduce

from gpuclust.metrics.silhouette.score import silhouette

AGREEMENT_ROWS = 20_000
SCORED_ROWS = 2_000
SIZES = range(2, 11)
REPEATS = 3
MANY_ROWS = 1_160_000  # on a GPU


def scikit_learn_rows(X: np.ndarray, labels: np.ndarray, n_rows: int) -> np.ndarray:
    """The silhouettes of the first rows, with distances to all rows, as in scikit-learn's `silhouette_samples`."""
    counts = np.bincount(labels)
    reduce = functools.partial(_silhouette_reduce, labels=labels, label_freqs=counts)
    parts = zip(*pairwise_distances_chunked(X[:n_rows], X, reduce_func=reduce), strict=True)
    a, b = (np.concatenate(part) for part in parts)
    a /= (counts - 1)[labels[:n_rows]]
    return (b - a) / np.maximum(a, b)


def agreement(X: np.ndarray, labelings: list[np.ndarray]) -> float:
    """The largest difference between both scores of a table of the first rows."""
    X, labelings = X[:AGREEMENT_ROWS], [labels[:AGREEMENT_ROWS] for labels in labelings]
    ours = silhouette(X, labelings)
    chosen = (0, len(labelings) // 2, len(labelings) - 1)
    return max(abs(ours[i].score - silhouette_score(X, labelings[i])) for i in chosen)


def measure(X: np.ndarray, labelings: list[np.ndarray]) -> dict[str, float]:
    labels, rows = labelings[5], np.arange(SCORED_ROWS)
    (ours,) = silhouette(X, [labels], rows=rows, return_samples=True)
    difference = np.abs(ours.samples - scikit_learn_rows(X, labels, SCORED_ROWS)).max()
    assert difference < 1e-5, f"coefficients differ by {difference}"
    seconds = interleaved(
        {
            "scikit_learn_rows": lambda: scikit_learn_rows(X, labels, SCORED_ROWS),
            "ours_rows": lambda: silhouette(X, [labels], rows=rows),
            "ours_one": lambda: silhouette(X, [labels]),
            "ours_nine": lambda: silhouette(X, labelings),
        },
        REPEATS,
    )
    seconds["scikit_learn_one_scaled"] = seconds["scikit_learn_rows"] * len(X) / SCORED_ROWS
    return seconds


def on_gpu() -> dict[str, Any]:
    """One labeling and nine on the device, and cuML's score of one."""
    import cupy as cp
    from cuml.metrics.cluster import silhouette_score as cuml_score

    from gpuclust.metrics.silhouette.kernels_cuda import silhouette_cuda

    X, what = real_tracks(11)
    labelings = [KMeans(k, n_init=1, random_state=0).fit_predict(X) for k in SIZES]
    exact = [result.score for result in silhouette(X, labelings)]
    record: dict[str, Any] = {"data": what}
    for dtype in (np.float64, np.float32):
        name, there = np.dtype(dtype).name, cp.asarray(X.astype(dtype))
        labels = cp.asarray(labelings[5].astype(np.int32))
        ours = [result.score for result in silhouette_cuda(there, labelings)]
        difference = max(abs(a - b) for a, b in zip(ours, exact, strict=True))
        assert difference < 1e-6, f"{name}: scores of both devices differ by {difference:.1e}"
        cuml_differs = abs(float(cuml_score(there, labels)) - exact[5])
        functions = {
            "cuml": synchronised(lambda there=there, labels=labels: cuml_score(there, labels)),
            "ours_one": synchronised(lambda there=there: silhouette_cuda(there, [labelings[5]])),
            "ours_nine": synchronised(lambda there=there: silhouette_cuda(there, labelings)),
        }
        seconds = interleaved(functions, REPEATS)
        ratio, nine = seconds["cuml"] / seconds["ours_one"], seconds["ours_nine"] / seconds["ours_one"]
        print(
            f"{name}: cuML {1e3 * seconds['cuml']:.1f} ms (off by {cuml_differs:.0e}), ours {1e3 * seconds['ours_one']:.1f} ms "
            f"(off by {difference:.0e}): {ratio:.1f} times as fast; nine at once {nine:.2f} times one"
        )
        record[name] = {"seconds": seconds, "ratio": ratio, "ratio_nine_to_one": nine}
        record[name] |= {"score_difference": difference, "cuml_score_difference": cuml_differs}
    many = cp.asarray(enlarged(X, MANY_ROWS).astype(np.float32))
    labels = cp.arange(MANY_ROWS, dtype=np.int32) % SIZES[-1]
    exact_many = {"ours": synchronised(lambda: silhouette_cuda(many, [labels]))}
    record["exact_1160k_float32"] = interleaved(exact_many, REPEATS)
    print(f"exact, {MANY_ROWS:,} rows, float32: {record['exact_1160k_float32']['ours']:.2f} s")
    return record


def main() -> None:
    if not only_gpu(__doc__ or ""):
        on_cpu()
    gpu_too("silhouette", on_gpu)


def on_cpu() -> None:
    X, what = real_tracks(11)
    facts = heading("Silhouette", what, f"K-Means labelings, k = {SIZES[0]} to {SIZES[-1]}")
    labelings = [KMeans(k, n_init=1, random_state=0).fit_predict(X) for k in SIZES]
    record = {"environment": facts, "data": what, "scored_rows": SCORED_ROWS, "repeats": REPEATS}
    for dtype in (np.float64, np.float32):
        name, matrix = np.dtype(dtype).name, X.astype(dtype)
        difference = agreement(matrix, labelings)
        assert difference < 1e-6, f"{name}: scores differ by {difference}"
        print(f"\n{name}: agreement on {AGREEMENT_ROWS:,} rows complete: scores differ by at most {difference:.1e}")
        seconds = measure(matrix, labelings)
        pairs = len(X) ** 2
        exact = seconds["scikit_learn_one_scaled"] / seconds["ours_one"]
        nine = seconds["ours_nine"] / seconds["ours_one"]
        print(f"  exact, scikit-learn  {seconds['scikit_learn_one_scaled']:8.1f} s, from {SCORED_ROWS:,} rows scored")
        per_pair = seconds["ours_one"] / pairs * 1e9
        print(f"  exact, ours          {seconds['ours_one']:8.2f} s, {per_pair:.3f} ns a pair: 1/{exact:.0f}")
        print(f"  nine at once, ours   {seconds['ours_nine']:8.2f} s: {nine:.2f} times one labeling")
        print(
            f"  the same {SCORED_ROWS:,} rows  {seconds['scikit_learn_rows']:.2f} s and {seconds['ours_rows']:.3f} s: "
            f"1/{seconds['scikit_learn_rows'] / seconds['ours_rows']:.0f}"
        )
        record[name] = {
            "score_difference": difference,
            "seconds": seconds,
            "ns_per_pair": per_pair,
            "ratio_exact": exact,
            "ratio_nine_to_one": nine,
        }
    write("silhouette", record)


if __name__ == "__main__":
    main()
