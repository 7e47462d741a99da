"""Small runs as merge-eval and the others leave them, out of random numbers: nothing here was trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image, PngImagePlugin
from safetensors.numpy import load_file, save_file

from condpdiff.report.arms import ARMS

REPO = Path(__file__).parents[2]
K = 24
MANY = [name for name, arm in ARMS.items() if arm.drawn]
SKILL = {  # share of right predictions (classification) or of signal (regression)
    "majority": 0.0, "no_lora": 0.55, "original": 0.80, "soup": 0.84, "soup_16": 0.838, "gaussian": 0.84,
    "pca_gaussian": 0.82, "checkpoint_noise": 0.81, "ae_reconstruction": 0.82, "zero_decode": 0.84, "condpdiff": 0.835,
}  # fmt: skip
DISTANCE = {  # FD-Lite0 of each arm
    "floor": 9.0, "no_lora": 88.0, "original": 11.5, "soup": 11.2, "soup_16": 11.25, "gaussian": 11.3,
    "pca_gaussian": 11.8, "checkpoint_noise": 11.7, "ae_reconstruction": 11.9, "zero_decode": 11.2, "condpdiff": 11.3,
}  # fmt: skip
METRICS = {"classification": ["accuracy", "f1"], "regression": ["pearson", "spearman"]}
KINDS = {"movies": ("classification", 2), "tweets": ("regression", 0), "moods": ("classification", 3)}
SOURCES: dict[str, dict[str, Any]] = {
    "charcoal": {"type": "rendered", "renderer": "charcoal"},
    "chalk": {"type": "rendered", "renderer": "chalk"},
    "waves": {"type": "rendered", "renderer": "fixed", "index": 19},
    "coral": {"type": "rendered", "renderer": "fixed", "index": 20},
    "own": {"type": "folder", "path": "my-images"},
}
PROMPTS = [f"a photograph of {what}" for what in ("a cat, whole", "a rocket, close-up left", "a cup of coffee, whole")]
ASKED = (0.0, 0.25, 0.5, 0.75, 1.0)
OWN = {"text": (85.0, 50.0), "style": (11.0, 88.0)}
"""Score of a task's own LoRAs, and of no LoRA."""


def build(
    root: Path,
    tasks: tuple[str, ...] = ("movies", "tweets"),
    n: int = 20,
    v: int = 200,
    count: int = 6,
    doses: int = 3,
    trajectories: int = 3,
    racing: bool = False,
    effect: float = 0.0,
) -> Path:
    """Write params.yaml, task files and the outputs of all stages under `root`; tasks named in SOURCES are styles.

    Args:
        v: validation rows.
        count: candidates of the arms that have several.
        doses: candidates a dose.
        effect: by how much a task's own condition is better than another's.
    """
    domain = "style" if tasks[0] in SOURCES else "text"
    root.mkdir(parents=True, exist_ok=True)
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    params |= {"domain": domain, "tasks": list(tasks)}
    if domain == "style":
        params["base"] = {"source": "trained", "name": "pixart-small"}
        params["condition"] = {"kind": "style_images", "encoder": "efficientnet_lite0", "model": "package:some-model"}
        _base(root / "data/base")
    params["sample"]["count"] = params["eval"]["candidates"] = count
    params["collect"]["max_checkpoints"] = params["normalize"]["n_checkpoints"] = n
    params["ldm"]["performance"] = "rank" if doses else "none"
    params["sample"] |= {"performance": 1.0 if doses else None, "doses": doses, "trajectories": trajectories}
    params["eval"]["select"] = "racing" if racing else "full"
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copytree(REPO / "configs/paper", root / "configs/paper")
    for i, name in enumerate(tasks):
        rng = np.random.default_rng(i)
        folder = root / "data/eval" / name
        walk = np.cumsum(rng.normal(0, 0.02, (n, K)), axis=0) + 3
        kind, classes = KINDS.get(name, ("classification", 2))
        _task_file(root / f"configs/tasks/{name}.yaml", domain, kind, classes)
        if domain == "style":
            _distances_to_style(folder, rng, count)
            _images(folder, i)
        else:
            _predictions(folder, rng, count, v, kind, classes)
        _geometry(folder, rng, walk, count, trajectories)
        _curves(root, name, rng)
        _doses(root, name, rng, n, doses, domain)
        _passes(folder, "full", {"select": {"done": 3000, "full": 3000}})
        if racing:
            _race(folder)
    _probe(root / "data/probe", tasks, *OWN[domain], effect)
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


def _task_file(path: Path, domain: str, kind: str, classes: int) -> None:
    if domain == "style":
        data: dict[str, Any] = {"size": 32, "source": SOURCES[path.stem]}
        condition, metrics, more = f"{path.stem.capitalize()} drawing", ["fd_lite0"], {}
    else:
        data = {"kind": kind, "source": {"type": "files", "train": "t.csv", "validation": "v.csv"}}
        data |= {"labels": ["bad", "good", "neutral"][:classes]} if classes else {"range": [-4, 4]}
        data |= {"columns": {"text": "text", "label": "label"}}
        condition, metrics, more = "How does the writer feel?", METRICS[kind], {"head_lr": 1e-3}
    task = {"data": data, "condition": {"description": condition}, "metrics": metrics}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(task | {"finetune": {"steps": 250, "lr": 1e-3} | more}, sort_keys=False))


def _curves(root: Path, name: str, rng: np.random.Generator) -> None:
    steps = np.arange(1, 401)
    loss = 0.35 + 0.4 * np.exp(-steps / 80) + rng.normal(0, 0.06, 400)
    folder = root / "data/zoo" / name
    write_csv(pd.DataFrame({"task": name, "step": steps, "loss": loss}), folder / "loss.csv")
    write_csv(pd.DataFrame({"task": name, "step": steps[49::50], "score": 84.0}), folder / "validation.csv")


def _doses(root: Path, name: str, rng: np.random.Generator, n: int, count: int, domain: str) -> None:
    """The zoo's losses, and samples of which better ones were asked for and got, with some noise."""
    loss = rng.uniform(0.4, 0.6, n)
    write_csv(pd.DataFrame({"checkpoint": range(n), "loss": loss}), root / f"data/performance/{name}.csv")
    rows = [("soup", None, 0, 0.42, 84.0)] if count else []
    for p in ASKED:
        for c in range(count):
            rows.append(("condpdiff", p, c, 0.6 - 0.2 * p + rng.normal(0, 0.02), 80 + 4 * p + rng.normal()))
    frame = pd.DataFrame(rows, columns=["arm", "asked", "candidate", "loss", "validation"])
    scored = frame if domain == "text" else frame.assign(validation=np.nan)
    write_csv(scored, root / f"data/eval/{name}/doses.csv")


def _passes(folder: Path, select: str, counts: dict[str, dict[str, int]]) -> None:
    (folder / "passes.json").write_text(json.dumps({"select": select, "rows": counts}))


def _race(folder: Path) -> None:
    """As if the evaluation had been a race: the worse half of each arm dropped out, and its winner alone is scored."""
    scores = pd.read_csv(folder / "scores.csv")
    validation = [c for c in scores if c.startswith("validation")]
    for _, rows in scores[scores["arm"] != "floor"].groupby("arm"):
        order = rows["select"].sort_values(ascending=False, kind="stable").index
        scores.loc[order[(len(order) + 1) // 2 :], ["rows", "select"]] = [12, np.nan]
        scores.loc[order[1:], validation] = np.nan
        if (folder / "predictions.safetensors").exists():
            tensors = load_file(folder / "predictions.safetensors")
            tensors["predictions"][order[1:]] = np.nan
            save_file(tensors, folder / "predictions.safetensors")
    write_csv(scores, folder / "scores.csv")
    write_csv(pd.read_csv(folder / "doses.csv").assign(validation=np.nan), folder / "doses.csv")
    _passes(folder, "racing", {"select": {"done": 1500, "full": 3000}, "validation": {"done": 2000, "full": 7000}})


def _scores(folder: Path, rng: np.random.Generator, rows: list[dict[str, Any]]) -> None:
    """Complete the rows' columns: where the LoRA of an arm lies, and on how many rows it was selected."""
    for row in rows:
        bare, floor = row["arm"] not in ARMS, row["arm"] == "floor"
        row |= {"checkpoint": row["candidate"] if row["arm"] == "original" else None, "rows": 0 if floor else 96}
        row["distance"] = None if bare else abs(rng.normal(0.1, 0.03))
    write_csv(pd.DataFrame(rows), folder / "scores.csv")


def _predictions(folder: Path, rng: np.random.Generator, count: int, v: int, kind: str, classes: int) -> None:
    labels = rng.integers(0, classes, v).astype(float) if classes else rng.normal(0, 1.5, v)
    difficulty = rng.uniform(size=v)
    rows, predictions = [], []
    for arm, skill in SKILL.items():
        for c in range(count if arm in MANY else 1):
            s = skill + rng.normal(0, 0.012 if arm == "original" else 0.005) if skill else 0.0
            if classes:
                wrong = difficulty + rng.normal(0, 0.05, v) > s
                most = float(np.bincount(labels.astype(int)).argmax())
                p = np.where(wrong, (labels + 1) % classes, labels) if skill else np.full(v, most)
                score = 100 * float((p == labels).mean())
            else:
                p = s * labels + (1 - s) * rng.normal(0, 3, v) if skill else np.zeros(v)
                score = 100 * float(np.corrcoef(p, labels)[0, 1]) if np.ptp(p) else 0.0
            row = {"arm": arm, "candidate": c, "select": score + rng.normal(0, 0.5), "validation": score}
            rows.append(row | {f"validation_{metric}": score for metric in METRICS[kind]})
            predictions.append(p)
    _scores(folder, rng, rows)
    tensors = {"predictions": np.stack(predictions).astype(np.float32), "labels": labels.astype(np.float32)}
    save_file(tensors, folder / "predictions.safetensors")


def _distances_to_style(folder: Path, rng: np.random.Generator, count: int) -> None:
    rows = []
    for arm, score in DISTANCE.items():
        for c in range(3 if arm == "floor" else count if arm in MANY else 1):
            fd = score + (rng.normal(0, 0.25) if arm in MANY else 0.1 * (c - 1) if arm == "floor" else 0.0)
            select = np.nan if arm == "floor" else -fd / 80 + rng.normal(0, 0.004)
            rows.append({"arm": arm, "candidate": c, "select": select, "validation": fd, "validation_fd_lite0": fd})
    _scores(folder, rng, rows)


def _geometry(folder: Path, rng: np.random.Generator, walk: np.ndarray, count: int, noises: int) -> None:
    """Points and their distances; noises that go to a checkpoint in four steps; spreads."""
    centre = walk.mean(0)
    points: list[tuple[str, int]] = [("checkpoint", i) for i in range(len(walk))] + [("soup", 0)]
    points += [(arm, c) for arm in ("gaussian", "pca_gaussian", "condpdiff") for c in range(count)]
    x = np.concatenate([walk, centre[None], centre + 0.05 * rng.normal(size=(3 * count, K))])
    write_csv(pd.DataFrame(points, columns=["arm", "candidate"]), folder / "points.csv")
    save_file({"distances": _between(x)}, folder / "distances.safetensors")
    ways: list[tuple[str, int, int | None]] = [(arm, c, None) for arm, c in points[: len(walk) + 1]]
    x = np.concatenate([walk, centre[None], *(_way(rng, centre, walk) for _ in range(noises))])
    ways += [("condpdiff", noise, point) for noise in range(noises) for point in range(4)]
    frame = pd.DataFrame(ways, columns=["arm", "candidate", "point"]).astype({"point": "Int64"})
    write_csv(frame, folder / "trajectories.csv")
    save_file({"distances": _between(x)}, folder / "trajectories.safetensors")
    spread = {"checkpoint": 1.0, "original": 0.98, "gaussian": 1.01, "pca_gaussian": 0.97, "soup_16": 0.25}
    narrow = 0.9 if folder.name == "movies" else 0.31
    (folder / "spread.json").write_text(json.dumps(spread | {"condpdiff": narrow, "ae_reconstruction": 0.95}))


def _way(rng: np.random.Generator, centre: np.ndarray, walk: np.ndarray) -> np.ndarray:
    start, end = centre + rng.normal(0, 0.6, K), walk[rng.integers(len(walk))]
    return np.stack([start + share * (end - start) for share in np.linspace(0, 1, 4)])


def _between(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - x[None], axis=-1).astype(np.float32)


def _probe(folder: Path, tasks: tuple[str, ...], own: float, bare: float, effect: float) -> None:
    """Conditions and statistics swapped, the own condition `effect` better than another."""
    rng, swap = np.random.default_rng(4), []
    for task in tasks:
        for condition in (*tasks, "nonsense", "dropped"):
            gain = effect if condition == task else 0.0
            swap += [(condition, task, task, sample, own + gain + rng.normal(0, 0.1)) for sample in range(2)]
        for other in (name for name in tasks if name != task):  # the task's statistics bring half of what there is
            lost = (own - bare) / 2
            swap += [(task, other, task, sample, own + effect - lost + rng.normal(0, 0.1)) for sample in range(2)]
    columns = ["condition", "statistics", "task", "sample", "score"]
    write_csv(pd.DataFrame(swap, columns=columns), folder / "swap.csv")


def _images(folder: Path, style: int) -> None:
    rows = []
    for arm in (*(arm for arm in DISTANCE if arm != "floor"), "real"):
        for i, prompt in enumerate(PROMPTS):
            file = f"images/{arm}/{i}.png"
            _png(folder / file, [3, i, style], text=prompt)
            rows.append((arm, file, prompt, None if arm == "real" else i))
    frame = pd.DataFrame(rows, columns=["arm", "file", "prompt", "seed"]).astype({"seed": "Int64"})
    write_csv(frame, folder / "images.csv")


def _png(path: Path, seed: list[int], size: int = 32, text: str = "") -> None:
    """Coloured noise."""
    image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).resize((size, size)).save(path, pnginfo=info)


def _base(folder: Path) -> None:
    _png(folder / "samples.png", [5], 320)
    steps = np.arange(0, 2000, 10)
    for i, name in enumerate(("autoencoder", "denoiser")):
        loss = 0.1 + np.exp(-steps / 300) * np.random.default_rng(i).uniform(0.8, 1.2, len(steps))
        write_csv(pd.DataFrame({"step": steps, "loss": loss}), folder / f"{name}.csv")
