"""Names of clusters that a language model proposes, by a server that speaks the API of OpenAI (vLLM, llama.cpp, Ollama and others) or that of Ollama.

The model gets, for each cluster, what the export says of it: the features that set it apart, its groups, and titles of its rows. Nothing is
sent unless a person asks for it, and only to the server that the person names. A proposal is recorded beside the generated name.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gpuclust.edited_files import Row
from gpuclust.edits import EditedExport, open_edits, propose_names
from gpuclust.errors import ConfigurationError, ExportError, InputError
from gpuclust.model.manifest import ASSIGNMENTS, Manifest, opened, read_manifest, verify
from gpuclust.model.records import NOISE
from gpuclust.sanitize import mask, printable

MAX_TITLES, MAX_FEATURES, MAX_GROUPS = 20, 8, 6  # of a cluster, sent to the model
MAX_WORDS, MAX_CHARACTERS = 8, 80  # of a name; a longer answer is cut
MAX_ANSWER = 1 << 20  # bytes of an answer
TIMEOUT = 120.0  # seconds for an answer; a model may be loaded first
TASK = (
    "You name clusters of rows of a table. Answer with one name of two to five words in title case that a person would understand at "
    "once, different from the names already given. No quotes, no explanation."
)


def propose(folder: Path, url: str, model: str) -> EditedExport:
    """Ask a language model for a name of each cluster, and record the names as proposals.

    ``url`` is the address of the server, with or without ``/v1``. Raises ConfigurationError for an address that is not http, InputError where
    the server does not answer as its API says, and ExportError for a damaged export.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise ConfigurationError(f"--llm {mask(url)}: give the address of a server, such as http://localhost:11434")
    manifest = read_manifest(folder)
    rows = [row for row in open_edits(folder).clusters if row["cluster"] != NOISE]
    titles = titles_of(manifest)
    found: dict[int, str] = {}
    for row in rows:
        prompt = describe(row, titles.get(row["cluster"], ()), tuple(found.values()))
        found[row["cluster"]] = clean_name(ask(url, model, prompt), url)
    return propose_names(folder, found, how=f"{model} at {mask(url)}")


def describe(row: Row, titles: Sequence[str], taken: Sequence[str]) -> str:
    """What is sent to a model about a cluster: a row of ``clusters.parquet``, titles of its rows, and the names that are ``taken``."""
    z = {
        name.removeprefix("z_"): value
        for name, value in row.items()
        if name.startswith("z_") and not name.startswith("z_se_")
    }
    z = {name: value for name, value in z.items() if value is not None and f"mean_{name}" in row}
    telling = sorted(z, key=lambda name: -abs(z[name]))[:MAX_FEATURES]
    lines = [f"A cluster of {row['size']:,} rows, {row['fraction']:.0%} of the table."]
    if telling:
        features = (f"{name} {z[name]:+.1f} (mean {row[f'mean_{name}']:.4g})" for name in telling)
        lines.append(f"Features, in standard deviations from the mean of all rows: {', '.join(features)}.")
    for what, column in (
        ("Most frequent groups", "top_groups"),
        ("Over-represented groups", "top_groups_by_lift"),
        ("Words", "top_terms"),
    ):
        if values := [str(share["value"]) for share in (row.get(column) or ())[:MAX_GROUPS]]:
            lines.append(f"{what}: {', '.join(values)}.")
    if row.get("rule"):
        lines.append(f"Rule: {row['rule']}.")
    if titles:
        lines.append("Some of its rows: " + "; ".join(titles))
    if taken:
        lines.append(f"Names already given to other clusters: {'; '.join(taken)}.")
    return "\n".join(printable(line) for line in lines)


def titles_of(manifest: Manifest) -> dict[int, tuple[str, ...]]:
    """Cluster -> titles (with creators) of its most popular rows, of its most confident ones where there is no popularity; at most 20."""
    roles = manifest.roles
    if "title" not in roles:
        return {}
    wanted = {roles[r]: r for r in ("title", "creator", "popularity") if r in roles} | {
        "cluster": "cluster",
        "confidence": "confidence",
    }
    with opened(manifest.folder, ASSIGNMENTS) as file:
        verify(file, manifest, ASSIGNMENTS)
        try:
            frame = pd.read_parquet(file, columns=list(wanted)).rename(columns=wanted)
        except (ValueError, OSError) as error:
            raise ExportError(f"{manifest.folder / ASSIGNMENTS} is damaged ({error}); export it again") from error
    order = pd.to_numeric(frame["popularity" if "popularity" in roles else "confidence"], errors="coerce")
    frame = frame.loc[order.sort_values(ascending=False, kind="stable").index].dropna(subset="title")
    frame["text"] = frame["title"].astype(str)
    if "creator" in roles:
        frame["text"] += frame["creator"].map(lambda name: f" by {name}" if isinstance(name, str) and name else "")
    return {int(str(c)): tuple(dict.fromkeys(part["text"]))[:MAX_TITLES] for c, part in frame.groupby("cluster")}


def ask(url: str, model: str, prompt: str) -> str:
    """The answer of a model to a prompt: by the API of OpenAI, and where the server does not have it by that of Ollama."""
    messages = [{"role": "system", "content": TASK}, {"role": "user", "content": prompt}]
    base = url.rstrip("/").removesuffix("/v1").removesuffix("/api")
    content = {"model": model, "messages": messages, "stream": False}
    answer = _post(f"{base}/v1/chat/completions", {**content, "temperature": 0})
    if answer is None:
        answer = _post(f"{base}/api/chat", {**content, "options": {"temperature": 0}})
        if answer is None:
            raise InputError(
                f"{mask(url)} has neither /v1/chat/completions nor /api/chat; give the address of a language model's server"
            )
    try:
        message = answer["choices"][0]["message"] if "choices" in answer else answer["message"]
        return str(message["content"])
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"{mask(url)} answered without a message; give the address of a language model's server"
        ) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Titles are sent to the server that was named, and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, content: Mapping[str, Any]) -> Any:
    """The JSON that a server answers; None where it has no such address. Raises InputError, in one line."""
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT) as answer:
            return json.loads(answer.read(MAX_ANSWER))
    except urllib.error.HTTPError as error:
        said = _reason(error)
        if error.code in (404, 405) and "model" not in said.lower():
            return None
        raise InputError(f"{mask(url)} refused the request ({error.code}: {said})") from error
    except (OSError, ValueError) as error:  # no connection, a timeout, no JSON
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{mask(url)} does not answer ({reason}); start the server, for example with ollama serve"
        ) from error


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(error.read(500).decode("utf-8", "replace").split())[:200] or str(error.reason)
    except OSError:
        return str(error.reason)


def clean_name(answer: str, url: str = "the model") -> str:
    """The name in an answer: its last line without reasoning, quotes, marks and a label. Raises InputError where there is none."""
    text = answer.rpartition("</think>")[2]
    lines = [printable(line).strip(" \"'`*#.-“”") for line in text.splitlines()]
    name = next((line for line in reversed(lines) if line), "")
    label, colon, rest = name.partition(":")
    if colon and label.strip().lower() in ("name", "answer", "cluster name"):
        name = rest.strip(" \"'`*.“”")
    if not name:
        raise InputError(f"{mask(url)} answered without a name; try another model")
    return " ".join(name.split()[:MAX_WORDS])[:MAX_CHARACTERS]
