"""Audio features of sound files: their values where these are known, tags, damaged files, and an interrupted call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpuclust.cli import main
from gpuclust.errors import DataError, InputError
from gpuclust.tracks import audio

soundfile = pytest.importorskip("soundfile", reason="install gpuclust[audio]")
pytest.importorskip("librosa", reason="install gpuclust[audio]")

RATE = audio.SAMPLE_RATE
TIME = np.arange(RATE * 10) / RATE


def chord(*semitones: int) -> np.ndarray:
    """A sound of notes above A3 (220 Hz), each with an amplitude of 0.1."""
    return np.asarray(sum(0.1 * np.sin(2 * np.pi * 220 * 2 ** (s / 12) * TIME) for s in semitones))


def clicks(per_minute: float) -> np.ndarray:
    sound = np.zeros_like(TIME)
    burst = np.exp(-np.arange(800) / 100) * np.random.default_rng(0).normal(size=800)
    for second in np.arange(0, 10, 60 / per_minute):
        part = sound[int(second * RATE) :][:800]
        part += burst[: len(part)]
    return 0.3 * sound


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import mutagen

    folder = tmp_path_factory.mktemp("music")
    for name, sound in (
        ("The Clicks/fast.flac", clicks(150)),
        ("The Clicks/slow.wav", clicks(75)),
        ("Chords/A major.ogg", chord(0, 4, 7, 12)),
        ("Chords/C minor.mp3", chord(3, 6, 10, 15)),
        ("Chords/silence.wav", np.zeros_like(TIME)),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, sound, RATE)
    tags: Any = mutagen.File(folder / "The Clicks/fast.flac", easy=True)
    tags["title"], tags["artist"], tags["genre"], tags["date"] = "Fast", "Mr. Click", "techno", "1999-05-01"
    tags.save()
    (folder / "Chords/broken.mp3").write_bytes(b"no sound")
    (folder / "Chords/short.wav").write_bytes((folder / "The Clicks/slow.wav").read_bytes()[:2000])
    (folder / "cover.jpg").write_bytes(b"no sound either")
    return folder


@pytest.fixture(scope="module")
def table(music: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    out = tmp_path_factory.mktemp("out") / "tracks.parquet"
    done = audio.extract(music, out, workers=1)
    assert (done.n_tracks, set(done.unreadable)) == (5, {"Chords/broken.mp3", "Chords/short.wav"})
    assert done.unreadable["Chords/short.wav"] == "it holds less than half a second of sound"
    assert sorted(path.name for path in out.parent.iterdir()) == ["tracks.parquet"]
    return pd.read_parquet(out).set_index("track_id")


def test_measurements_of_sounds_that_are_known(table: pd.DataFrame) -> None:
    fast, slow = table.loc["The Clicks/fast.flac"], table.loc["The Clicks/slow.wav"]
    major, minor, silence = (table.loc[f"Chords/{name}"] for name in ("A major.ogg", "C minor.mp3", "silence.wav"))
    assert (table["duration_ms"] - 10_000).abs().max() < 100
    assert fast["tempo"] == pytest.approx(150, rel=0.05)
    assert slow["tempo"] == pytest.approx(75, rel=0.05) or slow["tempo"] == pytest.approx(150, rel=0.05)
    assert fast["onset_rate"] == pytest.approx(2.5, abs=0.3)
    assert slow["onset_rate"] == pytest.approx(1.25, abs=0.3)
    assert min(fast["pulse_clarity"], slow["pulse_clarity"]) > 0.6
    assert (major["key"], major["mode"]) == (9, 1)
    assert (minor["key"], minor["mode"]) == (0, 0)
    assert major["loudness"] == pytest.approx(10 * np.log10(4 * 0.1**2 / 2), abs=0.5), "four sines of amplitude 0.1"
    assert fast["brightness"] > 3000 > 700 > major["brightness"] > 220
    assert fast["noisiness"] > 0.3 > 0.01 > major["noisiness"]
    assert (silence["tempo"], silence["loudness"], silence["onset_rate"]) == (0, -120, 0)
    assert np.isfinite(table.drop(columns=["timbre"]).select_dtypes("number")).all().all()
    assert table["timbre"].map(len).unique().tolist() == [40]


def test_titles_come_from_tags_or_from_names(table: pd.DataFrame) -> None:
    tagged = table.loc["The Clicks/fast.flac"]
    assert [tagged[name] for name in ("track_name", "artists", "genre", "year")] == [
        "Fast",
        "Mr. Click",
        "techno",
        "1999",
    ]
    named = table.loc["The Clicks/slow.wav"]
    assert [named["track_name"], named["artists"]] == ["slow", "The Clicks"]
    assert table.loc[["The Clicks/slow.wav"], ["genre", "year"]].isna().all(axis=None)


def test_an_interrupted_call_continues(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "tracks.parquet"
    computed: list[str] = []
    real = audio.features_of

    def stops_after_three(path: Path, seconds: float) -> dict[str, Any]:
        if len(computed) == 3:
            raise KeyboardInterrupt
        computed.append(path.name)
        return real(path, seconds)

    monkeypatch.setattr(audio, "features_of", stops_after_three)
    with pytest.raises(KeyboardInterrupt):
        audio.extract(music, out, seconds=2, workers=1)
    partial = tmp_path / "tracks.parquet.partial"
    assert [json.loads(line)["name"].partition("/")[2] for line in partial.read_text().splitlines()] == computed
    with partial.open("a") as file:
        file.write('{"name": "cut o')

    def counts(path: Path, seconds: float) -> dict[str, Any]:
        computed.append(path.name)
        return real(path, seconds)

    monkeypatch.setattr(audio, "features_of", counts)
    done = audio.extract(music, out, seconds=2, workers=1)
    assert done.n_tracks == 5
    assert len(computed) == len(set(computed)) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tracks.parquet"]


def test_the_command_writes_a_table_that_a_job_reads(
    music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tracks.parquet"
    assert main(["features", str(music / "The Clicks"), "--out", str(out), "--seconds", "2", "--workers", "2"]) == 0
    assert f"{out}: 2 tracks" in capsys.readouterr().out
    assert main(["describe", str(out)]) == 0
    said = capsys.readouterr().out
    assert "brightness" in said
    assert main(["features", str(music), "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err


def test_what_cannot_be_done_is_one_line(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "tracks.parquet"
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="has no sound files"):
        audio.extract(tmp_path / "none", out)
    with pytest.raises(DataError, match="is not a folder of sound files"):
        audio.extract(tmp_path / "absent", out)
    (tmp_path / "none" / "a.mp3").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"none of the 1 sound files in .* can be read; a\.mp3: it cannot be decoded"):
        audio.extract(tmp_path / "none", out, workers=1)
    assert not out.with_name("tracks.parquet.partial").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'gpuclust\[audio\]'"):
        audio.extract(music, out)
