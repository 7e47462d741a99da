"""The page of a run of families: does the condition choose, for tasks that were never trained on?"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from condpdiff.common.settings import PARAMS
from condpdiff.common.task import Task, grouped
from condpdiff.diffusion.conditions import FILE, load_conditions
from condpdiff.report import studies_section
from condpdiff.report.blocks import Block, Figures, Section, Table, Text
from condpdiff.report.compare import WORDS, number
from condpdiff.report.page import Report
from condpdiff.report.png import Picture, read_picture
from condpdiff.report.readers import read_csv
from condpdiff.report.revision import revision
from condpdiff.report.unseen_figures import matrices, start, style_map

MAIN, FRECHET = "rmse", "fd_lite0"
DISTANCES = {
    "rmse": "pixels (RMSE)",
    "rmse_16": "pixels at 16 x 16",
    "lpips_lite0": "LPIPS-Lite0",
    "fd_lite0": "FD-Lite0",
}
BEST = "condpdiff_best"
ARMS = {
    "no_lora": "the base model without LoRA",
    "mean_soup": "the mean of all training members' soups, whatever the condition",
    "nearest": "the soup of the training member with the most similar condition",
    "softmax_nearest": "the four nearest soups, weighted by similarity",
    "ridge": "linear regression from condition to soup",
    "kernel_ridge": "the same with a Gaussian kernel",
    "ridge_gaussian": "ridge, with a draw of its errors on left-out training members",
    "multi_style": "one LoRA for all styles, trained on the same fresh styles as condpdiff",
    "no_noise": "condpdiff without noise: mu(y) alone",
    "condpdiff": "generated from the condition and noise, the mean over samples",
    BEST: "of the samples the one whose images are nearest to the condition's own pictures",
    "pictures_1": "condpdiff from one picture",
    "pictures_4": "condpdiff from four pictures",
    "pictures_10": "condpdiff from ten pictures",
    "swapped": "condpdiff under another member's condition",
    "noise": "condpdiff under pictures of noise",
    "own": "the member's own LoRA, fine-tuned to the end on its own images",
}
RIVALS = ("mean_soup", "multi_style", "nearest", "softmax_nearest", "ridge", "kernel_ridge")
"""What needs no generator."""
SHOWN = ("condition", "no_lora", "nearest", "ridge", "condpdiff", "own", "truth")
KNOWN, HELD_OUT = "known families", "held-out families"
WIDE = 320
"""Pixels of the strip between two styles."""
DRAWS = 2000
"""Of the bootstrap over members."""
GAP = (
    "Share of the gap between mean soup and a member's own LoRA that each arm closes, in percent, {what}: (mean soup − "
    "arm) / (mean soup − own), of means over members; 100 is as near as the own LoRA, 0 no nearer than the mean soup. "
    "In brackets the 95 % interval, by resampling members. Bold: highest of its column, own apart."
)
TABLE = "Distance to the true pictures of the scored captions ({label}), mean over unseen members; **lower is better**."
WHOSE = (
    "Distance in pixels (RMSE) of the images of one style's LoRA (row) to the true images of each style (column). "
    "Darker is nearer; a ring marks the row's nearest."
)
COST = (
    "{label} after further steps of fine-tuning on the member's own images, mean over unseen members; lower is better."
)


def build(tasks: Mapping[str, Task], data: Path, seed: int) -> Report:
    """Read `data/eval/<family>/arms.csv` of every family, and say what they show.

    Raises:
        UserError: a file is absent or broken.
    """
    rows = pd.concat([_rows(data / "eval" / name, task) for name, task in tasks.items()])
    unseen = rows[rows["tier"] == "unseen"]
    groups = [g for g in (KNOWN, HELD_OUT) if (unseen["group"] == g).any()]
    gaps = {g: _gaps(unseen[unseen["group"] == g], seed) for g in groups}
    table = _table(unseen, list(tasks))
    sections = [
        Section(
            "choose",
            "Does the condition choose?",
            [*_choose(gaps, unseen, table), *_whose(data, tasks), _map(data, tasks)],
        ),
        Section(
            "images", "What it makes of pictures", [*(_grid(data, name) for name in tasks), _between(data, list(tasks))]
        ),
        Section("start", "As a start for fine-tuning", [_starts(unseen)]),
        *studies_section.sections(),
        Section(
            "settings",
            "Settings",
            [
                Text(f"Git revision that the report was made at: {revision()}."),
                Text(PARAMS.read_text(encoding="utf-8").strip(), file="params.yaml"),
            ],
        ),
    ]
    tuning = rows[rows["tier"] == "tuning"]  # what settings are chosen by
    chosen = {f"tuning {g}": _gaps(tuning[tuning["group"] == g], seed) for g in groups}
    metrics = {
        _key(g): {a: round(v[0], 1) for a, v in _main(found).items() if a in ARMS}
        for g, found in (gaps | chosen).items()
    }
    tiles = [(g, f"{number(_main(found)['condpdiff'][0], 0)} %", "of the gap closed") for g, found in gaps.items()]
    frame = _arms_frame(unseen)
    closed = [_main(found) for found in gaps.values()]
    ahead = [min(c["condpdiff"][0] - c[rival][0] for rival in RIVALS if rival in c) > 0 for c in closed]
    word = WORDS[0] if all(ahead) else WORDS[2 - any(ahead)]
    return Report(_verdict(gaps, unseen), word, tiles, [], sections, table, metrics, frame)


def frames(tasks: Sequence[str], data: Path) -> dict[str, pd.DataFrame]:
    """The tables that DVC plots; a family has no validation curve and no doses."""
    losses = pd.concat([read_csv(data / "zoo" / name / "loss.csv", ["task", "step", "loss"]) for name in tasks])
    return {
        "doses": pd.DataFrame(columns=["task", "arm", "asked", "loss"]),
        "finetune_loss": losses,
        "finetune_validation": pd.DataFrame(columns=["task", "step", "score"]),
    }


def _main(found: Mapping[str, Any]) -> Any:
    """Of the distance that a group is judged by: pixels, or where no family has true images the Fréchet distance."""
    return found[MAIN if MAIN in found else FRECHET]


def _key(group: str) -> str:
    return group.replace("-", "_").replace(" families", "").replace(" ", "_")


def _rows(folder: Path, task: Task) -> pd.DataFrame:
    """The family's rows with the arm BEST beside the others, and condpdiff's mean over samples."""
    rows = read_csv(folder / "arms.csv", ["family", "member", "tier", "arm", "number", "seconds", "to_condition"])
    for key in DISTANCES:
        rows[key] = rows.get(key, math.nan)
    samples = rows[rows["arm"] == "condpdiff"]
    best = samples.loc[samples.groupby("member")["to_condition"].idxmin()].assign(arm=BEST)
    mean = samples.groupby(["family", "member", "tier", "arm"], as_index=False)[
        ["seconds", "to_condition", *DISTANCES]
    ].mean()
    found = pd.concat([rows[rows["arm"] != "condpdiff"], mean, best])
    assert task.members is not None
    return found.assign(group=KNOWN if task.members.train else HELD_OUT)


def _gaps(rows: pd.DataFrame, seed: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Distance -> arm -> percent of the gap closed, and its interval."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for key in DISTANCES:
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


def _verdict(gaps: Mapping[str, Any], unseen: pd.DataFrame) -> list[str]:
    lines = []
    for group, found in gaps.items():
        cells = _main(found)
        said = {a: f"{number(cells[a][0], 0)} %" for a in ("condpdiff", "ridge", "nearest", "swapped")}
        low, high = cells["condpdiff"][1:]
        own = unseen[(unseen["group"] == group) & (unseen["arm"] == "own")]
        count = own[own[MAIN if MAIN in found else FRECHET].notna()]
        never = "styles never trained on, of families that were" if group == KNOWN else "styles of families never seen"
        lines.append(
            f"For {len(count)} {never}, condpdiff closes **{said['condpdiff']}** of the gap between the mean soup and "
            f"a style's own LoRA (95 % interval {number(low, 0)} to {number(high, 0)}). Ridge closes {said['ridge']}, "
            f"the nearest soup {said['nearest']}, condpdiff under another style's condition {said['swapped']}."
        )
    means = unseen.groupby("arm")[MAIN].mean()
    after = {a: number(means[a], 1) for a in ("condpdiff+5", "zero+5", "zero+40")}
    lines.append(
        f"After 5 more steps of fine-tuning from condpdiff the distance is {after['condpdiff+5']}; from nothing it is "
        f"{after['zero+5']} after 5 steps and {after['zero+40']} after 40."
    )
    return lines


def _whose(data: Path, tasks: Mapping[str, Task]) -> list[Block]:
    """Which member's style came out: of families whose members' true images are known."""
    files = {name: data / "eval" / name / "choices.csv" for name in tasks}
    found = {k: read_csv(f, ["tier", "asked", "true", "rmse"]) for k, f in files.items() if f.is_file()}
    if not found:
        return []
    rows = pd.concat([each.assign(family=name) for name, each in found.items()], ignore_index=True)
    right = []
    for tier, what in (("seen", "trained on"), ("unseen", "never trained on")):
        some = rows[rows["tier"] == tier]
        nearest = some.loc[some.groupby(["family", "asked"])["rmse"].idxmin()]
        if len(nearest):
            hits = int((nearest["asked"] == nearest["true"]).sum())
            right.append(f"{hits} of {len(nearest)} LoRAs for styles {what}")
    said = f"Nearest to the style that was asked for, of all of its family's in the picture: {', '.join(right)}."
    return [Text(said), Figures(WHOSE, matrices(found))]


def _map(data: Path, tasks: Mapping[str, Task]) -> Figures:
    """Conditions of all members, and how far apart they are."""
    names, file = grouped("unseen", "tuning", "train"), data / "conditions" / FILE
    y = {k: torch.stack(list(load_conditions(file, names[k]).values())) for k in tasks}  # [Q, V, d_cond]
    within = {k: torch.linalg.vector_norm(d - d.mean(1, keepdim=True), dim=2).mean() for k, d in y.items()}
    said = [f"{k} {number(float(torch.pdist(d.mean(1)).mean() / within[k]), 1)}" for k, d in y.items()]
    caption = (
        "Conditions of all members, on their first two principal axes; rings: never trained on. Mean distance between "
        f"two of a family's styles over the mean distance of a style's conditions from their mean: {', '.join(said)}."
    )
    return Figures(caption, [style_map(y, {k: t.members for k, t in tasks.items() if t.members})], wide=True)


def _choose(gaps: Mapping[str, Any], unseen: pd.DataFrame, table: Table) -> list[Block]:
    blocks: list[Block] = [table]
    for group, found in gaps.items():
        arms = [arm for arm in ARMS if arm in _main(found)]
        cells = [[found[key].get(arm, (math.nan,) * 3) for key in found] for arm in arms]
        held = np.array(
            [[c[0] if arm != "own" else -math.inf for c in row] for arm, row in zip(arms, cells, strict=True)]
        )
        bold = frozenset((int(i), j + 1) for j, i in enumerate(np.nanargmax(held, axis=0)))
        shown = [[arm, *(f"{number(v, 0)} ({number(lo, 0)} to {number(hi, 0)})" for v, lo, hi in row)]
                 for arm, row in zip(arms, cells, strict=True)]  # fmt: skip
        columns = [group, *(DISTANCES[key] for key in found)]
        blocks.append(Table(GAP.format(what=f"unseen members of {group}"), columns, shown, bold))
    seconds = unseen.groupby("arm")["seconds"].mean()
    shown = [[arm, what, number(seconds[arm], 2)] for arm, what in ARMS.items() if arm in seconds]
    caption = "What each arm is, and what one LoRA costs on this machine, made side by side with others of its family."
    blocks.append(Table(caption, ["arm", "what it is", "seconds"], shown, numeric=False))
    return blocks


def _table(unseen: pd.DataFrame, families: list[str]) -> Table:
    """Arms x families: pixels where the truth is known, else the Fréchet distance."""
    keys = {f: MAIN if unseen.loc[unseen["family"] == f, MAIN].notna().any() else FRECHET for f in families}
    means = unseen.groupby(["family", "arm"])[[MAIN, FRECHET]].mean()
    rows, held = [], []
    for arm in ARMS:
        values = [float(means[key].get((f, arm), math.nan)) for f, key in keys.items()]
        rows.append([arm, *(number(v, 1 if key == MAIN else 0) for v, key in zip(values, keys.values(), strict=True))])
        held.append([math.inf if arm == "own" or math.isnan(v) else v for v in values])
    bold = frozenset((int(i), j + 1) for j, i in enumerate(np.argmin(held, axis=0)))
    columns = ["arm", *(f"{f} ({DISTANCES[key]})" for f, key in keys.items())]
    return Table(TABLE.format(label=DISTANCES[MAIN]), columns, rows, bold)


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
        path = next((data / "eval" / name / "images").glob("between-*.png"))
        found.append(read_picture(path, f"{name}-between", f"{name}: from one unseen style to another", WIDE))
    return Figures("Between the conditions of two unseen members, at both ends theirs, from the same noise.", found)


def _starts(unseen: pd.DataFrame) -> Figures:
    groups = [g for g in (KNOWN, HELD_OUT) if (unseen["group"] == g).any()]
    found = [start(unseen[unseen["group"] == g], g, MAIN, DISTANCES[MAIN]) for g in groups]
    return Figures(COST.format(label=DISTANCES[MAIN]), found)


def _arms_frame(unseen: pd.DataFrame) -> pd.DataFrame:
    """task, arm, score, mean, low, high: of the main distance, over a family's unseen members."""
    rows = []
    for (family, arm), found in unseen.groupby(["family", "arm"], sort=False):
        values = found[MAIN] if found[MAIN].notna().any() else found[FRECHET]
        rows.append((family, arm, values.mean(), values.mean(), values.min(), values.max()))
    return pd.DataFrame(rows, columns=["task", "arm", "score", "mean", "low", "high"]).round(4)
