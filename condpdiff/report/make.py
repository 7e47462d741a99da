"""The stage's work: build the report, and write its files."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from condpdiff.common.files import new_directory, write_json
from condpdiff.report import doses_section, page, render, unseen
from condpdiff.report.page import Report
from condpdiff.report.png import Picture
from condpdiff.report.readers import read_csv
from condpdiff.report.spec import Settings, Spec


def make(out: Path, params: Settings, spec: Spec, settings: str) -> None:
    """Write the report of a run of tasks.

    Args:
        settings: fingerprint of params.yaml and the tasks' files, by which studies find the run.
    """
    frames = {
        "doses": doses_section.frame(spec.evaluations),
        "finetune_loss": _of_tasks(spec, "loss.csv", "loss"),
        "finetune_validation": _of_tasks(spec, "validation.csv", "score"),
    }
    write(out, page.build(spec, params), frames, settings)


def make_unseen(out: Path, params: Settings, tasks: Mapping[str, Any], data: Path, settings: str) -> None:
    """Write the report of a run of families."""
    write(out, unseen.build(tasks, data, params.report.seed), unseen.frames(list(tasks), data), settings)


def write(out: Path, report: Report, frames: Mapping[str, pd.DataFrame], settings: str) -> None:
    """Write page, table, figures, plots and metrics.json to `out`, and the report's warnings to stderr."""
    for warning in report.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    out.mkdir(exist_ok=True)
    with new_directory(out / "figures") as folder:
        for image in report.images:
            (folder / image.file).write_bytes(image.png if isinstance(image, Picture) else image.svg.encode())
    with new_directory(out / "plots") as folder:
        for name, frame in {"arms": report.arms, **frames}.items():
            frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    (out / "index.html").write_text(render.html(report), encoding="utf-8")
    (out / "results.md").write_text(render.brief(report), encoding="utf-8")
    write_json(out / "metrics.json", report.metrics | {"settings": settings})


def _of_tasks(spec: Spec, file: str, y: str) -> pd.DataFrame:
    """`data/zoo/<task>/<file>` of all tasks in one frame: task, step, <y>."""
    columns = ["task", "step", y]
    return pd.concat([read_csv(spec.data / "zoo" / e.name / file, columns)[columns] for e in spec.evaluations])
