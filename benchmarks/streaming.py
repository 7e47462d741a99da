"""A zoo larger than memory: `python -m benchmarks.streaming [CASE...] [--steps N]`.

Makes a zoo of random walks and runs normalize, train-ae and encode-latents on it in a temporary folder, each stage in a
process of its own; prints its time and its peak resident memory. Cases: `small` (0.4 GB), `big` (5.9 GB), `wide`
(3.5 GB of K = 1,179,648). docs/scale.md shows a run.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from benchmarks.counting import head, line
from benchmarks.stages import ROOT, measure
from condpdiff.common.errors import run
from condpdiff.common.matrices import row_writer
from condpdiff.zoo.checkpoints import Entry, Layout

STAGES = ("normalize", "train_ae", "encode_latents")


@dataclass(frozen=True)
class Case:
    """A zoo: so many tasks, rows a task, layers with four LoRA pairs each, rank and hidden width."""

    tasks: int
    rows: int
    layers: int
    rank: int
    hidden: int

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


CASES = {"small": Case(10, 150, 12, 1, 768), "big": Case(10, 2000, 12, 1, 768), "wide": Case(5, 150, 12, 16, 768)}


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


def benchmark(name: str, case: Case, steps: int) -> None:
    """Make the zoo of one case, run its stages, print a row each."""
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        folder = Path(scratch).resolve()
        subprocess.run([sys.executable, "-m", "benchmarks.streaming", "make", name, str(folder)], check=True)
        write_params(case, folder, steps)
        size = f"{4e-9 * case.tasks * case.rows * case.layout.K:.1f}"
        for stage in STAGES:
            seconds, peak = measure(f"PYTHONPATH={ROOT} exec {sys.executable} -m stages.{stage}", folder)
            cells = (size, f"{case.layout.K:,}", stage.replace("_", "-"), f"{seconds:.1f}", f"{peak / 1e6:,.0f}")
            print(line((name, *cells)), flush=True)


def main() -> None:
    if sys.argv[1:2] == ["make"]:  # in a process of its own: a child's peak counts its parent's pages
        make(CASES[sys.argv[2]], Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all by default")
    parser.add_argument("--steps", type=int, default=40, help="of train-ae")
    arguments = parser.parse_args()
    print(head(("case", "zoo GB", "K", "stage", "time s", "peak MB")), flush=True)
    for name in arguments.cases or CASES:
        benchmark(name, CASES[name], arguments.steps)


if __name__ == "__main__":
    run(main)
