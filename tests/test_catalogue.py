"""The built-in catalogue: does it look like music, is it the same however it is cut, does it stay small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import mutual_info_score, silhouette_score
from sklearn.preprocessing import StandardScaler

from gpuclust.errors import ConfigurationError
from gpuclust.tracks import catalogue as module
from gpuclust.tracks.catalogue import FEATURES, catalogue, stream
from gpuclust.tracks.catalogue_names import artist_names, track_ids

SAMPLE = 60_000


@pytest.fixture(scope="module")
def tracks() -> pd.DataFrame:
    return catalogue(SAMPLE)


def test_columns_ranges_and_no_nulls(tracks: pd.DataFrame):
    assert list(tracks) == ["id", "title", "artist", "genre", "popularity", "year", *FEATURES]
    assert tracks.index.equals(pd.RangeIndex(SAMPLE))
    assert not tracks.isna().any(axis=None)
    ranges = {"loudness": (-60, 0), "tempo": (40, 220), "duration_ms": (30_000, 900_000)}
    ranges |= {"popularity": (0, 100), "year": (1950, 2024)}
    for name in (*FEATURES, "popularity", "year"):
        low, high = ranges.get(name, (0, 1))
        assert tracks[name].between(low, high).all(), name
    for name in ("popularity", "year", "duration_ms"):
        assert tracks[name].dtype == np.int64
    for name in ("id", "title", "artist", "genre"):
        assert tracks[name].map(type).eq(str).all()
        assert tracks[name].str.strip().ne("").all()


# Quartiles and upper tails of public tables of audio features, to two figures.
@pytest.mark.parametrize(
    ("name", "q25", "q50", "q75", "q95"),
    [
        ("acousticness", 0.017, 0.19, 0.62, 0.956),
        ("danceability", 0.45, 0.58, 0.69, 0.825),
        ("duration_ms", 173_000, 213_000, 264_000, 394_000),
        ("energy", 0.46, 0.68, 0.85, 0.97),
        ("instrumentalness", 0.0, 0.0, 0.09, 0.91),
        ("liveness", 0.098, 0.13, 0.28, 0.69),
        ("loudness", -10.3, -7.2, -5.1, -3.0),
        ("speechiness", 0.036, 0.049, 0.086, 0.284),
        ("tempo", 99.5, 122, 140, 175),
        ("valence", 0.25, 0.46, 0.68, 0.91),
        ("popularity", 19, 33, 49, 67),
    ],
)
def test_marginals(tracks: pd.DataFrame, name: str, q25: float, q50: float, q75: float, q95: float):
    column = tracks[name]
    # 0.08 standard deviations: a sample of 60,000 moves a quantile by about 0.01 of them, the targets are rounded,
    # and the 65,536 calibration rows share few artists, which leaves another 0.02.
    np.testing.assert_allclose(column.quantile([0.25, 0.5, 0.75]), [q25, q50, q75], atol=0.08 * column.std())
    # A third in the tail: speechiness and duration have shorter ones on purpose, for K-Means spends clusters on them.
    assert column.quantile(0.95) == pytest.approx(q95, abs=0.33 * column.std())


def test_skews(tracks: pd.DataFrame):
    skew = tracks[list(FEATURES)].skew()
    # One is the usual bound of "highly skewed"; the public tables have 1.7, 2.1, 4.6 and -2.0 for these four.
    assert (skew[["instrumentalness", "liveness", "speechiness"]] > 1).all()
    assert skew["loudness"] < -1
    assert (tracks["instrumentalness"] < 0.01).mean() > 0.6
    assert 0.05 < (tracks["popularity"] == 0).mean() < 0.15


@pytest.mark.parametrize("seed", [0, 7])
def test_correlations(seed: int):
    correlation = catalogue(SAMPLE, seed=seed)[list(FEATURES)].corr()
    # 0.05: the standard error at 60,000 rows is 0.004, and "about -0.75" is a target, not a law.
    assert correlation.loc["acousticness", "energy"] == pytest.approx(-0.75, abs=0.05)
    assert correlation.loc["energy", "loudness"] == pytest.approx(0.75, abs=0.05)
    assert correlation.loc["valence", "danceability"] == pytest.approx(0.50, abs=0.05)


def test_features_drift_with_the_years(tracks: pd.DataFrame):
    decades = tracks.groupby(tracks["year"] // 10 * 10)[list(FEATURES)].mean().loc[1960:]
    assert decades["acousticness"].is_monotonic_decreasing
    assert decades["energy"].is_monotonic_increasing
    assert decades["loudness"].is_monotonic_increasing
    assert tracks["year"].quantile(0.5) > 2005
    assert tracks["year"].quantile(0.01) < 1970


@pytest.mark.parametrize("seed", [0, 1])
def test_kmeans_finds_ambiguous_clusters_with_a_maximum(seed: int):
    matrix = StandardScaler().fit_transform(catalogue(6_000, seed=seed)[list(FEATURES)])
    silhouette = {
        k: silhouette_score(matrix, KMeans(k, n_init=4, random_state=0).fit_predict(matrix)) for k in range(2, 11)
    }
    # "About 0.15 to 0.25": measured 0.147 to 0.22; the margin below is what another optimum of K-Means can take.
    assert all(0.13 <= value <= 0.25 for value in silhouette.values()), silhouette
    assert max(silhouette, key=silhouette.__getitem__) in {4, 5, 6, 7}, silhouette


def test_genres_lean_on_archetypes_but_are_not_pure():
    blocks = [module._draw(first, 0, module._TRACKS) for first in range(0, SAMPLE, module._BLOCK)]
    genre = np.concatenate([block.genre for block in blocks])
    archetype = np.concatenate([block.archetype for block in blocks])
    share = np.bincount(archetype) / len(archetype)
    entropy = -(share * np.log(share)).sum()
    # The share of what there is to know about an archetype that the genre tells: 0 is independence, 1 is purity.
    assert 0.2 < mutual_info_score(genre, archetype) / entropy < 0.6
    table = pd.crosstab(genre, archetype, normalize="index")
    assert len(table) == len(module._GENRES)
    assert table.max(axis=1).between(0.3, 0.85).all()


def test_genres_differ_in_what_people_see(tracks: pd.DataFrame):
    means = tracks.groupby("genre")[list(FEATURES)].mean()
    assert means.loc["classical", "instrumentalness"] > means.loc["pop", "instrumentalness"] + 0.2
    assert means.loc["folk", "acousticness"] > means.loc["metal", "acousticness"] + 0.2
    assert means.loc["hip-hop", "speechiness"] == means["speechiness"].max()
    assert means.loc["samba", "liveness"] == means["liveness"].max()


def test_artists_have_several_tracks_and_a_home_genre(tracks: pd.DataFrame):
    sizes = tracks["artist"].value_counts()
    assert sizes.mean() > 3
    assert sizes.iloc[0] > 50 * sizes.median()  # a power law: the largest dwarfs the usual
    assert sizes.iloc[0] < 0.01 * SAMPLE
    large = tracks[tracks["artist"].isin(sizes.index[sizes >= 30])]
    at_home = large.groupby("artist")["genre"].agg(lambda genres: genres.value_counts(normalize=True).iloc[0])
    # 0.88 stay by construction, and a stray draw falls on the home genre one time in twenty; 30 tracks scatter by 0.06.
    assert at_home.mean() == pytest.approx(0.885, abs=0.02)


def test_names_are_plausible(tracks: pd.DataFrame):
    assert 0.5 < tracks["title"].nunique() / SAMPLE < 0.95
    repeated = tracks[tracks["title"].duplicated(keep=False)]
    assert repeated.groupby("title")["artist"].nunique().gt(1).mean() > 0.9
    for name in ("title", "artist"):
        assert 0.001 < (~tracks[name].map(str.isascii)).mean() < 0.3
    assert tracks.loc[tracks["title"].str.endswith("(Live)"), "liveness"].min() > 0.8
    assert tracks.loc[tracks["title"].str.endswith("Remastered"), "year"].max() < 1990


def test_no_two_of_the_first_300_000_artists_share_a_name():
    names = artist_names(np.arange(300_000), seed=0)
    assert len(names.unique()) == 300_000


def test_ids_are_unique_and_base_62(tracks: pd.DataFrame):
    assert tracks["id"].str.fullmatch("[0-9A-Za-z]{22}").all()
    assert len(track_ids(0, 1_200_000, seed=0).unique()) == 1_200_000
    # Ids keep apart where the row number no longer fits 32 bits, and from one seed to the next.
    assert len(track_ids(2**33, 50_000, seed=0).unique()) == 50_000
    assert not set(track_ids(0, 50_000, seed=0).to_pylist()) & set(track_ids(0, 50_000, seed=1).to_pylist())


def test_seeds_differ_and_repeat():
    one, again, other = catalogue(2_000, seed=3), catalogue(2_000, seed=3), catalogue(2_000, seed=4)
    pd.testing.assert_frame_equal(one, again, check_exact=True)
    for name in one:
        same = (one[name].to_numpy() == other[name].to_numpy()).mean()
        assert same < 0.35, name  # a third of instrumentalness is exactly 0, a tenth of popularity
    assert abs(one["energy"].corr(other["energy"])) < 0.1  # the standard error of no correlation is 0.022


def test_the_first_row_never_changes():
    """Figures in the README stand on seed 0: a change of the generator must be seen and be meant."""
    row = catalogue(1).iloc[0]
    named = ("4F2RfKAS2D31OtPYj2br70", "Oh Greta", "Daydream Nights", "classical", 2009)
    assert (row["id"], row["title"], row["artist"], row["genre"], row["year"]) == named
    # A unit in the sixth decimal may turn on another machine's last bit.
    np.testing.assert_allclose([row["energy"], row["valence"]], [0.448051, 0.135149], atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(
    n_rows=st.integers(1, 20_000),
    longer=st.integers(0, 5_000),
    cuts=st.floats(0.3, 20),
    seed=st.integers(0, 2**64 - 1),
)
@example(n_rows=70_000, longer=1, cuts=3.3, seed=0)  # past the first generation of artists
@example(n_rows=8_192, longer=0, cuts=2, seed=2**64 - 1)  # cut exactly at the blocks
@example(n_rows=1, longer=0, cuts=1, seed=0)
def test_rows_depend_on_their_number_alone(n_rows: int, longer: int, cuts: float, seed: int):
    whole = catalogue(n_rows, seed=seed)
    chunk_rows = max(1, int(n_rows / cuts))
    chunks = list(stream(n_rows, seed=seed, chunk_rows=chunk_rows))
    assert [len(chunk) for chunk in chunks[:-1]] == [chunk_rows] * (len(chunks) - 1)
    assert 1 <= len(chunks[-1]) <= chunk_rows
    pd.testing.assert_frame_equal(pd.concat(chunks), whole, check_exact=True)
    pd.testing.assert_frame_equal(catalogue(n_rows + longer, seed=seed).head(n_rows), whole, check_exact=True)
    assert whole["id"].is_unique


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n_rows": 0}, "data.n_rows=0"),
        ({"n_rows": -5}, "data.n_rows=-5"),
        ({"n_rows": 5, "seed": -1}, "data.seed=-1"),
        ({"n_rows": 5, "seed": 2**64}, "data.seed="),
        ({"n_rows": 5, "chunk_rows": 0}, "chunk_rows=0"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(arguments: dict[str, int], named: str):
    with pytest.raises(ConfigurationError, match=named):
        stream(**arguments)


def test_a_stream_stays_in_bounded_memory():
    """What the process holds at any of the last ten of thirty chunks is about what it held at some of the first ten."""
    program = """
import psutil
from gpuclust.tracks.catalogue import stream
rows, held = 0, []
for chunk in stream(1_500_000, chunk_rows=50_000):
    rows += len(chunk)
    held.append(psutil.Process().memory_info().rss)
print(rows, chunk.memory_usage(deep=True).sum(), max(held[:10]), max(held[20:]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    rows, chunk_bytes, early, late = (int(word) for word in done.stdout.split())
    assert rows == 1_500_000
    # Five chunks: the allocators give memory back in a saw-tooth of four. Keeping the chunks would take twenty.
    assert late - early < 5 * chunk_bytes


@pytest.mark.real
def test_marginals_and_correlations_are_near_real_tracks(real_data: Path, tracks: pd.DataFrame):
    real = pd.read_csv(real_data / "tracks_114k.csv").drop_duplicates("track_id").query("tempo > 0")
    features = list(FEATURES)
    at = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9]
    # A third of a standard deviation, below the 95th percentile: speechiness, duration and loudness are given shorter
    # tails on purpose, for K-Means spends clusters on the real ones.
    apart = (tracks[features].quantile(at) - real[features].quantile(at)).abs() / real[features].std()
    assert apart.max(axis=None) < 0.33
    # 0.3: only three correlations were asked for; the others follow from six archetypes.
    assert (tracks[features].corr() - real[features].corr()).abs().max(axis=None) < 0.3
    # And it is no copy: a feature vector to six decimals does not come back by chance.
    shared = ["danceability", "energy", "loudness", "tempo"]
    assert tracks[shared].merge(real[shared], on=shared).empty
