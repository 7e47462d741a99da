"""The report of styles: what the page is made from, and everything that is written beside it."""

from pathlib import Path
from typing import Any

from condpdiff.common.settings import PARAMS
from condpdiff.experiments.params import Params
from condpdiff.report.between import read_between
from condpdiff.report.curves import read_curve, read_task_curves, read_zoo_losses
from condpdiff.report.output import write
from condpdiff.report.png import read_picture
from condpdiff.report.probe import effect, read_probe
from condpdiff.report.readers import read_csv
from condpdiff.report.render import brief
from condpdiff.report.revision import revision
from condpdiff.report.studies import STUDIES, read_studies
from condpdiff.report.style_page import BaseModel, Inputs, build, results_table
from condpdiff.report.style_tables import metrics, read_style

DATA = Path("data")
PAPER = Path("configs/paper/table2_style_fid.csv")
SHEET = 1024
"""Pixels of the sample sheet's longer side in the page."""


def make(params: Params, tasks: dict[str, Any], out: Path) -> None:
    """Read the stages' small outputs and write page, tables, figures, images, plots and metrics.json to `out`."""
    evaluations = [read_style(DATA / "eval", name, task) for name, task in tasks.items()]
    inputs = Inputs(
        params=params,
        params_text=PARAMS.read_text(encoding="utf-8"),
        evaluations=evaluations,
        finetune_loss=read_task_curves(DATA / "zoo", params.tasks, "loss.csv", "loss"),
        finetune_validation=read_task_curves(DATA / "zoo", params.tasks, "validation.csv", "score"),
        autoencoder=read_curve(DATA / "autoencoder/curve.csv"),
        ldm=read_curve(DATA / "ldm/curve.csv"),
        zoo_losses=read_zoo_losses(DATA / "performance", evaluations, params.normalize.n_checkpoints),
        pairs=read_between(DATA / "interpolation", params.interpolate.pairs_of(params.tasks), images=True),
        probed=read_probe(DATA / "probe", lower=True),
        studies=read_studies(STUDIES),
        revision=revision(),
        paper=read_csv(PAPER, ["style", "condpdiff", "original", "soup", "no_lora"]),
        base=read_base(DATA / "base") if params.base.source == "trained" else None,
    )
    report = build(inputs)
    figures = metrics(report.summary, report.flags) | effect(inputs.probed, evaluations)
    write(out, report, inputs, brief(report, results_table(report.summary, inputs)), figures)


def read_base(folder: Path) -> BaseModel:
    """The sample sheet and the curves of a base model that prepare-base trained."""
    sheet = read_picture(folder / "samples.png", "base-samples", "Real crops and what the base model generates", SHEET)
    files = {"Image autoencoder": "autoencoder.csv", "Transformer": "denoiser.csv"}
    return BaseModel(sheet, {title: read_curve(folder / file) for title, file in files.items()})
