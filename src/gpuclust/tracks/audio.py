"""Audio features of sound files, computed by librosa: `gpuclust features`."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuclust.errors import DataError, InputError, why

SUFFIXES = (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav", ".wma")
SAMPLE_RATE = 22_050
N_MFCC = 20
SILENCE = 1e-6  # an amplitude of -120 dBFS
SLOWEST, FASTEST = 40.0, 240.0  # beats per minute
# How well each of the 12 notes fits a major and a minor key on the first note: the probe-tone ratings of Krumhansl and Kessler (1982).
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
MISSING = "gpuclust features needs librosa and mutagen: pip install 'gpuclust[audio]'"


@dataclass(frozen=True)
class Extraction:
    """What `extract` did: the table's file, the number of its rows, and the files that could not be read with the reason."""

    path: Path
    n_tracks: int
    unreadable: Mapping[str, str]


def features_of(path: Path, seconds: float) -> dict[str, Any]:
    """The tags and the audio features of a sound file. Loudness and spectrum are of its middle ``seconds``.

    Keys: ``track_name``, ``artists``, ``album``, ``genre``, ``year`` (texts; from the tags, else the file name and the folder),
    ``duration_ms``, ``tempo`` (beats per minute, 0 without a beat), ``pulse_clarity`` (0 to 1: how strongly onsets repeat at the tempo), ``onset_rate``
    (onsets per second), ``loudness`` (level of the mean power in dBFS), ``dynamic_range`` (dB between the 10th and the 95th percentile of the level),
    ``brightness`` (spectral centroid in Hz), ``noisiness`` (spectral flatness, 0 to 1), ``key`` (0 is C, 11 is B), ``mode`` (1: major),
    ``key_clarity`` (-1 to 1: correlation with the key's profile), and ``timbre`` (mean and standard deviation of 20 MFCCs, 40 numbers).
    They are measurements of the sound, and not the values of the same name of a streaming service.

    Raises DataError for a file that cannot be read, or that holds no sound.
    """
    import librosa
    import numpy as np
    from librosa.onset import onset_detect, onset_strength

    duration = _read_length(path)
    length = min(seconds, duration)
    try:
        sound, rate = librosa.load(
            path, sr=SAMPLE_RATE, mono=True, offset=max((duration - length) / 2, 0.0), duration=length
        )
    except Exception as error:  # each of the decoders has its own errors
        raise DataError(f"it cannot be decoded: {why(error)}") from None
    if len(sound) < SAMPLE_RATE // 2:
        raise DataError("it holds less than half a second of sound")
    if not np.isfinite(sound).all():
        raise DataError("it holds samples that are not numbers")
    power = np.abs(librosa.stft(sound)) ** 2
    rms = librosa.feature.rms(y=sound)[0]
    audible = rms > SILENCE
    level = 20 * np.log10(rms[audible])
    mel = librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=rate), top_db=None)
    onsets = onset_strength(S=mel, sr=rate)
    mfcc = librosa.feature.mfcc(S=mel, sr=rate, n_mfcc=N_MFCC)
    centroid = librosa.feature.spectral_centroid(S=np.sqrt(power), sr=rate)[0]
    flatness = librosa.feature.spectral_flatness(S=power, power=1.0)[0]
    return {
        **_tags(path),
        "duration_ms": round(duration * 1000),
        **_pulse(onsets, rate),
        "onset_rate": len(onset_detect(onset_envelope=onsets, sr=rate)) / length,
        "loudness": float(20 * np.log10(max(np.sqrt(np.mean(sound**2, dtype=np.float64)), SILENCE))),
        "dynamic_range": float(np.percentile(level, 95) - np.percentile(level, 10)) if audible.any() else 0.0,
        "brightness": float(centroid[audible].mean()) if audible.any() else 0.0,
        "noisiness": float(flatness[audible].mean()) if audible.any() else 0.0,
        **_key(librosa.feature.chroma_stft(S=power, sr=rate).mean(axis=1)),
        "timbre": np.concatenate([mfcc.mean(axis=1), mfcc.std(axis=1)]).astype(float).tolist(),
    }


def _read_length(path: Path) -> float:
    """The length of the sound in seconds."""
    import audioread
    import soundfile

    try:
        return float(soundfile.info(str(path)).duration)
    except soundfile.LibsndfileError as error:
        try:
            with audioread.audio_open(str(path)) as file:
                return float(file.duration)
        except (audioread.DecodeError, OSError, EOFError):
            needs = "" if path.suffix.lower() not in (".aac", ".m4a", ".wma") else "; this format needs ffmpeg"
            raise DataError(f"it cannot be decoded: {why(error)}{needs}") from None


def _tags(path: Path) -> dict[str, str | None]:
    """Title, artist, album, genre and year of a file's tags, else its name and its folder."""
    import mutagen

    try:
        tags = mutagen.File(path, easy=True) or {}
    except Exception:  # damaged tags do not make the sound unreadable
        tags = {}

    def first(*names: str) -> str | None:
        found = next((values for name in names if (values := tags.get(name))), None)
        return None if found is None else str(found[0] if isinstance(found, list) else found).strip() or None

    date = first("originaldate", "date")
    return {
        "track_name": first("title") or path.stem,
        "artists": first("artist", "albumartist") or path.parent.name,
        "album": first("album"),
        "genre": first("genre"),
        "year": date[:4] if date and date[:4].isdigit() else None,
    }


def _pulse(onsets: Any, rate: int) -> dict[str, float]:
    """The tempo, and how strongly the onsets repeat at it: the autocorrelation of their strength (Lartillot et al. 2008)."""
    import librosa
    import numpy as np

    centred = onsets - onsets.mean()
    correlation = librosa.autocorrelate(centred)
    frames = 60.0 * rate / 512 / np.array([FASTEST, SLOWEST])
    lags = np.arange(int(frames[0]), min(int(frames[1]) + 1, len(correlation)))
    if not len(lags) or correlation[0] <= len(onsets) * SILENCE:
        return {"tempo": 0.0, "pulse_clarity": 0.0}
    tempo = float(np.atleast_1d(librosa.feature.tempo(onset_envelope=onsets, sr=rate))[0])
    return {"tempo": tempo, "pulse_clarity": float(np.clip((correlation[lags] / correlation[0]).max(), 0.0, 1.0))}


def _key(chroma: Any) -> dict[str, float]:
    """The key and the mode whose profile correlates best with the mean strength of the 12 notes (Krumhansl 1990)."""
    import numpy as np

    if chroma.std() < SILENCE:
        return {"key": 0, "mode": 1, "key_clarity": 0.0}
    profiles = np.array([np.roll(profile, key) for profile in (MINOR, MAJOR) for key in range(12)])
    fit = np.array([np.corrcoef(chroma, profile)[0, 1] for profile in profiles])
    best = int(fit.argmax())
    return {"key": best % 12, "mode": best // 12, "key_clarity": float(fit[best])}


def extract(
    folder: Path,
    out: Path,
    *,
    seconds: float = 60.0,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Extraction:
    """Compute the features of all sound files below ``folder``, and write a Parquet file with one row for each, in the order of their paths.

    ``track_id`` is the path below the folder and ``path`` the whole path. Finished files are kept in ``OUT.partial`` until the end, so that the
    same call after an interruption computes only what is missing. ``workers``: the number of processes, None for one for each core.

    Raises InputError where librosa is not installed, and DataError for a folder without sound files, or where none can be read.
    """
    _require_libraries()
    files = sound_files(folder)
    partial = out.with_name(f"{out.name}.partial")
    found = _earlier(partial, seconds)
    stamps = {path.relative_to(folder).as_posix(): f"{path.stat().st_size}-{path.stat().st_mtime_ns}" for path in files}
    found = {name: record for name, record in found.items() if record["stamp"] == stamps.get(name)}
    missing = [name for name in stamps if name not in found]
    progress(len(found), len(files))
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a", encoding="utf-8") as log:
        for name, features, error in _computed(folder, missing, seconds, workers):
            found[name] = {
                "name": name,
                "stamp": stamps[name],
                "seconds": seconds,
                "features": features,
                "error": error,
            }
            log.write(json.dumps(found[name]) + "\n")
            log.flush()
            progress(len(found), len(files))
    rows = [
        {"track_id": name, **found[name]["features"], "path": str((folder / name).resolve())}
        for name in stamps
        if found[name]["features"]
    ]
    unreadable = {name: found[name]["error"] for name in stamps if not found[name]["features"]}
    if not rows:
        name, reason = next(iter(unreadable.items()))
        partial.unlink()
        raise DataError(f"none of the {len(files):,} sound files in {folder} can be read; {name}: {reason}")
    _write(rows, out)
    partial.unlink()
    return Extraction(out, len(rows), unreadable)


def sound_files(folder: Path) -> list[Path]:
    """The sound files below a folder, in the order of their paths. Raises DataError where there is none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of sound files")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"{folder} has no sound files ({', '.join(SUFFIXES)})")
    return files


def _require_libraries() -> None:
    from importlib.util import find_spec

    if find_spec("librosa") is None or find_spec("mutagen") is None:
        raise InputError(MISSING)


def _earlier(partial: Path, seconds: float) -> dict[str, dict[str, Any]]:
    """What an interrupted call left; a line that was cut off is left out."""
    found = {}
    for line in partial.read_text(encoding="utf-8").splitlines() if partial.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["seconds"] == seconds:
            found[record["name"]] = record
    return found


def _computed(
    folder: Path, names: Sequence[str], seconds: float, workers: int | None
) -> Iterator[tuple[str, dict[str, Any] | None, str]]:
    """Name, features and error of each file, as they are finished."""
    workers = min(workers or os.cpu_count() or 1, len(names))
    if workers <= 1:
        yield from (_one(folder, name, seconds) for name in names)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        try:
            for done in as_completed([pool.submit(_one, folder, name, seconds) for name in names]):
                yield done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _one_thread() -> None:
    """Each process uses one core; runs before numerical libraries are imported."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the decoders in C print about a damaged file."""
    import warnings

    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere:
        warnings.simplefilter("ignore")  # of decoders that are tried in turn, and of silence
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _one(folder: Path, name: str, seconds: float) -> tuple[str, dict[str, Any] | None, str]:
    try:
        with _quiet():
            return name, features_of(folder / name, seconds), ""
    except (DataError, OSError, ValueError) as error:
        return name, None, why(error)


def _write(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(rows))
    at = table.schema.get_field_index("timbre")
    vectors = table.column(at).combine_chunks().flatten().cast(pa.float32())
    table = table.set_column(at, "timbre", pa.FixedSizeListArray.from_arrays(vectors, 2 * N_MFCC))
    draft = out.with_name(f"{out.name}.draft")
    pq.write_table(table, draft)
    draft.replace(out)


def run(folder: Path, out: Path, *, seconds: float, workers: int | None) -> int:
    """The command: extract with a progress bar, and say what was written and what could not be read."""
    from tqdm import tqdm

    with tqdm(total=0, unit="file", file=sys.stderr, disable=not sys.stderr.isatty(), leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        done = extract(folder, out, seconds=seconds, workers=workers, progress=show)
    for name, reason in list(done.unreadable.items())[:5]:
        print(f"warning: {name}: {reason}", file=sys.stderr)
    left = f"; {len(done.unreadable):,} files could not be read" if done.unreadable else ""
    print(f"{done.path}: {done.n_tracks:,} tracks{left}")
    print(
        f"  gpuclust -m data.path={done.path} data.roles.group=genre 'data.exclude=[key,mode]' 'cluster.n_clusters=range(2,11)'"
    )
    return 0
