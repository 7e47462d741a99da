"""What the generator's core costs, ours beside p-diff's shape: `python -m benchmarks.core [PART...] [--sizes K...]`.

Parts: `autoencoders` (time and memory of train-ae by size) and `samples` (cost a sample by size). All figures come from
one run on one machine; ratios are what they are for. docs/scale.md shows a run.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from timeit import default_timer as now
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.counting import head, line
from benchmarks.stages import machine, matmul_rate
from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.settings import Autoencoder as Settings
from condpdiff.autoencoder.train import Batches
from condpdiff.common.errors import run
from condpdiff.common.matrices import RowFile, evenly_spaced, row_writer
from condpdiff.common.settings import section
from condpdiff.zoo.normalized import Statistics, denormalise

SIZES = (18_432, 73_728, 294_912, 1_179_648)  # MiniLM's K at r = 1; BERT-base's at r = 1, 4, 16
N, RANK, NOISE = 750, 48, 0.05  # rows of a made zoo: a random walk of low rank, plus noise
STEPS = {"pdiff": 2, "conv1d": 20}  # that are run and timed
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
    ours = section("ae", Settings).model_copy(update={"arch": arch})
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
    model = autoencoder.build(autoencoder.config_of(settings, rows.shape[1]))
    if arch == "conv1d":
        model.fit_closed_form(rows)
    start = now() - began
    shown = rows.take(evenly_spaced(rows.shape[0], settings.batch_size))
    errors = [error(model, shown)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
    seconds, reader = [], ThreadPoolExecutor(1)
    drawn = Batches(rows, settings.batch_size, reader)
    for _ in range(steps):
        began = now()
        loss = model.train()(drawn.next(), settings.noise, settings.input_noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(now() - began)
    reader.shutdown()
    errors.append(error(model, shown))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    step = float(np.median(seconds[1:] or seconds))  # the first one allocates
    return {"rows": settings.batch_size, "start": start, "step": step, "errors": errors, "peak": peak}


@torch.inference_mode()
def error(model: autoencoder.Autoencoder, w: Tensor) -> float:
    """Mean squared error on w [n, K], in training mode: p-diff's batch norms have no statistics after few steps."""
    return float(model.train()(w, 0.0, 0.0))


def autoencoders(sizes: list[int]) -> None:
    """The table of architectures and sizes."""
    names = ("K", "arch", "rows a step", "s a step", "s for 50 rows", "start, s", "error before", "error after")
    print("\n" + head((*names, "peak GB")))
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        path = Path(scratch) / "w.safetensors"
        for K in sizes:  # noqa: N806
            make_zoo(path, K)
            for arch in ("pdiff", "conv1d"):
                command = [sys.executable, "-m", "benchmarks.core", "measure", arch, str(path), str(STEPS[arch])]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                m = json.loads(done.stdout)
                rate = (f"{m['rows']}", f"{m['step']:.3f}", f"{50 * m['step'] / m['rows']:.2f}", f"{m['start']:.1f}")
                errors = (f"{m['errors'][0]:.4f}", f"{m['errors'][1]:.4f} after {STEPS[arch]}")
                print(line((f"{K:,}", arch, *rate, *errors, f"{m['peak'] / 1e9:.2f}")), flush=True)


@torch.inference_mode()
def samples(sizes: list[int], count: int = 20) -> None:
    """Cost of decoding and denormalising a sample by K, with the straight line through it."""
    print("\n" + head(("K", f"ms a sample (decode and denormalise, {count} at once)")))
    times = []
    for K in sizes:  # noqa: N806
        model = autoencoder.build(autoencoder.config_of(settings_of("conv1d", K), K)).eval()
        z, statistics = torch.randn(count, model.C, model.L), Statistics(torch.zeros(K), torch.ones(K))
        each = []
        for _ in range(5):
            began = now()
            denormalise(model.decode(z), statistics)
            each.append((now() - began) / count)
        times.append(min(each))
        print(line((f"{K:,}", f"{1e3 * times[-1]:.2f}")), flush=True)
    slope, base = np.polyfit(sizes, times, 1)
    explained = 1 - np.square(np.array(times) - slope * np.array(sizes) - base).mean() / np.var(times)
    print(f"\nms a sample = {1e3 * base:.2f} + {1e9 * slope:.2f} K / 10^6; R^2 of the line {explained:.4f}")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        arch, path, steps = sys.argv[2:]
        print(json.dumps(measure(arch, Path(path), int(steps))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="autoencoders, samples; both by default")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="K")
    arguments = parser.parse_args()
    print(f"{machine()}; float32 products at {matmul_rate() / 1e9:,.0f} GFLOP/s", flush=True)
    if not arguments.parts or "autoencoders" in arguments.parts:
        autoencoders(arguments.sizes)
    if not arguments.parts or "samples" in arguments.parts:
        samples(arguments.sizes)


if __name__ == "__main__":
    run(main)
