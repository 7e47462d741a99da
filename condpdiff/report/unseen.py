"""The page of a run of families: does the condition choose, for tasks that were never trained on?"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap

from condpdiff.common.task import Task
from condpdiff.report.blocks import Block, Figures, Report, Section, Table, Text, best, number
from condpdiff.report.evaluation import WORDS, read_csv
from condpdiff.report.images import LIGHT, PANEL, Image, Picture, figure, image, styled
from condpdiff.report.page import settings_section, training_curve

MEASURES = {
    "rmse": "pixels (RMSE)", "rmse_16": "pixels at 16 x 16", "lpips_lite0": "LPIPS-Lite0", "fd_lite0": "FD-Lite0",
    "fid": "FID", "accuracy": "accuracy, percent",
}  # fmt: skip
MAINS = ("rmse", "accuracy", "fd_lite0")
"""What rows are judged by: the first that they have. Without true images the Fréchet distance alone is known."""
BEST = "condpdiff_best"
ARMS = {
    "no_lora": "the base model without LoRA",
    "mean_soup": "the mean of all training members' soups, whatever the condition",
    "one_for_all": "one LoRA for all, trained on the same draws as condpdiff's task loss",
    "nearest": "the soup of the training member with the most similar condition",
    "softmax_nearest": "the four nearest soups, weighted by similarity",
    "ridge": "linear regression from condition to soup",
    "kernel_ridge": "the same with a Gaussian kernel",
    "ridge_gaussian": "ridge, with a draw of its errors on left-out training members",
    "no_noise": "condpdiff without noise: mu(y) alone",
    "condpdiff": "generated from the condition and noise, the mean over samples",
    BEST: "of the samples the one whose images are nearest to the condition's pictures, or that is right most often on "
    "the rows that a condition may show",
    "pictures_1": "condpdiff from one picture",
    "pictures_4": "condpdiff from four pictures",
    "pictures_10": "condpdiff from ten pictures",
    "swapped": "condpdiff under another member's condition",
    "ridge_swapped": "ridge under another member's condition",
    "noise": "condpdiff under pictures of noise, or words that mean nothing",
    "cosine": "no LoRA: cosine of text and description, above a threshold that fits the training members",
    "classifier@16": "no LoRA: logistic regression on frozen embeddings of 16 labelled rows",
    "classifier@64": "the same of 64 labelled rows",
    "zero@16": "20 steps of fine-tuning from nothing on 16 labelled rows",
    "condpdiff@16": "the same from condpdiff's sample",
    "zero@64": "20 steps of fine-tuning from nothing on 64 labelled rows",
    "condpdiff@64": "the same from condpdiff's sample",
    "own": "the member's own LoRA, fine-tuned to the end on its own images or rows",
}
RIVALS = ("mean_soup", "one_for_all", "nearest", "softmax_nearest", "ridge", "kernel_ridge", "cosine")
"""What needs no generator, and no labels of the member."""
SHOWN = ("condition", "no_lora", "nearest", "ridge", "condpdiff", "own", "truth")
STARTS = {"zero": "original", "mean_soup": "soup", "nearest": "soup_16", "ridge": "gaussian", "condpdiff": "condpdiff"}
"""Starts of fine-tuning, each in the colour of an arm."""
KNOWN, HELD_OUT, SEEN = "known families", "held-out families", "members that were trained on"
GROUPS = {  # of members, and their keys of metrics.json; settings are chosen by the tuning ones
    KNOWN: "known", HELD_OUT: "held_out", SEEN: "seen",
    f"tuning {KNOWN}": "tuning_known", f"tuning {HELD_OUT}": "tuning_held_out",
}  # fmt: skip
DRAWS = 2000  # of the bootstrap over members
TABLE = "Mean over unseen members; **lower is better**, but for accuracy, where **higher is better**."


def build(tasks: Mapping[str, Task], data: Path, seed: int) -> Report:
    """Read `data/eval/<family>/` of every family, and say what is there; a UserError if a table is absent or broken."""
    families = {name: _rows(data / "eval" / name, _group(task)) for name, task in tasks.items()}
    rows = pd.concat(families.values())
    groups = {g: found.dropna(axis=1, how="all") for g in GROUPS if len(found := rows[rows["group"] == g])}
    gaps = {g: _gaps(found, seed) for g, found in groups.items()}
    main = {g: found[_main_of(found)] for g, found in gaps.items()}
    new = [g for g in (KNOWN, HELD_OUT) if g in groups]
    unseen = {name: found[found["tier"] == "unseen"].dropna(axis=1, how="all") for name, found in families.items()}
    table = _table(unseen)
    choose = [table, *(_gap_table(g, gaps[g]) for g in (*new, SEEN) if g in gaps), _arms(pd.concat(unseen.values()))]
    pictured = [name for name in tasks if (data / "eval" / name / "images").is_dir()]
    starts = [start(groups[g], g) for g in new if len(tuned(groups[g]))]
    sections = [
        Section("choose", "Does the condition choose?", [*choose, *_whose(data, tasks)]),
        *([Section("images", "What it makes of pictures", _pictures(data, pictured))] if pictured else []),
        *([Section("start", "As a start for fine-tuning", [Figures(TABLE, starts)])] if starts else []),
        settings_section(),
    ]
    shares = {g: cells["share"] for g, cells in main.items()}
    ahead = [shares[g]["condpdiff"] > shares[g].filter(RIVALS).max() for g in new]
    arms = pd.concat([main[g].assign(task=g, score=shares[g], mean=shares[g]) for g in groups if g != SEEN])
    return Report(
        verdict=[line for g in new for line in _verdict(g, groups[g], main[g])],
        word=WORDS[0] if all(ahead) else WORDS[2 - any(ahead)],
        tiles=[(g, f"{number(shares[g]['condpdiff'], 0)} %", "of the gap closed") for g in new],
        warnings=[],
        sections=sections,
        table=table,
        metrics={GROUPS[g]: {a: round(v, 1) for a, v in found.items() if a in ARMS} for g, found in shares.items()},
        plots={
            "arms": arms.reset_index()[["task", "arm", "score", "mean", "low", "high"]].round(2),
            "doses": pd.DataFrame(columns=["task", "arm", "asked", "loss"]),
            "finetune_loss": training_curve(list(tasks), data, "loss.csv", "loss"),
            "finetune_validation": pd.DataFrame(columns=["task", "step", "score"]),
        },
    )


def _main_of(measures: Any) -> str:
    return next(key for key in MAINS if key in measures)


def _group(task: Task) -> str:
    return KNOWN if task.members and task.members.train else HELD_OUT


def _rows(folder: Path, group: str) -> pd.DataFrame:
    """The family's rows with the arm BEST beside the others, and condpdiff's mean over samples."""
    rows = read_csv(folder / "arms.csv", ["family", "member", "tier", "arm", "number", "seconds"])
    samples = rows[(rows["arm"] == "condpdiff") & (rows["tier"] != "seen")]
    by_member = samples.groupby("member")
    chosen = by_member["held_out"].idxmax() if "held_out" in rows else by_member["to_condition"].idxmin()
    found = pd.concat([rows, samples.loc[chosen].assign(arm=BEST)])
    measured = ["seconds", *(key for key in MEASURES if key in rows)]
    means = found.groupby(["family", "member", "tier", "arm"], as_index=False, sort=False)[measured].mean()
    return means.assign(group=means["tier"].map({"unseen": group, "tuning": f"tuning {group}", "seen": SEEN}))


def _gaps(rows: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """Measure -> arm -> share of the gap that it closes, in percent, and the interval `low` to `high`."""
    found = {}
    for key in (key for key in MEASURES if key in rows):
        cells = rows.pivot_table(key, ["family", "member"], "arm")
        closed = -cells.sub(cells["mean_soup"], axis=0)  # [members, arms]
        picks = np.random.default_rng(seed).integers(len(cells), size=(DRAWS, len(cells)))
        drawn = closed.apply(lambda arm, picks=picks: arm.to_numpy()[picks].mean(1))  # [DRAWS, arms]
        low, high = np.quantile(100 * drawn.div(drawn["own"], axis=0), [0.025, 0.975], axis=0)
        share = 100 * closed.mean(skipna=False) / closed["own"].mean()
        found[key] = pd.DataFrame({"share": share, "low": low, "high": high})
    return found


def _verdict(group: str, rows: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    key = _main_of(rows)
    count = int(rows.loc[rows["arm"] == "own", key].notna().sum())
    others = {"ridge": "ridge", "nearest": "the nearest soup", "cosine": "cosine of text and description"}
    others |= {"swapped": "condpdiff under another member's condition"}
    said = [f"{what} {number(cells['share'][arm], 0)} %" for arm, what in others.items() if arm in cells.index]
    share, low, high = (number(cells[column]["condpdiff"], 0) for column in cells)
    means, label = rows.groupby("arm")[key].mean(), MEASURES[key].partition(",")[0]
    lines = [
        f"For {count} members never trained on, of {group}, condpdiff closes **{share} %** of the gap between the mean "
        f"soup and a member's own LoRA (95 % interval {low} to {high}). The others: {', '.join(said)}."
    ]
    if "condpdiff+5" in means:
        ours, zero, more = (number(means[arm], 1) for arm in ("condpdiff+5", "zero+5", "zero+40"))
        ours = f"After 5 more steps of fine-tuning from condpdiff, {label} is {ours}"
        lines.append(f"{ours}; from nothing it is {zero} after 5 steps and {more} after 40.")
    return lines


def _gap_table(group: str, gaps: Mapping[str, pd.DataFrame]) -> Table:
    shares = pd.DataFrame({key: found["share"] for key, found in gaps.items()})
    shares = shares.loc[[arm for arm in ARMS if arm in gaps[_main_of(gaps)].index]]
    cells = {key: found.reindex(shares.index).map(number, decimals=0) for key, found in gaps.items()}
    said = {MEASURES[key]: f["share"] + " (" + f["low"] + " to " + f["high"] + ")" for key, f in cells.items()}
    caption = (
        "Percent of the gap between mean soup and a member's own LoRA that each arm closes, "
        f"{group if group == SEEN else f'unseen members of {group}'}, and the 95 % interval, by resampling members. "
        "Bold: highest of its column among arms that saw nothing of the member but its condition."
    )
    return Table.of(caption, group, pd.DataFrame(said), bold=best(_blind(shares)))


def _blind(values: pd.DataFrame) -> np.ndarray:
    """Values [arms, columns], NaN where an arm saw more of a member than its condition."""
    saw = [arm for arm in values.index if arm == "own" or "@" in arm]
    return values.drop(index=saw).reindex(values.index).to_numpy()


def _table(families: Mapping[str, pd.DataFrame]) -> Table:
    """Arms x families, each by its main measure; rows are of unseen members."""
    keys = {name: _main_of(rows) for name, rows in families.items()}
    values = pd.DataFrame({name: rows.groupby("arm")[keys[name]].mean() for name, rows in families.items()})
    values = values.loc[[arm for arm in ARMS if arm in values.index]]
    digits = [0 if key == "fd_lite0" else 1 for key in keys.values()]
    rows = [[arm, *map(number, cells, digits)] for arm, *cells in values.itertuples()]
    signs = [1 if key == "accuracy" else -1 for key in keys.values()]
    columns = ["arm", *(f"{name} ({MEASURES[key]})" for name, key in keys.items())]
    return Table(TABLE, columns, rows, best(_blind(values * signs)))


def _arms(unseen: pd.DataFrame) -> Table:
    seconds = unseen.groupby("arm")["seconds"].mean()
    shown = [[arm, what, number(seconds[arm])] for arm, what in ARMS.items() if arm in seconds]
    caption = "What each arm is, and what one LoRA costs on this machine, made side by side with others of its family."
    return Table(caption, ["arm", "what it is", "seconds"], shown, numeric=False)


def _whose(data: Path, tasks: Mapping[str, Task]) -> list[Block]:
    """Which member's style came out: of families whose members' true images are known."""
    files = {name: data / "eval" / name / "choices.csv" for name in tasks}
    found = {k: read_csv(f, ["tier", "asked", "true", "rmse"]) for k, f in files.items() if f.is_file()}
    hits: dict[str, list[bool]] = {}  # of whom -> whether each one's own style is the nearest
    for name, rows in found.items():
        nearest = rows.loc[rows.groupby(["tier", "asked"])["rmse"].idxmin()]
        for tier, each in nearest.groupby("tier"):
            of = "trained on" if tier == "seen" else f"never trained on, of {_group(tasks[name])}"
            hits.setdefault(of, []).extend(each["asked"] == each["true"])
    order = ("trained on", *(f"never trained on, of {g}" for g in (KNOWN, HELD_OUT)))
    right = [f"{sum(hits[of])} of {len(hits[of])} LoRAs for styles {of}" for of in order if of in hits]
    said = f"Nearest to the style that was asked for, of all of its family's in the picture: {', '.join(right)}."
    caption = "Distance in pixels (RMSE) of the images of one style's LoRA (row) to the true images of each style "
    caption += "(column). Darker is nearer; a ring marks the row's nearest."
    return [Text(said), Figures(caption, [matrices(name, rows) for name, rows in found.items()])] if found else []


def _pictures(data: Path, families: Iterable[str]) -> list[Block]:
    """Of each family two unseen members, under every arm; then one image on the way from one condition to another."""
    blocks, between = list[Block](), list[Picture]()
    for name in families:
        folder, rows = data / "eval" / name / "images", list[list[str | Picture]]()
        for q in sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("own-*.png"))[:2]:
            files = {arm: (folder / f"{arm}-{q}.png").read_bytes() for arm in SHOWN}
            cells = [Picture(f"{name}-{arm}-{q}", f"{name} {q}: {arm}", png) for arm, png in files.items()]
            rows.append([f"{name}/{q}", *cells])
        caption = f"{name}: pictures of the condition, and images of other captions, the same for every arm."
        blocks.append(Table(caption, ["style", *SHOWN], rows, pictures=True))
        for path in [*folder.glob("between-*.png")][:1]:
            between.append(Picture(f"{name}-between", f"{name}: between two styles", path.read_bytes()))
    caption = "Between the conditions of two unseen members, at both ends theirs, from the same noise."
    return [*blocks, Figures(caption, between)]


@styled
def start(rows: pd.DataFrame, group: str) -> Image:
    """Distance over steps of fine-tuning, one line a start."""
    key = _main_of(rows)
    means = tuned(rows).groupby("arm")[key].mean()
    fig, (ax,) = figure(2.9)
    for name, colour in STARTS.items():
        line = {int(str(arm).partition("+")[2]): y for arm, y in means.items() if str(arm).startswith(f"{name}+")}
        if line:
            line[0] = means["no_lora" if name == "zero" else name]
            ax.plot(pd.Series(line).sort_index(), "-o", color=LIGHT[colour], lw=1.6, ms=3.5, label=name)
    ax.set(xlabel="steps of fine-tuning", ylabel=MEASURES[key], title=group)
    return image(fig, f"start-{group.replace(' ', '-')}", f"{group}: fine-tuning from each start", legend=3)


def tuned(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of members that fine-tuning was started for (`eval.starts`): all points of a line are of them."""
    more = rows["arm"].str.contains("+", regex=False)
    return rows[more.groupby([rows["family"], rows["member"]]).transform("any")]


@styled
def matrices(name: str, rows: pd.DataFrame) -> Image:
    """A family's distances of LoRAs asked for (rows) to true styles (columns), seen members beside unseen."""
    tiers = [tier for tier in ("seen", "unseen") if (rows["tier"] == tier).any()]
    fig, axes = figure(2.3, columns=len(tiers), width=PANEL * len(tiers) / 2)
    shades = LinearSegmentedColormap.from_list("near", [LIGHT["condpdiff"], LIGHT["panel"]])
    for ax, tier in zip(axes, tiers, strict=True):
        cells = rows[rows["tier"] == tier].pivot(index="asked", columns="true", values="rmse")
        ticks = np.arange(len(cells)) + 0.5
        ax.pcolormesh(cells, cmap=shades)
        ax.plot(cells.to_numpy().argmin(axis=1) + 0.5, ticks, "o", mfc="none", color=LIGHT["ink"], ms=7)
        ax.set(xticks=ticks, yticks=ticks, xticklabels=cells.columns, yticklabels=cells.index, aspect="equal")
        ax.set(title=f"{name}, {tier}", xlabel="true style", ylabel="asked for")
        ax.invert_yaxis()
        ax.grid(visible=False)
    return image(fig, f"choices-{name}", f"{name}: distance of each LoRA's images to each true style")
