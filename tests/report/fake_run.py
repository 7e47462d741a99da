"""A small run as merge-eval and the others leave it, out of random numbers: nothing here was trained."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import load_file, save_file

REPO = Path(__file__).parents[2]
N, V, K = 40, 200, 24
MANY = ("original", "soup_16", "gaussian", "pca_gaussian", "checkpoint_noise", "ae_reconstruction", "condpdiff")
SKILL = {  # share of right predictions (classification) or of signal (regression)
    "majority": 0.0, "no_lora": 0.55, "original": 0.80, "soup": 0.84, "soup_16": 0.838, "gaussian": 0.84,
    "pca_gaussian": 0.82, "checkpoint_noise": 0.81, "ae_reconstruction": 0.82, "zero_decode": 0.84, "condpdiff": 0.835,
}  # fmt: skip
TASKS = {"movies": "classification", "tweets": "regression", "moods": "classification"}


def build(
    root: Path,
    tasks: tuple[str, ...] = ("movies", "tweets"),
    n: int = N,
    v: int = V,
    count: int = 6,
    doses: int = 4,
    racing: bool = False,
    pairs: int = 1,
    effect: float = 0.0,
) -> Path:
    """Write params.yaml, task files, zoo, samples, curves, evaluations, interpolations and probe under `root`."""
    root.mkdir(parents=True, exist_ok=True)
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    params["tasks"] = list(tasks)
    params["sample"]["count"] = params["eval"]["candidates"] = count
    params["collect"]["max_checkpoints"] = params["normalize"]["n_checkpoints"] = n
    params["ldm"]["performance"] = "rank" if doses else "none"
    params["sample"] |= {"performance": 1.0 if doses else None, "doses": doses}
    params["interpolate"] |= {"pairs": pairs, "samples": min(count, 2)}
    params["eval"]["select"] = "racing" if racing else "full"
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copytree(REPO / "configs/paper", root / "configs/paper")
    for i, name in enumerate(tasks):
        kind = TASKS.get(name, "classification")
        _task(root / f"configs/tasks/{name}.yaml", kind, three=name == "moods")
        _zoo(root / "data/zoo" / name, np.random.default_rng(i), kind)
        _trajectories(root, name, np.random.default_rng([3, i]), n, count)
        _evaluation(
            root / "data/eval" / name, np.random.default_rng([1, i]), kind, n, v, count, 3 if name == "moods" else 2
        )
        _doses(root, name, np.random.default_rng([2, i]), n, doses)
        if racing:
            _race(root / "data/eval" / name)
    for one, other in list(pairwise(tasks))[:pairs]:
        write_between(root, one, other, min(count, 2), 85.0, 50.0)
    write_probe(root, tasks, 85.0, 50.0, effect)
    write_networks(root)
    return root


UNSEEN = {"unseen_wording": 2.0, "unseen_examples": 1.0}
"""Kind of conditions that training never drew -> the points that they lose."""


def write_between(
    root: Path, one: str, other: str, samples: int, own: float, far: float, unseen: dict[str, float] = UNSEEN
) -> Path:
    """Scores between two tasks: `own` for a task's own LoRAs, `far` for the other's."""
    folder = root / f"data/interpolation/{one}--{other}"
    rng = np.random.default_rng(0)
    rows = []
    for sample in range(samples):
        for task, end in ((one, 0), (other, 1)):
            for kind in ("weights", "condition"):
                for at in (0.0, 0.25, 0.5, 0.75, 1.0):
                    score = own + (far - own) * abs(at - end)
                    rows.append((kind, at, sample, task, score + rng.normal(0, 0.1)))
            for kind, lost in unseen.items():
                rows += [(kind, at, sample, task, (own if at == end else far) - lost) for at in (0.0, 1.0)]
    write_csv(pd.DataFrame(rows, columns=["kind", "lambda", "sample", "task", "score"]), folder / "scores.csv")
    return folder


def write_probe(root: Path, tasks: tuple[str, ...], own: float, bare: float, effect: float) -> None:
    """Conditions and statistics swapped, the own condition `effect` better than another; and each task left out.

    A LoRA of a task never trained on goes half the way from `bare` to `own`, the others' soups a third.
    """
    rng = np.random.default_rng(4)
    swap, unseen = [], []
    for task in tasks:
        for condition in (*tasks, "nonsense", "dropped"):
            gain = effect if condition == task else 0.0
            swap += [(condition, task, task, sample, own + gain + rng.normal(0, 0.1)) for sample in range(2)]
        for other in (name for name in tasks if name != task):  # the task's statistics bring half of what there is
            lost = (own - bare) / 2
            swap += [(task, other, task, sample, own + effect - lost + rng.normal(0, 0.1)) for sample in range(2)]
        third, half = bare + (own - bare) / 3, bare + (own - bare) / 2
        unseen += [(task, "no_lora", "", 0, bare), (task, "soup", "own", 0, own)]
        for guess in ("mean", "similar"):
            unseen.append((task, "soup_of_others", guess, 0, third))
            unseen += [(task, "condpdiff", guess, sample, half + rng.normal(0, 0.1)) for sample in range(2)]
    rows = unseen if len(tasks) > 1 else []
    columns = ["condition", "statistics", "task", "sample", "score"]
    write_csv(pd.DataFrame(swap, columns=columns), root / "data/probe/swap.csv")
    columns = ["task", "arm", "statistics", "sample", "score"]
    write_csv(pd.DataFrame(rows, columns=columns), root / "data/probe/unseen.csv")


def write_networks(root: Path) -> None:
    """Curves of autoencoder and diffusion model."""
    rng = np.random.default_rng(9)
    for name, floor in (("autoencoder", 0.08), ("ldm", 0.2)):
        steps = np.arange(0, 1500, 10)
        loss = floor + np.exp(-steps / 200) * rng.uniform(0.8, 1.2, len(steps))
        frame = pd.DataFrame({"step": steps, "loss": loss})
        if name == "autoencoder":
            frame["validation"] = np.where(steps % 100 == 0, loss * 1.1, np.nan)
        write_csv(frame, root / f"data/{name}/curve.csv")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)


def _task(path: Path, kind: str, three: bool) -> None:
    classes = ["bad", "neutral", "good"] if three else ["bad", "good"]
    is_classes = kind == "classification"
    task = {
        "data": {
            "kind": kind,
            **({"labels": classes} if is_classes else {"range": [-4, 4]}),
            "source": {"type": "files", "train": "t.csv", "validation": "v.csv"},
            "columns": {"text": "text", "label": "label"},
        },
        "condition": {"description": "How does the writer feel?"},
        "metrics": ["accuracy", "f1"] if is_classes else ["pearson", "spearman"],
        "finetune": {"steps": 250, "lr": 1e-3, "head_lr": 1e-3},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(task, sort_keys=False))


def _zoo(folder: Path, rng: np.random.Generator, kind: str) -> None:
    steps = np.arange(1, 401)
    loss = 0.35 + 0.4 * np.exp(-steps / 80) + rng.normal(0, 0.06, 400)
    write_csv(pd.DataFrame({"task": folder.name, "step": steps, "loss": loss}), folder / "loss.csv")
    score = 84 - 30 * np.exp(-steps[49::50] / 90) + rng.normal(0, 0.8, 8)
    write_csv(pd.DataFrame({"task": folder.name, "step": steps[49::50], "score": score}), folder / "validation.csv")


def _trajectories(root: Path, name: str, rng: np.random.Generator, n: int, count: int) -> None:
    """A zoo of more checkpoints than are generated from, and noises that come nearer to it."""
    walk = np.cumsum(rng.normal(0, 0.02, (n + 2, K)), axis=0) + 3
    save_file({"theta": walk.astype(np.float32)}, root / "data/zoo" / name / "theta.safetensors")
    noise = rng.normal(0, 1, (count, 1, K)) * np.linspace(1, 0.02, 4)[:, None]  # [J, P, K]
    (root / "data/samples").mkdir(parents=True, exist_ok=True)
    trajectories = (walk[-1] + noise).astype(np.float32)
    save_file({"trajectories": trajectories}, root / "data/samples" / f"{name}.safetensors")


def write_study(root: Path) -> None:
    """Two seeds of a study's rows, as `docs/studies` has them, and the paper's figures."""
    rows: list[tuple[str, str, str, int | None, str, str, float | None, float | None]] = []
    for row, ours, paper in (("one_hot", 80.0, 79.17), ("task_info", 81.0, 85.1)):
        for seed in (0, 1):
            for arm, more in (("condpdiff_mean", 0.0), ("condpdiff", 1.0)):
                value = ours + seed + more
                rows += [
                    ("table4b", "embedded", row, seed, arm, "movies", value + 5, None),
                    ("table4b", "embedded", row, seed, arm, "average", value, None),
                ]
            rows.append(("table4b", "embedded", row, seed, "soup", "average", 79.0, None))
        rows += [
            ("table4b", "embedded", row, None, "condpdiff", "SST2", None, paper + 5),
            ("table4b", "embedded", row, None, "condpdiff", "average", None, paper),
        ]
    columns = ["study", "size", "row", "seed", "arm", "task", "value", "paper"]
    write_csv(pd.DataFrame(rows, columns=columns), root / "docs/studies/table4b.csv")


def _doses(root: Path, name: str, rng: np.random.Generator, n: int, count: int) -> None:
    """The zoo's losses, and samples of which better ones were asked for and got, with some noise."""
    loss = rng.uniform(0.4, 0.6, n)
    write_csv(pd.DataFrame({"checkpoint": range(n), "loss": loss}), root / f"data/performance/{name}.csv")
    rows = [("soup", None, 0, 0.42, 84.0)] if count else []
    for p in (0.0, 0.25, 0.5, 0.75, 1.0):
        for c in range(count):
            rows.append(("condpdiff", p, c, 0.6 - 0.2 * p + rng.normal(0, 0.02), 80 + 4 * p + rng.normal()))
    columns = ["arm", "asked", "candidate", "loss", "validation"]
    write_csv(pd.DataFrame(rows, columns=columns), root / f"data/eval/{name}/doses.csv")


def _race(folder: Path) -> None:
    """As if the evaluation had been a race: the worse half of each arm dropped out, and its winner alone is scored."""
    scores = pd.read_csv(folder / "scores.csv")
    tensors = load_file(folder / "predictions.safetensors")
    validation = [c for c in scores if c.startswith("validation")]
    for _, rows in scores.groupby("arm"):
        order = rows["select"].sort_values(ascending=False, kind="stable").index
        scores.loc[order[(len(order) + 1) // 2 :], ["rows", "select"]] = [12, np.nan]
        scores.loc[order[1:], validation] = np.nan
        tensors["predictions"][order[1:]] = np.nan
    write_csv(scores, folder / "scores.csv")
    save_file(tensors, folder / "predictions.safetensors")
    doses = pd.read_csv(folder / "doses.csv").assign(validation=np.nan)
    write_csv(doses, folder / "doses.csv")
    counts = {"select": {"done": 1500, "full": 3000}, "validation": {"done": 2000, "full": 7000}}
    write_passes(folder, "racing", counts)


def write_passes(folder: Path, select: str, counts: dict[str, dict[str, int]]) -> None:
    (folder / "passes.json").write_text(json.dumps({"select": select, "rows": counts}))


def _evaluation(folder: Path, rng: np.random.Generator, kind: str, n: int, v: int, count: int, classes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    labels = rng.integers(0, classes, v).astype(np.float32) if kind == "classification" else rng.normal(0, 1.5, v)
    difficulty = rng.uniform(size=v)
    metrics = ["accuracy", "f1"] if kind == "classification" else ["pearson", "spearman"]
    walk = np.cumsum(rng.normal(0, 0.02, (n, K)), axis=0) + 3
    rows, predictions, points = [], [], [("checkpoint", i, walk[i]) for i in range(n)]
    for arm, skill in SKILL.items():
        for c in range(count if arm in MANY else 1):
            s = skill + rng.normal(0, 0.012 if arm == "original" else 0.005) if skill else 0.0
            p = _predict(rng, labels, difficulty, s, kind, classes)
            score = _scores(p, labels, kind)
            pick = np.linspace(0, n - 1, count).astype(int)[c]
            theta = {
                "original": walk[pick],
                "gaussian": walk.mean(0) + walk.std(0) * rng.normal(size=K),
                "condpdiff": walk[pick] + rng.normal(0, 0.01, K),
            }.get(arm, walk.mean(0) + rng.normal(0, 0.004, K))
            bare = arm in ("majority", "no_lora")
            rows.append(
                {
                    "arm": arm, "candidate": c, "checkpoint": pick if arm == "original" else None, "rows": 96,
                    "select": score[0] + rng.normal(0, 0.5), "validation": score[0],
                    **{f"validation_{m}": x for m, x in zip(metrics, score, strict=True)},
                    "distance": None if bare else np.linalg.norm(walk - theta, axis=1).min(),
                }
            )  # fmt: skip
            predictions.append(p)
            if arm in ("soup", "gaussian", "pca_gaussian", "condpdiff"):
                points.append((arm, c, theta))
    write_csv(pd.DataFrame(rows), folder / "scores.csv")
    write_passes(folder, "full", {"select": {"done": 3000, "full": 3000}, "validation": {"done": 7000, "full": 7000}})
    write_csv(pd.DataFrame([p[:2] for p in points], columns=["arm", "candidate"]), folder / "points.csv")
    x = np.stack([p[2] for p in points])
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1).astype(np.float32)
    save_file({"distances": distances}, folder / "distances.safetensors")
    save_file(
        {"predictions": np.stack(predictions).astype(np.float32), "labels": labels.astype(np.float32)},
        folder / "predictions.safetensors",
    )
    spread = {"checkpoint": 1.0, "original": 0.98, "gaussian": 1.01, "pca_gaussian": 0.97}
    spread |= {"condpdiff": 0.9 if kind == "classification" else 0.31, "ae_reconstruction": 0.95, "soup_16": 0.25}
    (folder / "spread.json").write_text(json.dumps(spread))


def _predict(
    rng: np.random.Generator, labels: np.ndarray, difficulty: np.ndarray, skill: float, kind: str, classes: int
) -> np.ndarray:
    if kind == "regression":
        return skill * labels + (1 - skill) * rng.normal(0, 3, len(labels)) if skill else np.zeros(len(labels))
    if not skill:
        return np.full(len(labels), float(np.bincount(labels.astype(int)).argmax()))
    wrong = difficulty + rng.normal(0, 0.05, len(labels)) > skill
    return np.where(wrong, (labels + 1) % classes, labels)


def _scores(p: np.ndarray, y: np.ndarray, kind: str) -> list[float]:
    if kind == "classification":
        return [100 * float((p == y).mean())] * 2
    r = 100 * float(np.corrcoef(p, y)[0, 1]) if np.ptp(p) else 0.0
    return [r, r]
