"""The page of a run of families: does the condition choose, for tasks that were never trained on?"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condpdiff.common.settings import PARAMS
from condpdiff.common.task import Task, grouped
from condpdiff.report.blocks import Block, Figures, Section, Table, Text
from condpdiff.report.compare import WORDS, number
from condpdiff.report.page import Report
from condpdiff.report.png import Picture, read_picture
from condpdiff.report.readers import read_csv
from condpdiff.report.revision import revision
from condpdiff.report.unseen_figures import matrices, start, style_map

MEASURES = {
    "rmse": "pixels (RMSE)",
    "rmse_16": "pixels at 16 x 16",
    "lpips_lite0": "LPIPS-Lite0",
    "fd_lite0": "FD-Lite0",
    "fid": "FID",
    "accuracy": "accuracy, percent",
}
MAINS = ("rmse", "accuracy", "fd_lite0")
"""What a family is judged by: the first that its rows have. Without true images the Fréchet distance alone is known."""
HIGHER = ("accuracy",)
"""Measures that are better the higher they are."""
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
KNOWN, HELD_OUT, SEEN = "known families", "held-out families", "members that were trained on"
WIDE = 320
"""Pixels of the strip between two styles."""
DRAWS = 2000
"""Of the bootstrap over members."""
GAP = (
    "Share of the gap between mean soup and a member's own LoRA that each arm closes, in percent, {what}: (mean soup − "
    "arm) / (mean soup − own), of means over members; 100 is as near as the own LoRA, 0 no nearer than the mean soup. "
    "In brackets the 95 % interval, by resampling members. Bold: highest of its column among arms that saw nothing of "
    "the member but its condition."
)
TABLE = "Mean over unseen members; **lower is better**, but for accuracy, where **higher is better**."
WHOSE = (
    "Distance in pixels (RMSE) of the images of one style's LoRA (row) to the true images of each style (column). "
    "Darker is nearer; a ring marks the row's nearest."
)
COST = "After further steps of fine-tuning on the member's own images or rows, mean over unseen members."


def build(tasks: Mapping[str, Task], data: Path, seed: int) -> Report:
    """Read `data/eval/<family>/arms.csv` of every family, and say what they show.

    Raises:
        UserError: a file is absent or broken.
    """
    rows = pd.concat([_rows(data / "eval" / name, task) for name, task in tasks.items()])
    unseen = rows[rows["tier"] == "unseen"]
    groups = {g: unseen[unseen["group"] == g] for g in (KNOWN, HELD_OUT) if (unseen["group"] == g).any()}
    gaps = {g: _gaps(found, seed) for g, found in groups.items()}
    table = _table(unseen, list(tasks))
    seen = {SEEN: _gaps(seen, seed)} if len(seen := rows[rows["tier"] == "seen"]) else {}
    choose: list[Block] = [table, *_gap_tables(gaps | seen), _arms(unseen), *_whose(data, tasks), _map(data, tasks)]
    images: list[Block] = [*(_grid(data, name) for name in tasks), _between(data, list(tasks))]
    shown = any((data / "eval" / name / "images").is_dir() for name in tasks)
    settings: list[Block] = [Text(f"Git revision that the report was made at: {revision()}.")]
    settings.append(Text(PARAMS.read_text(encoding="utf-8").strip(), file="params.yaml"))
    sections = [
        Section("choose", "Does the condition choose?", choose),
        *([Section("images", "What it makes of pictures", images)] if shown else []),
        Section("start", "As a start for fine-tuning", [_starts(groups)]),
        Section("settings", "Settings", settings),
    ]
    tuning = rows[rows["tier"] == "tuning"]  # what settings are chosen by
    chosen = {f"tuning {g}": _gaps(found, seed) for g in groups if len(found := tuning[tuning["group"] == g])}
    metrics = {
        _key(g): {a: round(v[0], 1) for a, v in _main(found).items() if a in ARMS}
        for g, found in (gaps | seen | chosen).items()
    }
    tiles = [(g, f"{number(_main(found)['condpdiff'][0], 0)} %", "of the gap closed") for g, found in gaps.items()]
    closed = [_main(found) for found in gaps.values()]
    ahead = [min(c["condpdiff"][0] - c[rival][0] for rival in RIVALS if rival in c) > 0 for c in closed]
    word = WORDS[0] if all(ahead) else WORDS[2 - any(ahead)]
    return Report(_verdict(gaps, groups), word, tiles, [], sections, table, metrics, _arms_frame(gaps | chosen))


def frames(tasks: Sequence[str], data: Path) -> dict[str, pd.DataFrame]:
    """The tables that DVC plots; a family has no validation curve and no doses."""
    losses = pd.concat([read_csv(data / "zoo" / name / "loss.csv", ["task", "step", "loss"]) for name in tasks])
    return {
        "doses": pd.DataFrame(columns=["task", "arm", "asked", "loss"]),
        "finetune_loss": losses,
        "finetune_validation": pd.DataFrame(columns=["task", "step", "score"]),
    }


def _main(found: Mapping[str, Any]) -> Any:
    return found[main_of(found)]


def main_of(found: Any) -> str:
    """The measure that rows, or a group's gaps, are judged by."""
    return next(
        key for key in MAINS if key in found and not (isinstance(found, pd.DataFrame) and found[key].isna().all())
    )


def _key(group: str) -> str:
    return {SEEN: "seen"}.get(group, group.replace("-", "_").replace(" families", "").replace(" ", "_"))


def _rows(folder: Path, task: Task) -> pd.DataFrame:
    """The family's rows with the arm BEST beside the others, and condpdiff's mean over samples."""
    rows = read_csv(folder / "arms.csv", ["family", "member", "tier", "arm", "number", "seconds"])
    for key in MEASURES:
        rows[key] = rows.get(key, math.nan)
    samples = rows[(rows["arm"] == "condpdiff") & (rows["tier"] != "seen")]
    by_member = samples.groupby("member")
    chosen = by_member["held_out"].idxmax() if "held_out" in rows else by_member["to_condition"].idxmin()
    best = samples.loc[chosen].assign(arm=BEST)
    found = pd.concat([rows, best])
    keys = ["family", "member", "tier", "arm"]
    assert task.members is not None
    means = found.groupby(keys, as_index=False, sort=False)[["seconds", *MEASURES]].mean()
    return means.assign(group=KNOWN if task.members.train else HELD_OUT)


def _gaps(rows: pd.DataFrame, seed: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Measure -> arm -> percent of the gap closed, and its interval."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for key in (key for key in MEASURES if key in rows):
        cells = rows.pivot_table(key, ["family", "member"], "arm")
        if cells.empty:
            continue
        picks = np.random.default_rng(seed).integers(len(cells), size=(DRAWS, len(cells)))
        mean, own = (cells[arm].to_numpy() for arm in ("mean_soup", "own"))
        found[key] = {}
        for arm in cells:
            values = cells[arm].to_numpy()
            share = 100 * (mean.mean() - values.mean()) / (mean.mean() - own.mean())
            drawn = 100 * (mean - values)[picks].mean(1) / (mean - own)[picks].mean(1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            found[key][str(arm)] = (float(share), float(low), float(high))
    return found


def _verdict(gaps: Mapping[str, Any], groups: Mapping[str, pd.DataFrame]) -> list[str]:
    lines = []
    for group, found in gaps.items():
        key, rows, cells = main_of(found), groups[group], _main(found)
        count = int(rows.loc[rows["arm"] == "own", key].notna().sum())
        others = {"ridge": "ridge", "nearest": "the nearest soup", "cosine": "cosine of text and description"}
        others |= {"swapped": "condpdiff under another member's condition"}
        said = ", ".join(f"{what} {number(cells[arm][0], 0)} %" for arm, what in others.items() if arm in cells)
        own, low, high = cells["condpdiff"]
        lines.append(
            f"For {count} members never trained on, of {group}, condpdiff closes **{number(own, 0)} %** of the gap "
            f"between the mean soup and a member's own LoRA (95 % interval {number(low, 0)} to {number(high, 0)}). "
            f"The others: {said}."
        )
        means, label = rows.groupby("arm")[key].mean(), MEASURES[key].partition(",")[0]
        after = {a: number(means[a], 1) for a in ("condpdiff+5", "zero+5", "zero+40")}
        lines.append(
            f"After 5 more steps of fine-tuning from condpdiff, {label} is {after['condpdiff+5']}; from nothing it is "
            f"{after['zero+5']} after 5 steps and {after['zero+40']} after 40."
        )
    return lines


def _gap_tables(gaps: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for group, found in gaps.items():
        arms = [arm for arm in ARMS if arm in _main(found)]
        cells = [[found[key].get(arm, (math.nan,) * 3) for key in found] for arm in arms]
        held = np.array(
            [[c[0] if _blind(arm) else -math.inf for c in row] for arm, row in zip(arms, cells, strict=True)]
        )
        bold = frozenset((int(i), j + 1) for j, i in enumerate(np.nanargmax(held, axis=0)))
        shown = [[arm, *(f"{number(v, 0)} ({number(lo, 0)} to {number(hi, 0)})" for v, lo, hi in row)]
                 for arm, row in zip(arms, cells, strict=True)]  # fmt: skip
        columns = [group, *(MEASURES[key] for key in found)]
        what = group if group == SEEN else f"unseen members of {group}"
        blocks.append(Table(GAP.format(what=what), columns, shown, bold))
    return blocks


def _blind(arm: str) -> bool:
    """Whether an arm saw nothing of a member but its condition."""
    return arm != "own" and "@" not in arm


def _arms(unseen: pd.DataFrame) -> Table:
    seconds = unseen.groupby("arm")["seconds"].mean()
    shown = [[arm, what, number(seconds[arm], 2)] for arm, what in ARMS.items() if arm in seconds]
    caption = (
        "What each arm is, and what one LoRA costs on this machine, made side by side with others of its family. Arms "
        "without a generator are fitted in one call, whose cost stands with each."
    )
    return Table(caption, ["arm", "what it is", "seconds"], shown, numeric=False)


def _whose(data: Path, tasks: Mapping[str, Task]) -> list[Block]:
    """Which member's style came out: of families whose members' true images are known."""
    files = {name: data / "eval" / name / "choices.csv" for name in tasks}
    found = {k: read_csv(f, ["tier", "asked", "true", "rmse"]) for k, f in files.items() if f.is_file()}
    if not found:
        return []
    rows = pd.concat([each.assign(family=name) for name, each in found.items()], ignore_index=True)
    right = []
    known = rows["family"].map({name: bool(task.members and task.members.train) for name, task in tasks.items()})
    never = "never trained on, of"
    groups = {"trained on": rows["tier"] == "seen"}
    groups |= {f"{never} {g}": (rows["tier"] == "unseen") & (known == (g == KNOWN)) for g in (KNOWN, HELD_OUT)}
    for what, chosen in groups.items():
        some = rows[chosen]
        nearest = some.loc[some.groupby(["family", "asked"])["rmse"].idxmin()]
        if len(nearest):
            hits = int((nearest["asked"] == nearest["true"]).sum())
            right.append(f"{hits} of {len(nearest)} LoRAs for styles {what}")
    said = f"Nearest to the style that was asked for, of all of its family's in the picture: {', '.join(right)}."
    return [Text(said), Figures(WHOSE, matrices(found))]


def _map(data: Path, tasks: Mapping[str, Task]) -> Figures:
    """Conditions of all members, and how far apart they are."""
    import torch  # seconds

    from condpdiff.diffusion.conditions import FILE, load_conditions

    names, file = grouped("unseen", "tuning", "train"), data / "conditions" / FILE
    y = {k: torch.stack(list(load_conditions(file, names[k]).values())) for k in tasks}  # [Q, V, d_cond]
    within = {k: torch.linalg.vector_norm(d - d.mean(1, keepdim=True), dim=2).mean() for k, d in y.items()}
    said = [f"{k} {number(float(torch.pdist(d.mean(1)).mean() / within[k]), 1)}" for k, d in y.items()]
    caption = (
        "Conditions of all members, on their first two principal axes; rings: never trained on. Mean distance between "
        f"two of a family's members over the mean distance of a member's conditions from their mean: {', '.join(said)}."
    )
    return Figures(caption, [style_map(y, {k: t.members for k, t in tasks.items() if t.members})], wide=True)


def _table(unseen: pd.DataFrame, families: list[str]) -> Table:
    """Arms x families, each by its main measure."""
    keys = {f: main_of(unseen[unseen["family"] == f]) for f in families}
    means = unseen.groupby(["family", "arm"])[list(MEASURES)].mean()
    rows, held = [], []
    for arm in (arm for arm in ARMS if arm in set(unseen["arm"])):
        values = [float(means[key].get((f, arm), math.nan)) for f, key in keys.items()]
        digits = [0 if key == "fd_lite0" else 1 for key in keys.values()]
        rows.append([arm, *(number(v, d) for v, d in zip(values, digits, strict=True))])
        signs = [-1 if key in HIGHER else 1 for key in keys.values()]
        held.append(
            [s * v if _blind(arm) and not math.isnan(v) else math.inf for s, v in zip(signs, values, strict=True)]
        )
    bold = frozenset((int(i), j + 1) for j, i in enumerate(np.argmin(held, axis=0)))
    columns = ["arm", *(f"{f} ({MEASURES[key]})" for f, key in keys.items())]
    return Table(TABLE, columns, rows, bold)


def _grid(data: Path, family: str) -> Table:
    """Two unseen members of a family: its condition's pictures, and what each arm makes of the scored captions."""
    folder = data / "eval" / family / "images"
    members = sorted({int(path.stem.rpartition("-")[2]) for path in folder.glob("own-*.png")})[:2]
    rows: list[list[str | Picture]] = []
    for q in members:
        strips = [read_picture(folder / f"{a}-{q}.png", f"{family}-{a}-{q}", f"{family} {q}: {a}") for a in SHOWN]
        rows.append([f"{family}/{q}", *strips])
    caption = (
        f"{family}: pictures of the condition, and images of other captions, the same ones and noises for every arm."
    )
    return Table(caption, ["style", *SHOWN], rows, pictures=True)


def _between(data: Path, families: Sequence[str]) -> Figures:
    """Of each family one caption's image on the way from one unseen member's condition to another's."""
    found = []
    for name in families:
        for path in (data / "eval" / name / "images").glob("between-*.png"):
            found.append(read_picture(path, f"{name}-between", f"{name}: from one unseen style to another", WIDE))
    return Figures("Between the conditions of two unseen members, at both ends theirs, from the same noise.", found)


def _starts(groups: Mapping[str, pd.DataFrame]) -> Figures:
    return Figures(COST, [start(rows, g, main_of(rows), MEASURES[main_of(rows)]) for g, rows in groups.items()])


def _arms_frame(gaps: Mapping[str, Any]) -> pd.DataFrame:
    """task (a group of members), arm, score, mean, low, high: percent of the gap closed, in the main measure."""
    rows = [(g, arm, *cell[:1] * 2, *cell[1:]) for g, found in gaps.items() for arm, cell in _main(found).items()]
    return pd.DataFrame(rows, columns=["task", "arm", "score", "mean", "low", "high"]).round(2)
