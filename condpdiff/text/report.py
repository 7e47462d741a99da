"""The report of text tasks: what the page is made from, and everything that is written beside it."""

from pathlib import Path
from typing import Any

from condpdiff.common.settings import PARAMS
from condpdiff.experiments.params import Params
from condpdiff.report.between import read_between
from condpdiff.report.curves import read_curve, read_task_curves, read_zoo_losses
from condpdiff.report.output import write
from condpdiff.report.page import Inputs, build, results_table
from condpdiff.report.probe import effect, read_probe
from condpdiff.report.readers import read_csv
from condpdiff.report.render import brief
from condpdiff.report.revision import revision
from condpdiff.report.studies import STUDIES, read_studies
from condpdiff.report.tables import metrics, read_evaluation
from condpdiff.report.trajectories import read_trajectories

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
        probed=read_probe(DATA / "probe", lower=False),
        trajectories={
            name: read_trajectories(DATA / "samples", DATA / "zoo", name, params.normalize.n_checkpoints)
            for name in params.tasks
        },
        studies=read_studies(STUDIES),
        revision=revision(),
        paper=read_csv(PAPER, ["model", "rank", "task", "condpdiff", "original", "soup"]),
    )
    report = build(inputs)
    results = brief(report, results_table(report.summary, evaluations))
    figures = metrics(report.summary, report.flags) | effect(inputs.probed, evaluations)
    write(out, report, inputs, results, figures)
