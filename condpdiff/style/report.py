"""What styles add to the report: distances above a floor, the spread of candidates, the images themselves."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from condpdiff.common.errors import UserError
from condpdiff.report.blocks import Block, Figures, Section, Table, Text
from condpdiff.report.compare import Comparison, Difference, number, signed
from condpdiff.report.evaluation import Evaluation, Scale
from condpdiff.report.figures import colour
from condpdiff.report.png import Picture, read_picture
from condpdiff.report.readers import read_csv
from condpdiff.report.spec import Settings, Spec
from condpdiff.report.summary import ArmScore, Summary, averages
from condpdiff.report.svg import Image, figure, image, styled
from condpdiff.style.task import Task

PAPER = Path("configs/paper/table2_style_fid.csv")
SHEET = 1024
"""Pixels of the sample sheet's longer side in the page."""
SHOWN = ("real", "no_lora", "original", "soup", "gaussian", "condpdiff")
"""Columns of the grid of images."""
RESULTS = (
    "{metric} to the style's validation images of each arm's selected candidate, **lower is better**, and in brackets "
    "how far that is above the floor: the mean over draws of real training images, {images} a draw as for every "
    "candidate, or all where there are fewer. Candidates are selected by their denoising loss on held-out images, and "
    "generate from the same prompts and the same noise. Bold: lowest of its column, the floor apart."
)
MEASURED = (
    "{metric} is the Fréchet distance on {features}; lower is better, and on so few images a perfect generator would "
    "not reach 0 either: compare with the floor. {images} images a candidate, {steps} denoising steps each, guidance "
    "{guidance:g}; at most {most} validation images. Candidates are selected on {held} held-out images."
)
LITE0 = (
    "EfficientNet-Lite0's pooled features of images brought to 32 pixels a side, or to 96 where the name says so (no "
    "FID, and not comparable with one)"
)
GALLERY = (
    "{style} ({description}): images of each arm's selected candidate ({arms}), the same noise in a row. The first "
    "column shows real {source} of the same captions, which no LoRA was trained on."
)
SAME_CROPS = (
    " Images of one caption of a rendered style are one crop of one photograph, moved by less than a pixel: training, "
    "held-out and validation images differ by that alone, and the floor is as low for that reason."
)
BASE = (
    "The base model before any LoRA, one of its photographs a column. From the top: a real crop, the same through the "
    "image autoencoder, and images generated from the crop's caption. **It is small and overfits the few photographs "
    "that it was trained on**: what it draws are those photographs again, and nothing here says how a large model "
    "would do."
)
BASE_CURVES = {"autoencoder": "Image autoencoder", "denoiser": "Transformer"}
"""File of `data/base/` -> title of its figure."""
BASE_TRAINING = "Training of the base model's parts; faint: single batches, strong: their running mean."
PAPER_SAYS = (
    "These are the paper's numbers: **FID of the full PixArt on other images, not comparable** with anything above. "
    "They show what size of difference the paper reports: condpdiff lies {gain} from original on average, where "
    "no LoRA lies {bare} from it."
)
PAPER_TABLE = "FID, lower is better, from Table 2 of arXiv 2408.01415."


class StyleSpec(Spec):
    """Fréchet distances, of which lower is better. One is called FID only where Inception's features stand behind."""

    scale = Scale(
        noun="style",
        axis="{metric}, lower is better",
        bare={
            "floor": "real training images, as many as a candidate generates: what so few images of the style score",
            "no_lora": "the base model without LoRA",
        },
        lower=True,
        decimals=2,
        floor="floor",
        metrics={"fd_lite0": "FD-Lite0", "fd_lite0_96": "FD-Lite0 at 96 pixels", "fid": "FID"},
    )
    interval = (
        "The bars are the spread of candidates (the larger of the two arms' standard deviations) to either side; one "
        "that holds 0 is called a tie."
    )
    differences = (
        "The same differences, negative where condpdiff is better, and the range that the spread of candidates gives "
        "them. The spread is that of weights: every candidate is given the same prompts and the same noise, and images "
        "were not resampled, so it is no confidence interval."
    )
    all_metrics = "All distances of the same selected candidates, lower is better."
    why_racing = (
        "It generates images with each arm's selected candidate alone: what needs the distances of all candidates "
        "(their mean, deviation and best, and with them whether a difference is more than chance) is left out."
    )
    doses = (
        "Loss is the denoising loss on held-out images of the style; what asking brings to the images themselves was "
        "not measured."
    )
    nonsense = "images of noise"
    passed = "images"

    def __init__(self, tasks: Mapping[str, Task], data: Path) -> None:
        super().__init__(tasks, data)
        self.images = {e.name: read_images(data / "eval" / e.name) for e in self.evaluations}
        self.rendered = {name: task.data.source.type == "rendered" for name, task in tasks.items()}

    @property
    def nouns(self) -> str:
        """Photographs that a renderer has made over are no artist's style, and are not called so."""
        return "rendered styles" if all(self.rendered.values()) else "styles"

    def why_not_learned(self, e: Evaluation, margin: float) -> str:
        """The checkpoints are hardly nearer to the style than the base model is.

        Args:
            margin: percent of the way from no LoRA to the floor that the selected checkpoint must have gone.
        """
        best, floor, bare = (e.picked(arm) for arm in ("original", "floor", "no_lora"))
        if best < bare and bare - best >= margin / 100 * (bare - floor):
            return ""
        return (
            f"the selected checkpoint's {e.metric} ({best:.2f}) is less than {margin:g} % of the way from no LoRA "
            f"({bare:.2f}) to the floor ({floor:.2f})"
        )

    def compare(self, summary: Summary, arm: str, seed: int) -> Comparison:
        """The difference of selected candidates, and round it the spread of candidates.

        The spread is the larger of the two arms' standard deviations over candidates; for the mean over styles it is
        the mean of theirs. It is not known where neither arm has several scored candidates: then nothing is told apart.
        """
        cells = {(s.task, s.arm): s for s in summary}
        pairs = {e.name: (cells[e.name, "condpdiff"], cells[e.name, arm]) for e in self.evaluations}
        values = {style: ours.selected - theirs.selected for style, (ours, theirs) in pairs.items()}
        spreads = {style: _spread(*pair) for style, pair in pairs.items()}
        each = {style: _difference(values[style], spreads[style]) for style in pairs}
        return Comparison(
            arm, each, _difference(float(np.mean(list(values.values()))), float(np.mean(list(spreads.values()))))
        )

    def said(self, difference: Difference) -> str:
        spread = f"spread of candidates {(difference.high - difference.low) / 2:.2f}"
        return f"{signed(difference.value)}, {spread if difference.known else 'the spread of candidates is not known'}"

    def qualified(self, comparisons: Mapping[str, Comparison], summary: Summary) -> list[str]:
        """Against the checkpoints, the floor, and the range of candidates."""
        picked, original = averages(summary), comparisons["original"].average
        mean, std, best, worst = (averages(summary, field)["condpdiff"] for field in ("mean", "std", "best", "worst"))
        spread = "No interval is given: candidates' distances are single figures, and images were not resampled."
        if not math.isnan(std):
            spread = (
                f"condpdiff's candidates have mean {mean:.2f}, standard deviation {std:.2f} and range {best:.2f} to "
                f"{worst:.2f}; images were not resampled, so these are no confidence intervals."
            )
        return [
            f"It **{original.word}** original, the selected checkpoint ({picked['original']:.2f}): "
            f"{self.said(original)}.",
            f"The floor of so few images is {picked['floor']:.2f} (real images against real ones); without a LoRA the "
            f"base model is at {picked['no_lora']:.2f}.",
            spread,
        ]

    def measured(self, params: Settings) -> str:
        metric, e = self.evaluations[0].metric, params.eval
        return MEASURED.format(
            metric=metric, features=LITE0 if metric.startswith("FD-Lite0") else "features of Inception",
            images=e.images, steps=e.image_steps, guidance=e.image_guidance, most=params.data.max_validation,
            held=e.select_rows,
        )  # fmt: skip

    def results(self, params: Settings) -> str:
        return RESULTS.format(metric=self.evaluations[0].metric, images=params.eval.images)

    def shown(self) -> list[Section]:
        """The images of the selected candidates, an arm a column."""
        return [Section("images", "The images themselves", [self._gallery(e) for e in self.evaluations])]

    def _gallery(self, e: Evaluation) -> Table:
        rendered = self.rendered[e.name]
        caption = GALLERY.format(
            style=e.name, description=e.task.condition.description, arms=", ".join(SHOWN[1:]),
            source="photographs through a renderer" if rendered else "images of the style",
        ) + (SAME_CROPS if rendered else "")  # fmt: skip
        columns = ["prompt", f"real {e.name}", *SHOWN[1:]]
        return Table(caption, columns, self.images[e.name], pictures=True)

    def base(self, params: Settings) -> list[Section]:
        """The sample sheet and the curves of a base model that prepare-base trained; nothing of another one."""
        if params.base.source != "trained":
            return []
        folder = self.data / "base"
        says = "Real crops and what the base model generates"
        sheet = read_picture(folder / "samples.png", "base-samples", says, SHEET)
        curves = [
            training_curve(
                read_csv(folder / f"{file}.csv", ["step", "loss"]), f"base-{title.split()[-1].lower()}", title
            )
            for file, title in BASE_CURVES.items()
        ]
        return [Section("base", "The base model", [Figures(BASE, [sheet], wide=True), Figures(BASE_TRAINING, curves)])]

    def paper(self) -> list[Block]:
        arms = ["condpdiff", "original", "soup", "no_lora"]
        table = read_csv(PAPER, ["style", *arms])
        average = table.loc[table["style"] == "Average"].iloc[0]
        rows = [[str(row["style"]), *(number(float(row[arm])) for arm in arms)] for _, row in table.iterrows()]
        gain, bare = (signed(average[arm] - average["original"]) for arm in ("condpdiff", "no_lora"))
        return [Text(PAPER_SAYS.format(gain=gain, bare=bare)), Table(PAPER_TABLE, ["style", *arms], rows, foot=1)]

    def task_settings(self, e: Evaluation) -> dict[str, str]:
        data, fine = e.task.data, e.task.finetune
        source = data.source.type
        if source == "rendered":
            index = data.source.index
            source += f": {data.source.renderer}" + ("" if index is None else f" {index}")
        return {
            "description": e.task.condition.description, "images": source, "pixels": f"{data.size} x {data.size}",
            "steps": str(fine.steps), "batch": str(fine.batch_size), "LoRA lr": f"{fine.lr:g}",
        }  # fmt: skip


@styled
def training_curve(frame: pd.DataFrame, name: str, title: str) -> Image:
    """Training curve of one network on a logarithmic axis, of a frame step, loss."""
    fig, (ax,) = figure(2.9)
    step, loss, c = frame["step"], frame["loss"], colour("original")
    if len(frame) >= 100:  # single batches are noisy: show them faintly under their running mean
        ax.plot(step, loss, color=c, lw=0.6, alpha=0.3)
        loss = loss.rolling(len(frame) // 40, min_periods=1, center=True).mean()
    ax.plot(step, loss, color=c, lw=1.6)
    ax.set(xlabel="step", ylabel="loss", yscale="log", title=title)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.02)
    return image(fig, name, f"{title}: training loss over steps")


def _spread(*arms: ArmScore) -> float:
    return float(np.max([s.std for s in arms if s.candidates > 1] or [math.nan]))  # in racing std is NaN


def _difference(value: float, spread: float) -> Difference:
    return Difference(value, value - spread, value + spread, lower=True)


def read_images(folder: Path) -> list[list[str | Picture]]:
    """Of each prompt the images of SHOWN: the selected candidates', and a real one of the same caption.

    Raises:
        UserError: the table or an image is absent or broken, or an arm has not the images of condpdiff's prompts.
    """
    path = folder / "images.csv"
    table = read_csv(path, ["arm", "file", "prompt", "seed"]).astype({"prompt": str})
    shown = {arm: table[table["arm"] == arm] for arm in SHOWN}
    prompts = list(shown["condpdiff"]["prompt"])
    if not prompts:
        raise UserError(f"{path}: found no images of arm 'condpdiff'; run `dvc repro` again")
    lines: list[list[str | Picture]] = [[prompt] for prompt in prompts]
    for arm, rows in shown.items():
        if len(rows) != len(prompts):
            needed = f"needed: {len(prompts)}, as of condpdiff"
            raise UserError(f"{path}: found {len(rows)} images of arm {arm!r}, {needed}; run `dvc repro` again")
        if list(rows["prompt"]) != prompts:
            raise UserError(f"{path}: the prompts of arm {arm!r} are not those of condpdiff; run `dvc repro` again")
        for i, (line, file) in enumerate(zip(lines, rows["file"], strict=True)):
            name, alt = f"{folder.name}-{arm}-{i}", f"{folder.name}, {arm}: {prompts[i]}"
            line.append(read_picture(folder / file, name, alt))
    return lines


spec = StyleSpec
"""What `domain.ReportModule` asks for."""
