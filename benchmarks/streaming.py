"""A zoo larger than memory: `python -m benchmarks.streaming [CASE...] [--steps N]`.

Makes a zoo of random walks and runs normalize, train-ae and encode-latents on it in a temporary folder, each stage in a
process of its own; prints its peak resident memory and its rate. Cases: `small` (0.4 GB, read in parts and, for
comparison, from memory), `big` (5.9 GB), `wide` (3.5 GB of K = 1,179,648). docs/scale.md shows a run.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from timeit import default_timer
from typing import Any

import torch
import yaml

from condpdiff.common.errors import run
from condpdiff.common.matrices import Resident, row_writer, whole
from condpdiff.zoo.layout import Entry, Layout

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("normalize", "train_ae", "encode_latents")


@dataclass(frozen=True)
class Case:
    """A zoo: so many tasks, rows a task, layers with four LoRA pairs each, rank and hidden width."""

    tasks: int
    rows: int
    layers: int
    rank: int
    hidden: int
    modes: tuple[str, ...] = ("file",)

    @property
    def layout(self) -> Layout:
        entries, offset = [], 0
        for layer in range(self.layers):
            for module in range(4):
                for matrix, shape in (("A", (self.rank, self.hidden)), ("B", (self.hidden, self.rank))):
                    key = f"base_model.model.encoder.layer.{layer}.m{module}.lora_{matrix}.weight"
                    entries.append(Entry(key, shape, offset, layer, f"m{module}"))
                    offset += self.rank * self.hidden
        return Layout(tuple(entries))


CASES = {
    "small": Case(10, 150, 12, 1, 768, ("memory", "file")),
    "big": Case(10, 2000, 12, 1, 768),
    "wide": Case(5, 150, 12, 16, 768),
}


def make(case: Case, folder: Path) -> None:
    """Write the zoos: low rank plus noise round a centre, some rows at a time."""
    layout = case.layout
    random = torch.Generator().manual_seed(0)
    for task in range(case.tasks):
        target = folder / f"data/zoo/t{task}"
        target.mkdir(parents=True)
        layout.save(target)
        centre = 0.02 * torch.randn(layout.K, generator=random)
        axes = 1e-3 * torch.randn(24, layout.K, generator=random)
        with row_writer(target / "theta.safetensors", "theta", (case.rows, layout.K)) as write:
            for rows in torch.randn(case.rows, 24, generator=random).split(16):
                write(centre + rows @ axes + 2e-4 * torch.randn(len(rows), layout.K, generator=random))


def write_params(case: Case, folder: Path, steps: int) -> None:
    """params.yaml as it is, for the made tasks."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["tasks"] = [f"t{i}" for i in range(case.tasks)]
    values["normalize"]["n_checkpoints"] = case.rows
    values["ae"]["steps"] = steps
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def measure(name: str, mode: str) -> dict[str, Any]:
    """Run a stage in the working directory, a process of its own, and say what it took."""
    module = import_module(f"stages.{name}")
    if mode == "memory":
        _read_at_once(module)
    seconds: dict[str, float] = {}
    if name == "train_ae":
        _time(import_module("condpdiff.autoencoder.train"), "fit", seconds)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = default_timer()
    with contextlib.redirect_stdout(sys.stderr):
        module.main()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak * 1024, "before": before * 1024, "all": default_timer() - began, **seconds}


def _read_at_once(module: Any) -> None:
    """Put whole tensors in the place of files that are read in parts."""
    if hasattr(module, "open_zoo"):
        opened = module.open_zoo

        def in_memory(folder: Path, last: int) -> tuple[Resident, Layout]:
            theta, layout = opened(folder, last)
            return Resident(whole(theta)), layout

        module.open_zoo = in_memory
    else:
        loaded = module.load_rows
        module.load_rows = lambda folder, tasks: {q: Resident(whole(rows)) for q, rows in loaded(folder, tasks).items()}


def _time(module: Any, name: str, seconds: dict[str, float]) -> None:
    real = getattr(module, name)

    def timed(*arguments: Any, **more: Any) -> Any:
        began = default_timer()
        try:
            return real(*arguments, **more)
        finally:
            seconds[name] = default_timer() - began

    setattr(module, name, timed)


def benchmark(name: str, case: Case, steps: int) -> None:
    """Make the zoo of one case, run its stages, print a row each."""
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        folder = Path(scratch)
        # In a process of its own: a child's peak counts its parent's pages.
        subprocess.run([sys.executable, "-m", "benchmarks.streaming", "make", name, str(folder.resolve())], check=True)
        write_params(case, folder, steps)
        size = 4e-9 * case.tasks * case.rows * case.layout.K
        for stage in STAGES:
            for mode in case.modes:
                command = [sys.executable, "-m", "benchmarks.streaming", "measure", stage, mode]
                environment = os.environ | {"PYTHONPATH": str(ROOT)}
                done = subprocess.run(
                    command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
                )
                m = json.loads(done.stdout)
                step = f"{m['fit'] / steps:.3f}" if "fit" in m else ""
                print(
                    f"| {name} | {size:.1f} | {case.layout.K:,} | {stage.replace('_', '-')} | {mode} "
                    f"| {m['peak'] / 1e6:,.0f} | {case.tasks * case.rows / m['all']:,.0f} | {step} |",
                    flush=True,
                )


def main() -> None:
    if sys.argv[1:2] == ["make"]:
        make(CASES[sys.argv[2]], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        table()


def table() -> None:
    """Parse the command line, run the cases, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all by default")
    parser.add_argument("--steps", type=int, default=40, help="of train-ae")
    arguments = parser.parse_args()
    print("| case | zoo GB | K | stage | reads | peak MB | rows a second | s a training step |")
    print("|---|--:|--:|---|---|--:|--:|--:|", flush=True)
    for name in arguments.cases or CASES:
        benchmark(name, CASES[name], arguments.steps)


if __name__ == "__main__":
    run(main)
