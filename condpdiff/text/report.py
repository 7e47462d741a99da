"""The report of text tasks: what the page is made from, and everything that is written beside it."""

import sys
from pathlib import Path
from typing import Any

from condpdiff.files import new_directory, write_json
from condpdiff.params.schema import Params
from condpdiff.params.section import PARAMS
from condpdiff.report import doses
from condpdiff.report.between import read_between
from condpdiff.report.curves import arms_table, read_curve, read_task_curves, read_zoo_losses, write_plots
from condpdiff.report.page import Inputs, build, html, markdown, short
from condpdiff.report.tables import metrics, read_csv, read_evaluation

DATA = Path("data")
PAPER = Path("configs/paper/table1_glue.csv")


def make(params: Params, tasks: dict[str, Any], out: Path) -> None:
    """Read the stages' small outputs and write page, tables, figures, plots and metrics.json to `out`."""
    evaluations = [read_evaluation(DATA / "eval", name, task) for name, task in tasks.items()]
    inputs = Inputs(
        params=params,
        params_text=PARAMS.read_text(encoding="utf-8"),
        evaluations=evaluations,
        finetune_loss=read_task_curves(DATA / "zoo", params.tasks, "loss.csv", "loss"),
        finetune_validation=read_task_curves(DATA / "zoo", params.tasks, "validation.csv", "score"),
        autoencoder=read_curve(DATA / "autoencoder/curve.csv"),
        ldm=read_curve(DATA / "ldm/curve.csv"),
        zoo_losses=read_zoo_losses(DATA / "performance", evaluations, params.normalize.n_checkpoints),
        pairs=read_between(DATA / "interpolation", params.interpolate.pairs_of(params.tasks), images=False),
        paper=read_csv(PAPER, ["model", "rank", "task", "condpdiff", "original", "soup"]),
    )
    report = build(inputs)
    for warning in report.warnings:
        sys.stderr.write(f"warning: {warning}\n")

    out.mkdir(exist_ok=True)
    with new_directory(out / "figures") as folder:
        for image in report.images:
            (folder / f"{image.name}.svg").write_text(image.svg, encoding="utf-8")
    frames = {
        "arms": arms_table(report.summary),
        "doses": doses.frame(evaluations),
        "finetune_loss": inputs.finetune_loss,
        "finetune_validation": inputs.finetune_validation,
        "autoencoder": inputs.autoencoder[0],
        "ldm": inputs.ldm[0],
    }
    with new_directory(out / "plots") as folder:
        write_plots(folder, frames)
    (out / "index.html").write_text(html(report), encoding="utf-8")
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    (out / "results.md").write_text(short(report, inputs.evaluations), encoding="utf-8")
    write_json(out / "metrics.json", metrics(report.summary, report.flags))
