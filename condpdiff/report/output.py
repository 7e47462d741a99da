"""Writes a finished report: page, Markdown, figures, plots and metrics.json, the same files in every domain."""

import sys
from pathlib import Path
from typing import Any

from condpdiff.common.files import new_directory, write_json
from condpdiff.report import doses, page, render, style_page
from condpdiff.report.curves import arms_table, write_plots


def write(
    out: Path,
    report: page.Report,
    inputs: page.Inputs | style_page.Inputs,
    results: str,
    metrics: dict[str, Any],
) -> None:
    """Write everything to `out`, and the report's warnings to stderr.

    Args:
        results: text of `results.md`.
        metrics: content of `metrics.json`.
    """
    for warning in report.warnings:
        sys.stderr.write(f"warning: {warning}\n")

    out.mkdir(exist_ok=True)
    with new_directory(out / "figures") as folder:
        for image in report.images:
            (folder / image.file).write_text(image.svg, encoding="utf-8")
        for picture in report.pictures:
            (folder / picture.file).write_bytes(picture.png)
    frames = {
        "arms": arms_table(report.summary),
        "doses": doses.frame(inputs.evaluations),
        "finetune_loss": inputs.finetune_loss,
        "finetune_validation": inputs.finetune_validation,
        "autoencoder": inputs.autoencoder[0],
        "ldm": inputs.ldm[0],
    }
    with new_directory(out / "plots") as folder:
        write_plots(folder, frames)
    (out / "index.html").write_text(render.html(report), encoding="utf-8")
    (out / "report.md").write_text(render.markdown(report), encoding="utf-8")
    (out / "results.md").write_text(results, encoding="utf-8")
    write_json(out / "metrics.json", metrics)
