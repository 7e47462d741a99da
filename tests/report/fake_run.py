"""Small runs as merge-eval and the others leave them, out of random numbers: nothing here was trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file

from condpdiff.report.arms import ARMS

REPO = Path(__file__).parents[2]
K = 24
ROWS = 200
SKILL = {  # share of right predictions (classification) or of signal (regression)
    "majority": 0.0, "no_lora": 0.55, "original": 0.80, "soup": 0.84, "soup_16": 0.838, "gaussian": 0.84,
    "pca_gaussian": 0.82, "checkpoint_noise": 0.81, "ae_reconstruction": 0.82, "zero_decode": 0.84, "condpdiff": 0.835,
}  # fmt: skip
METRICS = {"classification": ["accuracy", "f1"], "regression": ["pearson", "spearman"]}
KINDS = {"movies": "classification", "tweets": "regression"}


def build(root: Path, tasks: tuple[str, ...] = ("movies", "tweets"), n: int = 20, count: int = 6, few: int = 3) -> Path:
    """Write params.yaml, task files and the outputs of all stages under `root`.

    Of n checkpoints; arms of several have `count` candidates, and `few` are those of a dose, and trajectories.
    """
    root.mkdir(parents=True, exist_ok=True)
    params = yaml.safe_load((REPO / "params.yaml").read_text()) | {"tasks": list(tasks)}
    params["sample"]["count"] = params["eval"]["candidates"] = count
    params["collect"]["max_checkpoints"] = params["normalize"]["n_checkpoints"] = n
    params["ldm"]["performance"] = "rank" if few else "none"
    params["sample"] |= {"performance": 1.0 if few else None, "doses": few, "trajectories": few}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copytree(REPO / "configs/paper", root / "configs/paper")
    for i, name in enumerate(tasks):
        rng, folder = np.random.default_rng(i), root / "data/eval" / name
        folder.mkdir(parents=True)
        _task_file(root / f"configs/tasks/{name}.yaml", KINDS[name])
        _predictions(folder, rng, count, KINDS[name])
        _geometry(folder, rng, n, count, few)
        _curves(root, name)
        _doses(root, name, rng, n, few)
    write_probe(root / "data/probe", tasks, 0.0)
    return root


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)


def write_study(root: Path) -> None:
    """Two seeds of a study's rows, as `docs/studies` has them, and the paper's figures."""
    rows: list[tuple[str, int | None, str, str, float | None, float | None]] = []
    for row, ours, paper in (("one_hot", 80.0, 79.17), ("task_info", 81.0, 85.1)):
        for seed in (0, 1):
            for arm, value in (("condpdiff_mean", ours + seed), ("condpdiff", ours + seed + 1), ("soup", 79.0)):
                rows += [(row, seed, arm, "movies", value + 5, None), (row, seed, arm, "average", value, None)]
        rows += [(row, None, "condpdiff", t, None, paper + more) for t, more in (("SST2", 5), ("average", 0))]
    frame = pd.DataFrame(rows, columns=["row", "seed", "arm", "task", "value", "paper"])
    write_csv(frame.assign(study="table4b", size="embedded"), root / "docs/studies/table4b.csv")


def _task_file(path: Path, kind: str) -> None:
    labels = {"labels": ["bad", "good"]} if kind == "classification" else {"range": [-4, 4]}
    source = {"type": "files", "train": "t.csv", "validation": "v.csv"}
    task = {
        "data": {"kind": kind, "source": source, "columns": {"text": "text", "label": "label"}} | labels,
        "condition": {"description": "How does the writer feel?"},
        "metrics": METRICS[kind],
        "finetune": {"steps": 250, "lr": 1e-3, "head_lr": 1e-3},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(task, sort_keys=False))


def _curves(root: Path, name: str) -> None:
    steps, folder = np.arange(1, 401), root / "data/zoo" / name
    write_csv(pd.DataFrame({"task": name, "step": steps, "loss": 0.35 + 0.4 / steps}), folder / "loss.csv")
    write_csv(pd.DataFrame({"task": name, "step": steps[49::50], "score": 84.0}), folder / "validation.csv")


def _doses(root: Path, name: str, rng: np.random.Generator, n: int, count: int) -> None:
    """The zoo's losses, and samples of which better ones were asked for and got, with some noise."""
    loss = rng.uniform(0.4, 0.6, n)
    write_csv(pd.DataFrame({"checkpoint": range(n), "loss": loss}), root / f"data/performance/{name}.csv")
    rows = [("soup", None, 0, 0.42, 84.0)] if count else []
    for p in (0.0, 0.25, 0.5, 0.75, 1.0):
        for c in range(count):
            rows.append(("condpdiff", p, c, 0.6 - 0.2 * p + rng.normal(0, 0.02), 80 + 4 * p + rng.normal()))
    frame = pd.DataFrame(rows, columns=["arm", "asked", "candidate", "loss", "validation"])
    write_csv(frame, root / f"data/eval/{name}/doses.csv")


def _predictions(folder: Path, rng: np.random.Generator, count: int, kind: str) -> None:
    classes = kind == "classification"
    labels = rng.integers(0, 2, ROWS).astype(float) if classes else rng.normal(0, 1.5, ROWS)
    rows: list[dict[str, Any]] = []
    predictions = []
    for arm, skill in SKILL.items():
        for c in range(count if arm in ARMS and ARMS[arm].drawn else 1):
            s = skill and skill + rng.normal(0, 0.01)
            wrong = 1 - labels if classes else rng.normal(0, 3, ROWS)
            share = rng.uniform(size=ROWS) < s if classes else s
            p = share * labels + (1 - share) * wrong if skill else np.zeros(ROWS)
            score = 100 * ((p == labels).mean() if classes else np.corrcoef(p, labels)[0, 1] if skill else 0.0)
            row = {"arm": arm, "candidate": c, "checkpoint": c if arm == "original" else None, "rows": 96}
            row["distance"] = abs(rng.normal(0.1, 0.03)) if arm in ARMS else None
            row["select"] = score + rng.normal(0, 0.5)
            rows.append(row | dict.fromkeys(["validation", *(f"validation_{m}" for m in METRICS[kind])], score))
            predictions.append(p)
    write_csv(pd.DataFrame(rows), folder / "scores.csv")
    tensors = {"predictions": np.stack(predictions).astype(np.float32), "labels": labels.astype(np.float32)}
    save_file(tensors, folder / "predictions.safetensors")


def _geometry(folder: Path, rng: np.random.Generator, n: int, count: int, noises: int) -> None:
    """Points and their distances; noises that go to a checkpoint in four steps; spreads."""
    walk = np.cumsum(rng.normal(0, 0.02, (n, K)), axis=0) + 3
    centre = walk.mean(0)
    zoo: list[tuple[str, int]] = [*(("checkpoint", i) for i in range(n)), ("soup", 0)]
    points = zoo + [(arm, c) for arm in ("gaussian", "pca_gaussian", "condpdiff") for c in range(count)]
    x = np.concatenate([walk, centre[None], centre + 0.05 * rng.normal(size=(3 * count, K))])
    write_csv(pd.DataFrame(points, columns=["arm", "candidate"]), folder / "points.csv")
    save_file({"distances": _between(x)}, folder / "distances.safetensors")
    starts, ends = centre + rng.normal(0, 0.6, (noises, 1, K)), walk[rng.integers(n, size=(noises, 1))]
    on_the_way = starts + np.linspace(0, 1, 4)[:, None] * (ends - starts)  # [noises, 4, K]
    ways = [(*point, None) for point in zoo] + [("condpdiff", i, step) for i in range(noises) for step in range(4)]
    frame = pd.DataFrame(ways, columns=["arm", "candidate", "point"]).astype({"point": "Int64"})
    write_csv(frame, folder / "trajectories.csv")
    x = np.concatenate([walk, centre[None], on_the_way.reshape(-1, K)])
    save_file({"distances": _between(x)}, folder / "trajectories.safetensors")
    spread = {"checkpoint": 1.0, "original": 0.98, "gaussian": 1.01, "pca_gaussian": 0.97, "soup_16": 0.25}
    narrow = 0.9 if folder.name == "movies" else 0.31
    (folder / "spread.json").write_text(json.dumps(spread | {"condpdiff": narrow, "ae_reconstruction": 0.95}))


def _between(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - x[None], axis=-1).astype(np.float32)


def write_probe(folder: Path, tasks: tuple[str, ...], effect: float) -> None:
    """Conditions and statistics swapped; the own condition is `effect` better than another, own statistics 17.5."""
    rng = np.random.default_rng(4)
    cells = [(c, task, task, 85.0 + effect * (c == task)) for task in tasks for c in (*tasks, "nonsense", "dropped")]
    cells += [(task, other, task, 67.5 + effect) for task in tasks for other in tasks if other != task]
    rows = [(*where, sample, score + rng.normal(0, 0.1)) for *where, score in cells for sample in range(2)]
    columns = ["condition", "statistics", "task", "sample", "score"]
    write_csv(pd.DataFrame(rows, columns=columns), folder / "swap.csv")
