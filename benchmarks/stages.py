"""What every stage costs on this machine: `python -m benchmarks.stages [PRESET]`.

Runs params.yaml as it is, or a preset, stage by stage in a throwaway clone of the working tree, and prints the time and
memory of each as it ends, as a Markdown table. docs/benchmarks.md shows a run.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import chdir, suppress
from pathlib import Path
from timeit import default_timer, repeat

import psutil
import torch

from benchmarks.counting import head, line
from condpdiff.common.errors import UserError, run
from condpdiff.common.hardware import device

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_EVERY = 0.1  # seconds between two looks at a stage's memory
SIDE = 2048  # of the square matrices that the rate is measured with


def clone(folder: Path) -> None:
    """Copy every file that Git tracks or would track into a fresh repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(command, cwd=ROOT, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


def stages(folder: Path) -> dict[str, str]:
    """Name -> command of every stage of a repository's dvc.yaml, `name@task` for a task's own; producers first."""
    import networkx
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        graph = repo.index.graph.reverse()  # an edge leads from a stage to one that reads from it
        order = networkx.lexicographical_topological_sort(graph, key=repo.index.stages.index)
        return {stage.name: stage.cmd for stage in order}


def measure(command: str, folder: Path) -> tuple[float, int]:
    """Wall seconds of a command, and the most bytes that its process tree held at once; a UserError if it fails."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    peak, status = 0, None
    with tempfile.TemporaryFile() as out:
        start = default_timer()
        process = psutil.Popen(command, shell=True, cwd=folder, env=environment, stdout=out, stderr=out)
        while status is None:
            with suppress(psutil.Error):  # a process that has just ended
                peak = max(peak, sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]))
            with suppress(psutil.TimeoutExpired):
                status = process.wait(SAMPLE_EVERY)
        seconds = default_timer() - start
        out.seek(0)
        if status:
            raise UserError(f"{command} ended with {status}: {out.read().decode(errors='replace')[-2000:].strip()}")
    return seconds, peak


def matmul_rate(side: int = SIDE) -> float:
    """Operations a second of a float32 product of two square matrices, the best of seven."""
    a = torch.randn(side, side, device=device())
    return 2 * side**3 / min(repeat(lambda: (a @ a)[0, 0].item(), number=1, repeat=7))  # item() waits for a GPU


def machine() -> str:
    """CPU model, cores, threads and torch version."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)", info.read_text() if info.is_file() else "", re.MULTILINE)
    cpu = model[1] if model else platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if device() == "cuda" else ""
    return f"{cpu}{gpu}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, torch {torch.__version__}"


def benchmark(folder: Path, preset: str | None) -> None:
    """Run and measure every stage in the clone `folder`, which is the working directory."""
    from condpdiff.experiments.presets import apply, load_preset

    if preset:
        apply(load_preset(preset))
    print(f"{machine()}; {SIDE} x {SIDE} float32 products at {matmul_rate() / 1e9:,.0f} GFLOP/s")
    print(f"{preset or 'params.yaml'}\n\n{head(('stage', 'time s', 'peak MB'))}", flush=True)
    rows: list[tuple[str, float, int]] = []
    for name, command in stages(folder).items():
        rows.append((name, *measure(command, folder)))
        print(cells(*rows[-1]), flush=True)
    print(cells("all", sum(seconds for _, seconds, _ in rows), max(peak for *_, peak in rows)))


def cells(name: str, seconds: float, peak: int) -> str:
    """One row of the table."""
    return line((name, f"{seconds:.1f}", f"{peak / 1e6:,.0f}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", help="default: params.yaml as it is")
    preset = parser.parse_args().preset
    with tempfile.TemporaryDirectory() as name, chdir(name):
        clone(Path(name))
        benchmark(Path(name), preset)


if __name__ == "__main__":
    run(main)
