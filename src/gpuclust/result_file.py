"""The result of a command as JSON, for `gpuclust run --result FILE`: the run, the choice, the verdict, and which jobs failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpuclust.model.records import plain
from gpuclust.pipeline.sweep_result import SweepResult
from gpuclust.sanitize import mask


def result_record(result: SweepResult) -> dict[str, Any]:
    """Plain values: ``run_id`` is the sweep, or the job of a command with one job; ``chosen`` is None if no job was chosen."""
    chosen, conclusion = result.chosen, result.conclusion
    only = result.outcomes[0].run_id if len(result.outcomes) == 1 else ""
    verdict = conclusion.verdict if conclusion else None
    return {
        "run_id": result.parent or only,
        "is_sweep": result.parent is not None,
        "n_jobs": len(result.outcomes),
        "n_failed": len(result.failed),
        "n_resumed": sum(outcome.resumed for outcome in result.outcomes),
        "seconds": result.seconds,
        "chosen": chosen and {"run_id": chosen.run_id, "name": chosen.job.name, "metrics": plain(chosen.metrics)},
        "reason": conclusion.reason if conclusion else "",
        "verdict": verdict.text if verdict else "",
        "verdict_kind": verdict.kind if verdict else "",
        "because": list(verdict.because) if verdict else [],
        "failures": [f"{outcome.job.name}: {outcome.error or 'failed'}" for outcome in result.failed],
    }


def write_result(result: SweepResult, path: Path) -> None:
    """Write the record of a result; a file that exists is replaced as a whole."""
    text = json.dumps(mask(result_record(result)), indent=2, ensure_ascii=False) + "\n"
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
