"""The time to read and clean a table of tracks, compared with the same steps written in pandas.

The same rows as CSV and as Parquet, with a few missing cells, unknown tempos and repeated ids. First checks that all ways keep the
same rows and the same numbers. Then measures, in one process and in turns: gpuclust (reading with its audit, and cleaning), pandas'
default CSV engine, and pandas' Arrow engine, the latter two with the cleaning written out. All read the same columns.

    python experiments/bench/reading.py [--rows 1160000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import heading, interleaved, write

from gpuclust.config import CleanConfig, DataConfig
from gpuclust.data.clean import clean
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.data.source import fingerprint
from gpuclust.tracks.catalogue import catalogue

FEATURES = [
    "acousticness", "danceability", "duration_ms", "energy", "instrumentalness", "liveness", "loudness",
    "speechiness", "tempo", "valence",
]  # fmt: skip
COLUMNS = ["id", "title", "artist", "genre", "popularity", "year", *FEATURES]


def make_files(folder: Path, n_rows: int) -> dict[str, Path]:
    """The catalogue with one cell in 500 missing, one tempo in 1,000 unknown and one row in 50 repeated."""
    rng = np.random.default_rng(0)
    frame = catalogue(n_rows)
    frame.loc[rng.integers(0, n_rows, n_rows // 500), "energy"] = np.nan
    frame.loc[rng.integers(0, n_rows, n_rows // 1000), "tempo"] = 0.0
    kept = np.sort(np.r_[np.arange(n_rows - n_rows // 50), rng.integers(0, n_rows // 2, n_rows // 50)])
    frame = frame.iloc[kept]
    paths = {"CSV": folder / "tracks.csv", "Parquet": folder / "tracks.parquet"}
    frame.to_csv(paths["CSV"], index=False)
    frame.to_parquet(paths["Parquet"], index=False)
    return paths


def ours(path: Path) -> pd.DataFrame:
    frames = PandasFrames()
    raw = read(DataConfig(path=str(path), preset="tracks"), frames)
    return clean(raw, CleanConfig(duplicates="id", bounds={"tempo": [1, None]}), frames).frame


def by_hand(frame: pd.DataFrame) -> pd.DataFrame:
    """The cleaning of `ours` as written in a notebook."""
    frame[FEATURES] = frame[FEATURES].astype("float64").replace([np.inf, -np.inf], np.nan)
    frame = frame[frame["tempo"].isna() | (frame["tempo"] >= 1)]
    return frame.dropna(subset=FEATURES).drop_duplicates("id").reset_index(drop=True)


WAYS = {
    "CSV": {
        "ours": ours,
        "pandas, default engine": lambda path: by_hand(pd.read_csv(path, usecols=COLUMNS)),
        "pandas, Arrow engine": lambda path: by_hand(pd.read_csv(path, usecols=COLUMNS, engine="pyarrow")),
    },
    "Parquet": {"ours": ours, "pandas": lambda path: by_hand(pd.read_parquet(path, columns=COLUMNS))},
}


def check_agreement(paths: dict[str, Path]) -> int:
    """Check that all ways keep the same ids in the same order, and numbers within the rounding of pandas' default engine (1 unit)."""
    reference = ours(paths["CSV"])
    for kind, ways in WAYS.items():
        for name, way in ways.items():
            got = way(paths[kind])
            assert got["id"].tolist() == reference["id"].tolist(), (kind, name)
            np.testing.assert_allclose(got[FEATURES], reference[FEATURES], rtol=4e-16, err_msg=f"{kind}, {name}")
    print(f"agreement: {len(reference):,} rows kept by every way, the same numbers")
    return len(reference)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_160_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), options.rows)
        sizes = {kind: path.stat().st_size for kind, path in paths.items()}
        environment = heading(
            "Reading and cleaning",
            f"{options.rows:,} rows of the catalogue: " + ", ".join(f"{k} {b / 1e6:.0f} MB" for k, b in sizes.items()),
        )
        kept = check_agreement(paths)
        print(f"fingerprint: {fingerprint(DataConfig(path=str(paths['CSV'])))[:12]} (taken before the timing)")
        seconds = {}
        for kind, ways in WAYS.items():
            timed = {name: lambda way=way, path=paths[kind]: way(path) for name, way in ways.items()}
            seconds[kind] = interleaved(timed, options.repeats)
            for name, taken in seconds[kind].items():
                ratio = taken / seconds[kind]["ours"]
                print(f"{kind:8} {name:24} {taken:6.2f} s   {ratio:5.2f} times ours")
    record = {"rows": options.rows, "rows_kept": kept, "bytes": sizes, "repeats": options.repeats, "seconds": seconds}
    write("reading", {"environment": environment} | record)


if __name__ == "__main__":
    main()
