"""Figures of docs/unseen.md, of a finished run of style-many: `python -m benchmarks.styles`, where its `data/` is.

Writes docs/style-many.png (what each arm makes of six unseen styles), docs/style-map.png (every style's condition) and
docs/style-curve.png (more styles to train on, of docs/studies/styles.csv), and prints how far apart styles lie.
With the word `rows` it prints how each finished row of the study `styles` differs from `both`, style by style.
"""

import io
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from condpdiff.common.files import read_json, read_tensors
from condpdiff.common.task import Members
from condpdiff.diffusion.conditions import FILE, PROJECTION
from condpdiff.experiments.finished import Experiment, read_at
from condpdiff.experiments.study_plan import load_study
from condpdiff.experiments.study_results import read

DOCS = Path("docs")
SHOWN = (("gradings", 0), ("paintings", 0), ("prints", 0), ("strokes", 0), ("fixed", 0), ("fixed", 1))  # the first
ARMS = {
    "condition": "five pictures\n(the condition)",
    "no_lora": "no LoRA",
    "nearest": "nearest LoRA",
    "ridge": "regression",
    "condpdiff": "condpdiff",
    "own": "own LoRA,\n80 steps",
    "truth": "truth",
}
HELD_OUT = ("strokes", "fixed", "pictures")
TRAINED = {12: "styles-12", 24: "styles-24", 48: "styles-48", 96: "both"}  # styles -> row of the study `styles`
ALONE = {12: "styles-12-zoo", 24: "styles-24-zoo", 48: "styles-48-zoo", 96: "reconstruction-alone"}


def grid(data: Path) -> Figure:
    """A row a style, a column an arm; two captions each."""
    fig = Figure(figsize=(len(ARMS) * 1.25, len(SHOWN) * 0.66 + 0.35), dpi=130)
    axes = fig.subplots(len(SHOWN), len(ARMS))
    for row, (family, q) in zip(axes, SHOWN, strict=True):
        for ax, arm in zip(row, ARMS, strict=True):
            image = np.asarray(Image.open(data / "eval" / family / "images" / f"{arm}-{q}.png").convert("RGB"))
            ax.imshow(image[: len(image) // 2])  # the first two of four captions
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(family + "\n(held out)" * (family in HELD_OUT), fontsize=7.5)
    for ax, name in zip(axes[0], ARMS.values(), strict=True):
        ax.set_title(name, fontsize=8)
    fig.subplots_adjust(left=0.07, right=0.995, top=0.91, bottom=0.005, wspace=0.06, hspace=0.06)
    return fig


def styles(data: Path) -> dict[str, np.ndarray]:
    """Conditions [Q, draws, d] of each family's members along the encoder's principal axes, of their own lengths."""
    y, found = read_tensors(data / "conditions" / FILE), {}
    lengths = read_tensors(data / "conditions" / PROJECTION)["axes"].norm(dim=1).numpy()  # each divides by a deviation
    for family in dict.fromkeys(name.partition("/")[0] for name in y):
        count = sum(name.startswith(f"{family}/") for name in y)
        found[family] = np.stack([y[f"{family}/{q}"].numpy() / lengths for q in range(count)])
    return found


def apart(y: np.ndarray) -> float:
    """Root mean square distance between members' mean conditions, over that between a member's own draws."""
    within = np.mean([np.square(y[:, i] - y[:, j]).sum(1).mean() for i, j in combinations(range(y.shape[1]), 2)])
    means = y.mean(1)
    between = np.mean([np.square(one - other).sum() for one, other in combinations(means, 2)])
    return float(np.sqrt(between / within))


def style_map(data: Path) -> Figure:
    """Every style on the first two principal axes of the conditions."""
    fig = Figure(figsize=(6.4, 4.4), dpi=110, layout="constrained")
    ax: Axes = fig.subplots()
    for i, (family, y) in enumerate(styles(data).items()):
        members = Members(**read_json(data / "settings" / family / "members.json"))
        means = y.mean(1)[:, :2]
        trained = means[members.of("train")]
        ax.scatter(*trained.T, s=14, color=f"C{i}", alpha=0.5, linewidths=0)
        asked = means[members.of("unseen", "tuning")]
        label = f"{family} (held out)" if family in HELD_OUT else family
        ax.scatter(*asked.T, s=34, facecolors="none", edgecolors=f"C{i}", linewidths=1.4, label=label)
    ax.set(xlabel="first principal axis of the conditions", ylabel="second", xticks=[], yticks=[], aspect="equal")
    place = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False}
    ax.legend(title="rings: not trained on", fontsize=8, title_fontsize=8, **place)
    return fig


def curve() -> Figure:
    """Share of the gap closed over the number of styles in the zoo, with fresh styles and without."""
    rows = pd.read_csv(DOCS / "studies/styles.csv").query("arm == 'condpdiff_mean'")
    values = rows.pivot_table("value", "row", "task")
    fig = Figure(figsize=(6.4, 2.8), dpi=110, layout="constrained")
    for ax, group in zip(fig.subplots(1, 2, sharex=True), ("known families", "held-out families"), strict=True):
        for names, label in ((TRAINED, "and fresh styles"), (ALONE, "zoo alone (reconstruction)")):
            ran = {n: values.loc[row, group] for n, row in names.items() if row in values.index}
            ax.plot(list(ran), list(ran.values()), "o-", label=label)
        ax.set(xscale="log", title=group, xlabel="styles in the zoo", ylim=(0, 100), ylabel="gap closed, %")
        ax.set_xticks(list(TRAINED), map(str, TRAINED))
        ax.minorticks_off()
    ax.legend(frameon=False, fontsize=8)
    return fig


def cells(experiment: Experiment, families: Sequence[str]) -> np.ndarray:
    """RMSE of mean soup, condpdiff (mean over samples) and own LoRA of each unseen style [styles, 3]."""
    tables = [io.StringIO(read_at(experiment.commit, f"data/eval/{family}/arms.csv")) for family in families]
    unseen = pd.concat(pd.read_csv(table) for table in tables).query("tier == 'unseen'")
    return unseen.pivot_table("rmse", ["family", "member"], "arm")[["mean_soup", "condpdiff", "own"]].to_numpy()


def closed(rmse: np.ndarray) -> np.ndarray:
    """Columns of `cells` [..., styles, 3] -> percent of the gap that is closed [...]."""
    soup, ours, own = np.moveaxis(rmse.sum(-2), -1, 0)
    return 100 * (soup - ours) / (soup - own)


def rows() -> None:
    """Paired bootstrap over styles: the same ones are drawn of a row and of `both`."""
    results = read(load_study("styles"))
    there = {row.name: of[0] for row in results.study.rows if (of := results.runs(row))}  # of seed 0
    for families in (("gradings", "paintings", "prints"), ("strokes", "fixed")):
        both = cells(there["both"], families)
        drawn = np.random.default_rng(0).integers(len(both), size=(2000, len(both)))
        for name, experiment in there.items():
            found = cells(experiment, families)
            low, high = np.percentile(closed(found[drawn]) - closed(both[drawn]), [2.5, 97.5])
            print(f"{'+'.join(families)}: {name}: {closed(found):.1f} %, ", end="")
            print(f"{closed(found) - closed(both):+.1f} ({low:+.1f} to {high:+.1f})")


def figures(data: Path) -> None:
    for name, fig in (("many", grid(data)), ("map", style_map(data)), ("curve", curve())):
        path = DOCS / f"style-{name}.png"
        fig.savefig(path)
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
        print(path)
    for family, y in styles(data).items():
        print(f"{family}: styles lie {apart(y):.1f} times as far apart as the draws of one style")


if __name__ == "__main__":
    rows() if sys.argv[1:] == ["rows"] else figures(Path("data"))
