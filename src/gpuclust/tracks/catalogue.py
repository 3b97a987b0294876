"""The generated catalogue: tracks whose clusters are about as clear as those of real music.

A track's *genre* leans on one of six overlapping *archetypes*; the archetype is the mean of a correlated normal
vector, moved by the artist and by the year; each coordinate is then mapped, monotonically, on to the quantiles of the
audio feature that it stands for. Quantiles, correlations and yearly drifts were fitted by eye to public tables of
audio features and rounded; no row of any table is in here.

Row ``i`` depends on ``(seed, i)`` alone. Blocks of ``_BLOCK`` rows are always generated whole, from the Philox 4x64
counter that belongs to their first row (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), and
then cut: neither the number of rows asked for nor the chunk size can reach the arithmetic. NumPy keeps Philox's raw
output stable from release to release.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtr, ndtri

from gpuclust.errors import ConfigurationError
from gpuclust.tracks.catalogue_names import artist_names, mix, titles, track_ids

FEATURES: tuple[str, ...] = (
    "acousticness", "danceability", "duration_ms", "energy", "instrumentalness",
    "liveness", "loudness", "speechiness", "tempo", "valence",
)  # fmt: skip

FIRST_YEAR, LAST_YEAR = 1950, 2024

_BLOCK = 4_096  # rows generated together; their arrays fit into the cache
_ERA = 65_536  # rows that share a generation of artists
_ARTISTS_PER_ERA = 16_384
_RANK_SHIFT = 30.0  # the share of an era's artist of rank r is in proportion to 1 / (r + _RANK_SHIFT)
_OLDER_ARTIST, _STRAY_GENRE = (
    0.15,
    0.12,
)  # shares of rows whose artist, whose genre, is drawn from all of them
_CAREER = 31  # years in which an artist releases, at most
_WORDS = 12  # 64-bit words, so 24 uniforms, of the Philox stream that each row owns
_TRACKS, _CALIBRATION = 0, 1  # the second half of Philox's key: which stream of a seed

# fmt: off
# Means, in latent units, of each archetype; columns as FEATURES.
_ARCHETYPES = {
    #                acou  danc  dura  ener  inst  live  loud  spee  temp  vale
    "dance":        (-0.1,  0.7, -0.1,  0.2, -0.5, -0.3,  0.4,  0.0,  0.0,  0.9),
    "rock":         (-0.9, -0.6,  0.2,  1.0, -0.3,  0.1,  0.8,  0.1,  0.5, -0.3),
    "acoustic":     ( 1.2, -0.1, -0.1, -1.0, -0.4, -0.3, -0.7, -0.5, -0.3, -0.2),
    "instrumental": (-0.1,  0.0,  0.4, -0.3,  1.9, -0.2, -0.8, -0.1,  0.1, -0.6),
    "rap":          (-0.1,  0.8, -0.4,  0.2, -0.6,  0.2,  0.1,  2.0,  0.0,  0.3),
    "live":         ( 0.1, -0.3,  0.3,  0.4, -0.3,  2.2,  0.1,  0.3,  0.1,  0.0),
}
# Share; how recent its artists are (a debut is the latest of so many uniform draws); intensity, in standard deviations
# of an artist's; percentage of each archetype, in the order above.
_GENRES = {
    "ambient":           (40, 3.5, -2.0, ( 1,  2, 24, 72,  0,  1)),
    "blues":             (35, 1.3, -0.5, (18, 24, 34,  6,  1, 17)),
    "classical":         (50, 1.5, -2.5, ( 0,  1, 36, 58,  0,  5)),
    "country":           (60, 2.0,  0.0, (34, 26, 32,  1,  1,  6)),
    "disco":             (30, 1.6,  0.5, (72,  8,  6,  6,  3,  5)),
    "folk":              (60, 2.2, -1.0, ( 8,  8, 70,  5,  1,  8)),
    "gospel":            (30, 2.0, -0.5, (12, 14, 30,  1,  3, 40)),
    "hip-hop":           (75, 4.0,  0.5, (20,  4,  3,  3, 66,  4)),
    "house":             (55, 4.5,  1.2, (48,  4,  2, 42,  3,  1)),
    "indie":             (60, 4.0,  0.0, (22, 42, 26,  6,  2,  2)),
    "jazz":              (45, 1.4, -1.2, (12,  3, 46, 28,  2,  9)),
    "latin":             (55, 2.8,  0.5, (66,  8, 14,  1,  7,  4)),
    "metal":             (60, 3.0,  1.0, ( 3, 78,  2, 10,  4,  3)),
    "pop":               (90, 3.0,  0.0, (58, 10, 20,  2,  7,  3)),
    "punk":              (45, 2.8,  1.0, (10, 74,  3,  2,  6,  5)),
    "r-n-b":             (50, 3.2, -0.5, (50,  3, 28,  2, 14,  3)),
    "reggae":            (30, 2.0,  0.0, (66,  8,  8,  4, 10,  4)),
    "rock":              (95, 2.0,  0.5, (16, 60,  9,  4,  1, 10)),
    "samba":             (35, 2.4,  0.0, (28,  6, 12,  1,  3, 50)),
    "singer-songwriter": (55, 3.0, -1.0, (14,  8, 70,  2,  2,  4)),
    "soul":              (40, 1.6,  0.0, (50,  8, 30,  2,  2,  8)),
    "techno":            (50, 5.0,  1.5, (16,  8,  2, 70,  3,  1)),
}
# Latent units: what 25 years add; what one standard deviation of the artist's intensity, and mood, add.
_DRIFT     = np.array((-0.35,  0.10, -0.10,  0.25, -0.10,  0.00,  0.40,  0.15,  0.05, -0.12))
_INTENSITY = np.array((-0.20,  0.00,  0.00,  0.20,  0.00,  0.05,  0.20,  0.00,  0.08,  0.00))
_MOOD      = np.array(( 0.00,  0.16, -0.10,  0.00, -0.10,  0.00,  0.00,  0.00,  0.00,  0.18))
_SPREAD = 0.66  # the standard deviation of a track about what its archetype, artist and year say
_CORRELATIONS = {
    ("acousticness", "energy"): -0.40, ("energy", "loudness"): 0.57, ("acousticness", "loudness"): -0.22,
    ("danceability", "valence"): 0.32, ("energy", "valence"): 0.15, ("danceability", "tempo"): -0.15,
}
# What the columns look like: their values at these quantiles.
_PROBABILITIES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.65, 0.75, 0.85, 0.9, 0.95, 0.99, 0.999, 1.0)
_QUANTILES = {
    "acousticness":     (0, 1e-6, 1e-5, 1e-4, 8e-4, .017, .19, .43, .62, .80, .88, .955, .992, .995, .996),
    "danceability":     (.05, .065, .13, .24, .32, .45, .58, .645, .69, .75, .78, .825, .90, .96, .985),
    "duration_ms":      (3e4, 4e4, 7e4, 118e3, 14e4, 174e3, 213e3, 24e4, 262e3, 298e3, 322e3, 372e3, 48e4, 72e4, 9e5),
    "energy":           (.001, .003, .027, .14, .25, .46, .68, .785, .85, .915, .94, .97, .993, .999, 1),
    "instrumentalness": (0, 0, 0, 0, 0, 0, 1e-4, .0035, .09, .71, .85, .91, .957, .985, .99),
    "liveness":         (.01, .023, .041, .061, .075, .098, .132, .195, .278, .36, .45, .69, .95, .98, .99),
    "loudness":         (-42, -34, -26, -17.5, -14.2, -10.3, -7.2, -5.9, -5.1, -4.2, -3.7, -3.0, -1.6, -.4, -.1),
    "speechiness":      (.022, .024, .0255, .028, .030, .036, .049, .065, .088, .145, .21, .31, .50, .85, .96),
    "tempo":            (40, 51, 66, 77, 83, 99, 122, 131.5, 140, 155, 166, 175, 194, 207, 220),
    "valence":          (.01, .02, .035, .065, .118, .25, .457, .588, .68, .785, .84, .91, .965, .98, .99),
    "popularity":       (0, 0, 0, 0, 0, 19, 33, 43, 49, 56, 60, 67, 78, 90, 100),
}
_DECIMALS = {"loudness": 3, "tempo": 3, "duration_ms": 0, "popularity": 0}  # the others: 6
# fmt: on

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


class _Draws(NamedTuple):
    """A block in latent units: one entry per row; ``latent`` is (10 features + popularity, rows)."""

    artist: Ints
    genre: Ints
    archetype: Ints
    year: Ints
    latent: Floats
    uniforms: Floats


class _Traits(NamedTuple):
    """Uniform numbers shared by all tracks of an artist; one entry per row."""

    home: Floats
    fame: Floats
    debut: Floats
    intensity: Floats
    mood: Floats


class _GenreTables(NamedTuple):
    """One entry per genre; ``shares`` and ``archetypes`` (genres, 5) are cumulative, without the last archetype."""

    shares: Floats
    recency: Floats
    intensity: Floats
    archetypes: Floats


def catalogue(n_rows: int, *, seed: int = 0) -> pd.DataFrame:
    """Generate ``n_rows`` tracks.

    Columns: ``id`` (22 base-62 characters, unique), ``title``, ``artist``, ``genre`` (``str``, Arrow-backed, under
    pandas 3; objects under pandas 2), ``popularity`` (int64, 0..100), ``year`` (int64, 1950..2024) and ``FEATURES``:
    ``loudness`` float64 in dB (-42..0), ``tempo`` float64 in beats per minute (40..220, always known), ``duration_ms``
    int64 in milliseconds, the others float64 in 0..1. No value is missing. The index is a RangeIndex.

    The same seed gives the same rows, and a shorter catalogue is the head of a longer one.

    Raises:
        ConfigurationError: ``n_rows`` is below 1, or ``seed`` is not in 0..2**64-1.
    """
    return next(stream(n_rows, seed=seed, chunk_rows=max(n_rows, 1)))


def stream(n_rows: int, *, seed: int = 0, chunk_rows: int = 250_000) -> Iterator[pd.DataFrame]:
    """Yield the rows of ``catalogue(n_rows, seed=seed)`` in frames of ``chunk_rows`` (the last may be shorter).

    Memory is that of one chunk, however many rows there are; the index continues from chunk to chunk.

    Raises:
        ConfigurationError: as ``catalogue``, or ``chunk_rows`` is below 1; at the call, not at the first chunk.
    """
    if n_rows < 1:
        raise ConfigurationError(f"data.n_rows={n_rows} generates nothing; ask for 1 row or more")
    if not 0 <= seed < 2**64:
        raise ConfigurationError(f"data.seed={seed} is out of range; use 0 to 2**64-1")
    if chunk_rows < 1:
        raise ConfigurationError(f"chunk_rows={chunk_rows} makes no progress; use 1 or more")
    return _chunks(n_rows, seed, chunk_rows)


def _chunks(n_rows: int, seed: int, chunk_rows: int) -> Iterator[pd.DataFrame]:
    held: list[Any] = []
    missing, start = min(chunk_rows, n_rows), 0
    for first in range(0, n_rows, _BLOCK):
        block = _block(first, seed).slice(0, n_rows - first)
        while block.num_rows:
            held.append(block.slice(0, missing))
            missing -= held[-1].num_rows
            block = block.slice(held[-1].num_rows)
            if not missing:
                frame = pa.concat_tables(held).combine_chunks().to_pandas()
                frame.index = pd.RangeIndex(start, start + len(frame))
                start += len(frame)
                held, missing = [], min(chunk_rows, n_rows - start)
                yield frame


def _block(first: int, seed: int) -> Any:
    """The rows ``first`` to ``first + _BLOCK`` as an Arrow table."""
    draws = _draw(first, seed, _TRACKS)
    numbers = _observe(draws.latent)
    popularity = numbers.pop("popularity")
    columns = {
        "id": track_ids(first, _BLOCK, seed=seed),
        "title": titles(
            draws.uniforms[16:21],
            live=numbers["liveness"] > 0.8,
            old=draws.year < 1990,
            instrumental=numbers["instrumentalness"] > 0.8,
        ),
        "artist": artist_names(draws.artist, seed=seed),
        "genre": pa.array(list(_GENRES), pa.large_string()).take(pa.array(draws.genre)),
        "popularity": popularity,
        "year": draws.year,
    }
    return pa.table(columns | numbers)


def _draw(first: int, seed: int, which: int) -> _Draws:
    """The rows ``first`` to ``first + _BLOCK`` of one of the streams of a seed."""
    uniforms = _uniforms(first, seed, which)
    number = _artists(first, uniforms[12], uniforms[13])
    artist = _traits(number, seed)
    tables = _genre_tables()

    home = np.searchsorted(tables.shares, artist.home)
    other = np.searchsorted(tables.shares, uniforms[11] / _STRAY_GENRE)
    genre = np.where(uniforms[11] < _STRAY_GENRE, other, home)
    archetype = (uniforms[10][:, None] > tables.archetypes[genre]).sum(axis=1)

    years = LAST_YEAR - FIRST_YEAR + 1
    debut = FIRST_YEAR + (years * artist.debut ** (1 / tables.recency[home])).astype(np.int64)
    career = np.minimum(LAST_YEAR - debut + 1, _CAREER)
    year = debut + (career * uniforms[14] ** 1.5).astype(np.int64)
    return _Draws(number, genre, archetype, year, _latent(archetype, genre, year, artist, uniforms), uniforms)


def _latent(archetype: Ints, genre: Ints, year: Ints, artist: _Traits, uniforms: Floats) -> Floats:
    """Ten features and popularity, in latent units: (11, rows)."""
    since_2000 = (year - 2000) / 25
    features = np.array(list(_ARCHETYPES.values())).T[:, archetype]
    features += _SPREAD * (_mixing() @ ndtri(uniforms[:10]))
    intensity = ndtri(artist.intensity) + _genre_tables().intensity[genre]
    for loading, score in ((_DRIFT, since_2000), (_INTENSITY, intensity), (_MOOD, ndtri(artist.mood))):
        features += loading[:, None] * score
    danceable = features[FEATURES.index("danceability")]
    popularity = 0.65 * ndtri(artist.fame) + 0.6 * ndtri(uniforms[15]) + 0.375 * since_2000 + 0.2 * danceable
    return np.vstack([features, popularity])


def _uniforms(first: int, seed: int, which: int) -> Floats:
    """Uniform numbers in (0, 1), (24, ``_BLOCK``): those of row i are from the words 12 i to 12 i + 11 of the stream."""
    philox = np.random.Philox(key=np.array([seed, which], dtype=np.uint64), counter=[first * _WORDS // 4, 0, 0, 0])
    halves = philox.random_raw(_BLOCK * _WORDS).astype("<u8", copy=False).view("<u4")
    return np.ascontiguousarray((halves.reshape(_BLOCK, 2 * _WORDS).T + 0.5) * 2.0**-32)


def _artists(first: int, by_rank: Floats, by_era: Floats) -> Ints:
    """Artist numbers: a rank from a power law, mostly in the row's own era, so artists grow in number with the rows."""
    rank = _RANK_SHIFT * ((1 + _ARTISTS_PER_ERA / _RANK_SHIFT) ** by_rank - 1)
    era = first // _ERA
    older = (by_era / _OLDER_ARTIST * (era + 1)).astype(np.int64)
    return np.where(by_era < _OLDER_ARTIST, older, era) * _ARTISTS_PER_ERA + rank.astype(np.int64)


def _traits(artist: Ints, seed: int) -> _Traits:
    """The properties of artists that depend on their number and the seed."""
    words = [mix(artist.astype(np.uint64) ^ mix(np.array([seed], dtype=np.uint64)))]
    words += [mix(words[0]), mix(mix(words[0]))]
    halves = [half for word in words for half in (word >> np.uint64(32), word & np.uint64(0xFFFFFFFF))]
    return _Traits(*((half + 0.5) * 2.0**-32 for half in halves[: len(_Traits._fields)]))


@lru_cache(maxsize=1)
def _genre_tables() -> _GenreTables:
    rows = list(_GENRES.values())
    shares = np.cumsum([float(share) for share, *_ in rows])
    archetypes = np.cumsum([percentages for *_, percentages in rows], axis=1)
    return _GenreTables(
        shares=shares / shares[-1],
        recency=np.array([recency for _, recency, _, _ in rows]),
        intensity=np.array([intensity for _, _, intensity, _ in rows]),
        archetypes=(archetypes / archetypes[:, -1:])[:, :-1],
    )


@lru_cache(maxsize=1)
def _mixing() -> Floats:
    """The Cholesky factor of the correlations of the ten features within an archetype."""
    correlation = np.eye(10)
    for (one, other), value in _CORRELATIONS.items():
        i, j = FEATURES.index(one), FEATURES.index(other)
        correlation[i, j] = correlation[j, i] = value
    return np.linalg.cholesky(correlation)


def _observe(latent: Floats) -> dict[str, Any]:
    """Convert latent coordinates to feature values, rounded as in tables of audio features."""
    columns: dict[str, Any] = {}
    for name, coordinate, (knots, values) in zip(_QUANTILES, latent, _margins(), strict=True):
        decimals = _DECIMALS.get(name, 6)
        column = np.interp(coordinate, knots, values).round(decimals)
        columns[name] = column if decimals else column.astype(np.int64)
    return columns


@lru_cache(maxsize=1)
def _margins() -> list[tuple[Floats, Floats]]:
    """The latent quantiles of each column, estimated once on a separate stream, and the values at these quantiles."""
    sample = np.hstack([_draw(first, 0, _CALIBRATION).latent for first in range(0, _ERA, _BLOCK)])
    scores = np.linspace(-4.0, 4.0, 257)
    knots = np.quantile(sample, ndtr(scores), axis=1).T
    at = ndtri(np.clip(_PROBABILITIES, ndtr(-4.0), ndtr(4.0)))
    return [
        (row, PchipInterpolator(at, values)(scores)) for row, values in zip(knots, _QUANTILES.values(), strict=True)
    ]
