"""A small run on styles as merge-eval and the others leave it, out of random numbers: nothing here was trained."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from fake_run import REPO, write_between, write_csv, write_networks, write_passes, write_probe
from PIL import Image, PngImagePlugin
from safetensors.numpy import save_file

K = 24
SCORES = {  # FD-Lite0 of each arm
    "floor": 9.0, "no_lora": 88.0, "original": 11.5, "soup": 11.2, "soup_16": 11.25, "gaussian": 11.3,
    "pca_gaussian": 11.8, "checkpoint_noise": 11.7, "ae_reconstruction": 11.9, "zero_decode": 11.2, "condpdiff": 11.3,
}  # fmt: skip
MANY = ("original", "soup_16", "gaussian", "pca_gaussian", "checkpoint_noise", "ae_reconstruction", "condpdiff")
FLOOR_DRAWS = 3
PICTURED = ("no_lora", *(arm for arm in SCORES if arm not in ("floor", "no_lora")))
STYLES = {
    "charcoal": {"type": "rendered", "renderer": "charcoal"},
    "chalk": {"type": "rendered", "renderer": "chalk"},
    "waves": {"type": "rendered", "renderer": "fixed", "index": 19},
    "own": {"type": "folder", "path": "my-images"},
}
PROMPTS = [
    f"a photograph of {what}"
    for what in ("a cat, whole", "a rocket, close-up left", "a cup of coffee, whole", "a rose")
]

LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
STRIPS = {"weights": LAMBDAS, "condition": LAMBDAS, "unseen_images": (0.0, 1.0)}


def build_styles(
    root: Path,
    styles: tuple[str, ...] = ("charcoal", "chalk"),
    n: int = 20,
    count: int = 6,
    doses: int = 3,
    trajectories: int = 3,
    racing: bool = False,
    size: int = 64,
    effect: float = 0.0,
) -> Path:
    """Write params.yaml, task files, base, zoo, curves, evaluations, interpolations and probe of `styles`."""
    root.mkdir(parents=True, exist_ok=True)
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    params |= {"domain": "style", "tasks": list(styles), "base": {"source": "trained", "name": "pixart-small"}}
    params["condition"] = {"kind": "style_images", "encoder": "efficientnet_lite0", "model": "package:some-model"}
    params["sample"]["count"] = params["eval"]["candidates"] = count
    params["collect"]["max_checkpoints"] = params["normalize"]["n_checkpoints"] = n
    params["ldm"]["performance"] = "rank" if doses else "none"
    params["sample"] |= {"performance": 1.0 if doses else None, "doses": doses, "trajectories": trajectories}
    params["interpolate"]["samples"] = min(count, 2)
    params["eval"]["select"] = "racing" if racing else "full"
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for i, name in enumerate(styles):
        rng = np.random.default_rng(i)
        _task(root / f"configs/tasks/{name}.yaml", STYLES[name], size)
        _zoo(root / "data/zoo" / name, rng)
        folder = root / "data/eval" / name
        folder.mkdir(parents=True)
        walk = np.cumsum(rng.normal(0, 0.02, (n, K)), axis=0) + 3
        scores = _scores(rng, walk, count, racing)
        write_csv(scores, folder / "scores.csv")
        write_passes(folder, "racing" if racing else "full", {"select": {"done": 1500, "full": 3000}})
        _geometry(folder, rng, walk, count)
        _trajectories(folder, rng, walk, trajectories)
        _images(folder, i, size)
        _doses(root, name, rng, n, doses)
    for one, other in list(pairwise(styles))[:1]:
        _strips(write_between(root, one, other, min(count, 2), 11.0, 60.0, {"unseen_images": 1.0}), size)
    write_probe(root, styles, 11.0, 88.0, effect)
    write_networks(root)
    _base(root / "data/base")
    (root / "configs/paper").mkdir(parents=True)
    paper = "configs/paper/table2_style_fid.csv"
    (root / paper).write_text((REPO / paper).read_text())
    return root


def _task(path: Path, source: dict[str, object], size: int) -> None:
    task = {
        "data": {"size": size, "source": source},
        "condition": {"description": f"{path.stem.capitalize()} drawing"},
        "metrics": ["fd_lite0"],
        "finetune": {"steps": 250, "lr": 1e-3},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(task, sort_keys=False))


def _zoo(folder: Path, rng: np.random.Generator) -> None:
    steps = np.arange(1, 401)
    loss = 0.15 + 0.3 * np.exp(-steps / 80) + rng.normal(0, 0.03, 400)
    write_csv(pd.DataFrame({"task": folder.name, "step": steps, "loss": loss}), folder / "loss.csv")
    score = -0.16 - 0.3 * np.exp(-steps[49::50] / 90) + rng.normal(0, 0.004, 8)
    write_csv(pd.DataFrame({"task": folder.name, "step": steps[49::50], "score": score}), folder / "validation.csv")


def _scores(rng: np.random.Generator, walk: np.ndarray, count: int, racing: bool) -> pd.DataFrame:
    rows = []
    for arm, score in SCORES.items():
        for c in range(FLOOR_DRAWS if arm == "floor" else count if arm in MANY else 1):
            fd = score + (rng.normal(0, 0.25) if arm in MANY else 0.1 * (c - 1) if arm == "floor" else 0.0)
            pick = np.linspace(0, len(walk) - 1, count).astype(int)[min(c, count - 1)]
            distance = None if arm in ("floor", "no_lora") else abs(rng.normal(0.1, 0.03))
            seen, select = (0, np.nan) if arm == "floor" else (96, -fd / 80 + rng.normal(0, 0.004))
            rows.append((arm, c, pick if arm == "original" else None, seen, select, fd, fd, distance))
    columns = ["arm", "candidate", "checkpoint", "rows", "select", "validation", "validation_fd_lite0", "distance"]
    scores = pd.DataFrame(rows, columns=columns)
    if racing:
        for _, group in scores[scores["arm"] != "floor"].groupby("arm"):
            order = group["select"].sort_values(ascending=False).index
            scores.loc[order[(len(order) + 1) // 2 :], ["rows", "select"]] = [12, np.nan]
            scores.loc[order[1:], ["validation", "validation_fd_lite0"]] = np.nan
    return scores


def _geometry(folder: Path, rng: np.random.Generator, walk: np.ndarray, count: int) -> None:
    points = [("checkpoint", i) for i in range(len(walk))] + [("soup", 0)]
    points += [(arm, c) for arm in ("gaussian", "condpdiff") for c in range(count)]
    x = np.concatenate([walk, walk.mean(0)[None], walk.mean(0) + 0.05 * rng.normal(size=(2 * count, K))])
    write_csv(pd.DataFrame(points, columns=["arm", "candidate"]), folder / "points.csv")
    _distances(folder / "distances.safetensors", x)
    spread = {"checkpoint": 1.0, "gaussian": 1.01, "pca_gaussian": 0.97, "condpdiff": 0.31, "soup_16": 0.25}
    (folder / "spread.json").write_text(json.dumps(spread | {"ae_reconstruction": 0.95}))


def _trajectories(folder: Path, rng: np.random.Generator, walk: np.ndarray, count: int) -> None:
    """Noises that go to a checkpoint in ten steps."""
    points: list[tuple[str, int, int | None]] = [("checkpoint", i, None) for i in range(len(walk))] + [
        ("soup", 0, None)
    ]
    x = [*walk, walk.mean(0)]
    for noise in range(count):
        start, end = walk.mean(0) + rng.normal(0, 0.6, K), walk[rng.integers(len(walk))]
        for point, share in enumerate(np.linspace(0, 1, 10)):
            points.append(("condpdiff", noise, point))
            x.append(start + share * (end - start) + rng.normal(0, 0.01, K))
    write_csv(pd.DataFrame(points, columns=["arm", "candidate", "point"]), folder / "trajectories.csv")
    _distances(folder / "trajectories.safetensors", np.stack(x))


def _distances(path: Path, x: np.ndarray) -> None:
    save_file({"distances": np.linalg.norm(x[:, None] - x[None], axis=-1).astype(np.float32)}, path)


def _images(folder: Path, style: int, size: int) -> None:
    rows = []
    for arm in (*PICTURED, "real"):
        for i, prompt in enumerate(PROMPTS):
            file = f"images/{arm}/{i}.png"
            _png(folder / file, [3, i, style] if arm != "no_lora" else [3, i], size, grey=arm != "no_lora", text=prompt)
            rows.append((arm, file, prompt, None if arm == "real" else i))
    write_csv(
        pd.DataFrame(rows, columns=["arm", "file", "prompt", "seed"]).astype({"seed": "Int64"}), folder / "images.csv"
    )


def _strips(folder: Path, size: int) -> None:
    """Images along lambda, of styles and of unseen conditions."""
    rows = []
    for kind, lambdas in STRIPS.items():
        for number, at in enumerate(lambdas):
            for i, prompt in enumerate(PROMPTS):
                file = f"images/{kind}/{number}-{i}.png"
                _png(folder / file, [4, i, number], size, grey=True, text=prompt)
                rows.append((kind, at, file, prompt, i))
    write_csv(pd.DataFrame(rows, columns=["kind", "lambda", "file", "prompt", "seed"]), folder / "images.csv")


def _png(path: Path, seed: list[int], size: int, grey: bool = False, text: str = "") -> None:
    """A few coloured discs; a style's are grey and ruled."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    image = np.full((size, size, 3), rng.uniform(120, 220, 3))
    for _ in range(5):
        (cy, cx), r = rng.uniform(0, 1, 2), rng.uniform(0.1, 0.3)
        image[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = rng.uniform(0, 255, 3)
    if grey:
        image = np.repeat(image.mean(2, keepdims=True), 3, axis=2) + 30 * np.sin(40 * (x + y))[..., None]
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, pnginfo=info)


def _doses(root: Path, name: str, rng: np.random.Generator, n: int, count: int) -> None:
    loss = rng.uniform(0.15, 0.2, n)
    write_csv(pd.DataFrame({"checkpoint": range(n), "loss": loss}), root / f"data/performance/{name}.csv")
    rows = [("soup", None, 0, 0.15, None)] if count else []
    for p in (0.0, 0.25, 0.5, 0.75, 1.0):
        rows += [("condpdiff", p, c, 0.2 - 0.05 * p + rng.normal(0, 0.005), None) for c in range(count)]
    columns = ["arm", "asked", "candidate", "loss", "validation"]
    write_csv(pd.DataFrame(rows, columns=columns), root / f"data/eval/{name}/doses.csv")


def _base(folder: Path) -> None:
    _png(folder / "samples.png", [5], 320)
    steps = np.arange(0, 2000, 10)
    for i, name in enumerate(("autoencoder", "denoiser")):
        loss = 0.1 + np.exp(-steps / 300) * np.random.default_rng(i).uniform(0.8, 1.2, len(steps))
        write_csv(pd.DataFrame({"step": steps, "loss": loss}), folder / f"{name}.csv")
