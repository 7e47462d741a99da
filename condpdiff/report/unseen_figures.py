"""Figures of a run of families: whose style came out, where conditions lie, and starts for fine-tuning."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap

from condpdiff.common.task import Members
from condpdiff.report.svg import LIGHT, PANEL, Image, figure, image, styled

if TYPE_CHECKING:
    from torch import Tensor

STARTS = ("zero", "mean_soup", "nearest", "ridge", "condpdiff")
COLOURS = [LIGHT["condpdiff"], *list(LIGHT.values())[8:]]


@styled
def start(rows: pd.DataFrame, group: str, key: str, label: str) -> Image:
    """Distance `key` over steps of fine-tuning, one line a start."""
    fig, (ax,) = figure(2.9)
    means = rows.groupby("arm")[key].mean()
    for number, name in enumerate(STARTS):
        if f"{name}+5" not in means:
            continue
        steps = sorted(int(str(a).partition("+")[2]) for a in means.index if str(a).startswith(f"{name}+"))
        y = [means["no_lora" if name == "zero" else name], *(means[f"{name}+{s}"] for s in steps)]
        ax.plot([0, *steps], y, "-o", color=COLOURS[(number + 1) % len(STARTS)], lw=1.6, ms=3.5, label=name)
    ax.set(xlabel="steps of fine-tuning", ylabel=label, title=group)
    alt = f"{group}: distance over steps of fine-tuning from each start"
    return image(fig, f"start-{group.replace(' ', '-')}", alt, legend=3)


@styled
def matrices(found: Mapping[str, pd.DataFrame]) -> list[Image]:
    """Of each family the distances of LoRAs asked for (rows) to true styles (columns), seen members beside unseen."""
    drawn = []
    shades = LinearSegmentedColormap.from_list("near", [LIGHT["condpdiff"], LIGHT["panel"]])
    for name, rows in found.items():
        tiers = [tier for tier in ("seen", "unseen") if (rows["tier"] == tier).any()]
        fig, axes = figure(2.3, columns=len(tiers), width=PANEL * len(tiers) / 2)
        for ax, tier in zip(axes, tiers, strict=True):
            cells = rows[rows["tier"] == tier].pivot(index="asked", columns="true", values="rmse")
            values = cells.to_numpy()
            ax.pcolormesh(values, cmap=shades)
            nearest = values.argmin(axis=1)
            ax.plot(nearest + 0.5, np.arange(len(values)) + 0.5, "o", mfc="none", color=LIGHT["ink"], ms=7)
            ticks = np.arange(len(values)) + 0.5
            ax.set(xticks=ticks, yticks=ticks, xticklabels=cells.columns, yticklabels=cells.index, aspect="equal")
            ax.set(title=f"{name}, {tier}", xlabel="true style", ylabel="asked for")
            ax.invert_yaxis()
            ax.grid(visible=False)
        drawn.append(image(fig, f"choices-{name}", f"{name}: distance of each LoRA's images to each true style"))
    return drawn


@styled
def style_map(y: Mapping[str, "Tensor"], members: Mapping[str, Members]) -> Image:
    """Mean conditions of all members, y [Q, V, d_cond] of each family, on the training members' first two axes."""
    import torch  # seconds

    from condpdiff.common.axes import principal_axes

    means = {name: draws.mean(1) for name, draws in y.items()}
    numbers = {name: m.of("unseen", "tuning", "train") for name, m in members.items()}
    train = torch.cat([means[k][[numbers[k].index(q) for q in m.of("train")]] for k, m in members.items()])
    centre = train.mean(0)
    axes = principal_axes(train - centre, 2)
    fig, (ax,) = figure(3.6, width=1.6 * PANEL)
    for number, (name, values) in enumerate(means.items()):
        at = ((values - centre) @ axes.T).numpy()
        known = np.array([q in members[name].of("train") for q in numbers[name]])
        c = COLOURS[number % len(COLOURS)]
        if known.any():
            ax.plot(*at[known].T, "o", color=c, ms=4, label=name)
        ax.plot(*at[~known].T, "o", color=c, mfc="none", ms=5, label="" if known.any() else name)
    ax.set(xlabel="first axis", ylabel="second axis")
    return image(fig, "style-map", "Conditions of all styles on two axes", legend=6)
