"""What the generator's core costs, ours beside p-diff's shape: `python -m benchmarks.core [PART...] [--sizes K...]`.

Parts: `autoencoders` (time and memory of train-ae by size), `samples` (cost a sample by size), `task` (20 samples
against fine-tuning, and merge-eval's rate against bare forward passes; needs a finished `dvc repro`). All figures of a
table come from one run on one machine; ratios are what they are for. docs/scale.md shows a run.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from timeit import default_timer as now
from timeit import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.stages import machine, matmul_rate
from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.latents import load_scale
from condpdiff.autoencoder.settings import Autoencoder as Settings
from condpdiff.autoencoder.train import batches
from condpdiff.common.axes import evenly_spaced
from condpdiff.common.errors import run
from condpdiff.common.hardware import device
from condpdiff.common.matrices import RowFile, row_writer
from condpdiff.diffusion import conditions as condition_file
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import load_conditions
from condpdiff.experiments.params import load_params
from condpdiff.generate.generator import Generator, generate
from condpdiff.text.finetune import finetune
from condpdiff.text.rows import read_rows
from condpdiff.text.score import Scorer
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.normalization import Statistics, denormalise
from condpdiff.zoo.normalized import load_frame

DATA = Path("data")
SIZES = (18_432, 73_728, 294_912, 1_179_648)  # the default run's K; BERT-base's at r = 1, 4, 16
N, RANK, NOISE = 750, 48, 0.05  # rows of a made zoo: a random walk of low rank, plus noise
PDIFF_STEPS = 500  # what p-diff's shortest published training takes
PDIFF = {"batch_size": 50, "lr": 2e-5, "noise": 0.1, "input_noise": 0.001}  # of p-diff v2's code
PDIFF_ROW_BYTES = 5300  # activations a weight and row: its batch shrinks where 50 rows would not fit
BUDGET = 10e9  # bytes for those activations


def make_zoo(path: Path, K: int) -> None:  # noqa: N803
    """Write w [N, K]: a random walk in RANK dimensions plus noise, each coordinate of variance about 1."""
    random = torch.Generator().manual_seed(0)
    walk = torch.randn(N, RANK, generator=random).cumsum(0)
    walk = (walk - walk.mean(0)) / walk.std(0) / RANK**0.5
    axes = torch.randn(RANK, K, generator=random)
    with row_writer(path, "w", (N, K)) as write:
        for rows in walk.split(16):
            write((rows @ axes + NOISE * torch.randn(len(rows), K, generator=random)) / (1 + NOISE**2) ** 0.5)


def settings_of(arch: str, K: int) -> Settings:  # noqa: N803
    """Ours as params.yaml has it; p-diff's as its code has it, with the rows a batch that fit."""
    ours = load_params()[0].ae.model_copy(update={"arch": arch})
    if arch != "pdiff":
        return ours
    fits = max(1, min(PDIFF["batch_size"], int(BUDGET / PDIFF_ROW_BYTES / K)))
    return ours.model_copy(update={**PDIFF, "batch_size": fits})


def measure(arch: str, path: Path, steps: int) -> dict[str, Any]:
    """Train an autoencoder on a file of w for some steps; to be run in a process of its own, for its peak memory."""
    rows = RowFile(path, "w")
    settings = settings_of(arch, rows.shape[1])
    torch.manual_seed(0)
    began = now()
    model = autoencoder.build(autoencoder.config_of(settings, rows.shape[1], None))
    if arch == "conv1d":
        model.fit_closed_form(rows)
    start = now() - began
    shown = rows.take(evenly_spaced(rows.shape[0], settings.batch_size))
    errors = [error(model, shown)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
    seconds, drawn = [], batches(rows, settings.batch_size)
    for _ in range(steps):
        began = now()
        loss = model.train()(next(drawn)[1], settings.noise, settings.input_noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(now() - began)
    errors.append(error(model, shown))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    step = float(np.median(seconds[1:] or seconds))  # the first one allocates
    return {"rows": settings.batch_size, "start": start, "step": step, "errors": errors, "peak": peak}


@torch.inference_mode()
def error(model: autoencoder.Autoencoder, w: Tensor) -> float:
    """Mean squared error on w [n, K], in training mode: p-diff's batch norms have no statistics after few steps."""
    return float(model.train()(w, 0.0, 0.0))


def autoencoders(sizes: list[int], steps: dict[str, int]) -> None:
    """The table of architectures and sizes."""
    print("\n| K | arch | rows a step | s a step | s for 50 rows | start, s | error before | error after | peak GB |")
    print("|--:|---|--:|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        path = Path(scratch) / "w.safetensors"
        for K in sizes:  # noqa: N806
            make_zoo(path, K)
            found = {}
            for arch in ("pdiff", "conv1d"):
                command = [sys.executable, "-m", "benchmarks.core", "measure", arch, str(path), str(steps[arch])]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                m = found[arch] = json.loads(done.stdout)
                print(
                    f"| {K:,} | {arch} | {m['rows']} | {m['step']:.3f} | {50 * m['step'] / m['rows']:.2f} "
                    f"| {m['start']:.1f} | {m['errors'][0]:.4f} | {m['errors'][1]:.4f} after {steps[arch]} "
                    f"| {m['peak'] / 1e9:.2f} |",
                    flush=True,
                )
            p, ours = found["pdiff"], found["conv1d"]
            whole = PDIFF_STEPS * PDIFF["batch_size"] * p["step"] / p["rows"]
            print(
                f"| {K:,} | | | | | | | {PDIFF_STEPS} steps of pdiff would take {whole:,.0f} s; conv1d is at "
                f"{ours['errors'][0]:.4f} after {ours['start']:.1f} s: {whole / ours['start']:,.0f} times sooner | |",
                flush=True,
            )


@torch.inference_mode()
def samples(sizes: list[int], count: int = 20) -> None:
    """Cost of decoding and denormalising a sample by K, with the straight line through it."""
    print(f"\n| K | ms a sample (decode and denormalise, {count} at once) |\n|--:|--:|")
    times = []
    for K in sizes:  # noqa: N806
        model = autoencoder.build(autoencoder.config_of(settings_of("conv1d", K), K, None)).eval()
        z, statistics = torch.randn(count, model.C, model.L), Statistics(torch.zeros(K), torch.ones(K))
        each = []
        for _ in range(5):
            began = now()
            denormalise(model.decode(z), statistics)
            each.append((now() - began) / count)
        times.append(min(each))
        print(f"| {K:,} | {1e3 * times[-1]:.2f} |", flush=True)
    slope, base = np.polyfit(sizes, times, 1)
    line = slope * np.array(sizes) + base
    residual, variance = np.array(times) - line, np.var(times)
    explained = 1 - np.square(residual).mean() / variance
    print(f"\nms a sample = {1e3 * base:.2f} + {1e9 * slope:.2f} K / 10^6; R^2 of the line {explained:.4f}")


def task(name: str, steps: int = 20) -> None:
    """20 samples against the fine-tuning that they stand in for, and merge-eval's rate against bare passes."""
    params, tasks = load_params()
    model, process = diffusion.load(DATA / "ldm" / diffusion.FILE)
    decoder = autoencoder.load(DATA / "autoencoder" / autoencoder.FILE)
    model.to(device())  # type: ignore[arg-type]  # mypy does not bind the method that diffusers wraps
    generator = Generator(model, process, decoder, load_scale(DATA / "latents"))
    y = load_conditions(DATA / "conditions" / condition_file.FILE, params.tasks)[name]
    frame, settings = load_frame(DATA / "normalized", name), params.sample
    settings = settings.model_copy(update={"count": 20, "doses": 0, "trajectories": 0})
    sampling = best(lambda: generate(generator, frame, y, settings, torch.Generator().manual_seed(0), name))

    total = tasks[name].finetune.steps + params.collect.max_checkpoints * params.collect.every
    short = tasks[name].model_copy(update={"finetune": tasks[name].finetune.model_copy(update={"steps": steps // 2})})
    collect = params.collect.model_copy(update={"max_checkpoints": steps - steps // 2, "every": 1, "steps": None})
    collect = collect.model_copy(update={"save_every": 10**6, "validate_every": 10**6, "runs": 1})
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
        began = now()
        finetune(name, short, collect, DATA / "tasks" / name, DATA / "base", Path(scratch) / "zoo")
        tuning = (now() - began) / steps * total
    print(
        f"\n20 samples for {name}: {sampling:.2f} s; fine-tuning it ({total} steps, timed over {steps}): {tuning:.0f} s"
    )
    print(f"ratio {tuning / sampling:.0f}")

    zoo = load_zoo(DATA / "zoo" / name, params.normalize.n_checkpoints)
    rows = {"validation": read_rows(DATA / "tasks" / name, "validation")}
    scorer = Scorer(DATA / "base", zoo, tasks[name], rows, params.eval.batch_tokens)
    scored = best(lambda: scorer.predict_all(zoo.theta[:8], name)) / 8
    bare = best(lambda: [scorer.predict("validation") for _ in range(8)]) / 8
    print(f"a candidate on {len(rows['validation'])} rows: merged and scored {scored:.3f} s, passes alone {bare:.3f} s")
    print(f"scoring runs at {bare / scored:.1%} of the rate of its forward passes")


def best(work: Any, times: int = 3) -> float:
    """Seconds of the fastest of some calls."""
    return min(repeat(work, number=1, repeat=times))


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        arch, path, steps = sys.argv[2:]
        print(json.dumps(measure(arch, Path(path), int(steps))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="autoencoders, samples, task; all by default")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="K")
    parser.add_argument("--pdiff-steps", type=int, default=2, help="steps of pdiff that are run and timed")
    parser.add_argument("--steps", type=int, default=20, help="steps of conv1d that are run and timed")
    parser.add_argument("--task", default=load_params()[0].tasks[0])
    arguments = parser.parse_args()
    parts = arguments.parts or ["autoencoders", "samples", "task"]
    print(f"{machine()}; float32 products at {matmul_rate() / 1e9:,.0f} GFLOP/s", flush=True)
    if "autoencoders" in parts:
        autoencoders(arguments.sizes, {"pdiff": arguments.pdiff_steps, "conv1d": arguments.steps})
    if "samples" in parts:
        samples(arguments.sizes)
    if "task" in parts:
        task(arguments.task)


if __name__ == "__main__":
    run(main)
