"""What every stage costs on this machine: `python -m benchmarks.stages [PRESET] [--md] [--csv FILE]`.

Runs params.yaml as it is, or a preset, stage by stage in a throwaway clone of the working tree, and prints time, memory
and floating-point operations of each as it ends. docs/benchmarks.md tells what is counted.
"""

import argparse
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from timeit import default_timer, repeat
from typing import Any

import networkx
import numpy as np
import pandas as pd
import psutil
import torch
from dvc.repo import Repo
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import AutoTokenizer

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.latents import load_latents, load_scale
from condpdiff.autoencoder.train import reconstruction_error, train
from condpdiff.common.errors import UserError, run
from condpdiff.common.files import read_json
from condpdiff.common.hardware import device
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.conditions import FILE, conditions, load_conditions
from condpdiff.experiments.params import Params, load_params
from condpdiff.experiments.presets import apply, load_preset
from condpdiff.generate.generator import Generator, generate
from condpdiff.text.conditions import inputs
from condpdiff.text.encoder import load_encoder
from condpdiff.text.models import empty_peft_model
from condpdiff.text.rows import length_grouped_order, read_rows, tokenize
from condpdiff.text.score import Scorer
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.normalized import load_frame, load_w
from condpdiff.zoo.performance import load_performance, loss_rows, select_rows

ROOT = Path(__file__).resolve().parent.parent
DATA, BASE = Path("data"), Path("data/base")
EVAL_BATCH = 64  # rows of a validation batch in finetune-collect
SAMPLE_EVERY = 0.1  # seconds between two looks at a stage's memory
SIDE = 2048  # of the square matrices that the rate is measured with
IMPORTS = "import torch, transformers, peft"
COUNTED = ("train-ae", "encode-latents", "train-ldm", "sample")
COUNTED_OF_TEXT = ("encode-conditions", "finetune-collect", "score-zoo", "merge-eval")
HEAD = ("stage", "time s", "peak MB", "GFLOP", "of the rate")


@dataclass(frozen=True)
class Row:
    """What one stage cost; `flops` is None where no matrix work is counted."""

    stage: str
    seconds: float
    peak: int  # bytes
    flops: int | None

    def cells(self, rate: float) -> tuple[str, ...]:
        """The row as text, for a machine of `rate` operations a second."""
        work = ("-", "-") if not self.flops else (f"{self.flops / 1e9:,.2f}", f"{self.flops / self.seconds / rate:.1%}")
        return (self.stage, f"{self.seconds:.1f}", f"{self.peak / 1e6:,.0f}", *work)


def counted(work: Callable[..., object], *arguments: Any) -> int:
    """Floating-point operations of the matrix products, convolutions and attentions in `work(*arguments)`."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # PyTorch's counter leaves it out
    more = {attention: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)}
    with redirect_stderr(io.StringIO()), FlopCounterMode(display=False, custom_mapping=more) as counter:  # no bars
        work(*arguments)
    return counter.get_total_flops()


def repeated(work: Callable[[int], object], steps: int) -> int:
    """Operations of `work(steps)`, whose steps are all alike, out of `work(1)` and `work(2)`."""
    one, two = counted(work, 1), counted(work, 2)
    return one + (steps - 1) * (two - one)


def passes(model: Any, lengths: Sequence[int], size: int, backward: bool) -> int:
    """Operations of a classifier on the meta device over rows of these lengths, padded in batches of `size`."""

    def work(rows: int, tokens: int) -> None:
        logits = model(inputs_embeds=torch.empty(rows, tokens, model.config.hidden_size, device="meta")).logits
        if backward:
            logits.sum().backward()

    batches = [lengths[i : i + size] for i in range(0, len(lengths), size)]
    return sum(n * counted(work, *shape) for shape, n in Counter((len(b), max(b)) for b in batches).items())


def finetune_flops(name: str, task: Task, params: Params) -> int:
    """Every training batch as it is padded, and the validation passes that the curve tells of."""
    collect, size = params.collect, task.finetune.batch_size
    tokenizer = AutoTokenizer.from_pretrained(BASE)

    def lengths(split: str) -> list[int]:
        tokens = tokenize(read_rows(DATA / "tasks" / name, split), tokenizer, task.finetune.max_length)
        return [len(ids) for ids in tokens["input_ids"]]

    config = read_json(BASE / "config.json") | {"num_labels": task.data.num_outputs}
    model = empty_peft_model(config, collect.rank, collect.alpha, collect.target_modules)
    steps = (collect.steps or task.finetune.steps) + collect.max_checkpoints // collect.runs * collect.every
    train, validations = lengths("train"), len(pd.read_csv(DATA / "zoo" / name / "validation.csv"))
    orders = [length_grouped_order(np.array(train), size, steps, collect.seed + run) for run in range(collect.runs)]
    training = passes(model, [train[i] for order in orders for i in order], size, backward=True)
    return training + collect.runs * validations * passes(
        model, sorted(lengths("validation")), EVAL_BATCH, backward=False
    )


def scoring_flops(stage: str, name: str, task: Task, params: Params) -> int:
    """One candidate's merge and forward passes, times the candidates; merge-eval without races or doses' losses."""
    zoo = load_zoo(DATA / "zoo" / name, params.collect.max_checkpoints)
    validation, held = (read_rows(DATA / "tasks" / name, split) for split in ("validation", "held_out"))
    rows = {"loss": loss_rows(held, params.performance)}
    candidates = len(zoo.theta)
    if stage == "merge-eval":
        rows = {"select": select_rows(held, params.performance, params.eval.select_rows), "validation": validation}
        scores = pd.read_csv(DATA / "eval" / name / "scores.csv")
        candidates = int((scores["arm"] != "majority").sum())
    scorer = Scorer(BASE, zoo, task, rows, params.eval.batch_tokens)
    return candidates * counted(scorer.predict_all, zoo.theta[-1:], name)


def flops(stage: str, name: str) -> int | None:
    """Operations of a stage (of task `name`) that has run in the working directory; None: it has no matrix work."""
    params, read = load_params()
    tasks = params.tasks
    if stage not in COUNTED + (COUNTED_OF_TEXT if params.domain == "text" else ()):
        return None
    if stage == "finetune-collect":
        return finetune_flops(name, read[name], params)
    if stage in ("score-zoo", "merge-eval"):
        return scoring_flops(stage, name, read[name], params)
    if stage == "encode-conditions":
        texts = {task: inputs(DATA / "tasks" / task, params.condition.kind) for task in tasks}
        return counted(conditions, params.condition, texts, load_encoder)
    w, model = load_w(DATA / "normalized", tasks), autoencoder.load(DATA / "autoencoder" / autoencoder.FILE)
    if stage == "train-ae":
        rows = torch.cat(list(w.values()))
        learned = repeated(lambda n: train(rows, params.ae.model_copy(update={"steps": n})), params.ae.steps)
        return learned + sum(counted(reconstruction_error, model, part) for part in w.values())
    if stage == "encode-latents":
        return sum(counted(autoencoder.encode_all, model, part) for part in w.values())
    z, y = load_latents(DATA / "latents", tasks), load_conditions(DATA / "conditions" / FILE, tasks)
    if stage == "train-ldm":
        learnable, ldm = params.condition.kind == "learnable", params.ldm
        p = load_performance(DATA / "performance", {q: len(rows) for q, rows in z.items()}, ldm.performance)
        return repeated(lambda n: diffusion.train(z, y, p, ldm.model_copy(update={"steps": n}), learnable), ldm.steps)
    generator = Generator(*diffusion.load(DATA / "ldm" / diffusion.FILE), model, load_scale(DATA / "latents"))
    frame = load_frame(DATA / "normalized", tasks[0])
    return len(tasks) * counted(generate, generator, frame, y[tasks[0]], params.sample, torch.Generator())


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


def line(cells: Sequence[str], markdown: bool) -> str:
    """One row of the table; the first column is the name."""
    if markdown:
        return f"| {' | '.join(cells)} |"
    return cells[0].ljust(28) + "".join(cell.rjust(13) for cell in cells[1:])


def benchmark(folder: Path, preset: str | None, markdown: bool, table: Path | None) -> None:
    """Run and measure every stage in the clone `folder`, which is the working directory."""
    if preset:
        apply(load_preset(preset))
    imports = min(measure(f'"{sys.executable}" -c "{IMPORTS}"', folder)[0] for _ in range(2))
    rate = matmul_rate()
    print(f"{machine()}; {SIDE} x {SIDE} float32 products at {rate / 1e9:,.0f} GFLOP/s")
    print(f"{preset or 'params.yaml'}; of a stage's time, `{IMPORTS}` is {imports:.1f} s\n", flush=True)
    print(line(HEAD, markdown) + ("\n|---|--:|--:|--:|--:|" if markdown else ""), flush=True)
    rows: list[Row] = []
    for name, command in stages(folder).items():
        rows.append(Row(name, *measure(command, folder), flops(*name.partition("@")[::2])))
        print(line(rows[-1].cells(rate), markdown), flush=True)
        if table:
            pd.DataFrame(rows).assign(matmul_rate=rate, machine=machine()).to_csv(table, index=False)
    whole = Row("all", sum(r.seconds for r in rows), max(r.peak for r in rows), sum(r.flops or 0 for r in rows))
    print(line(whole.cells(rate), markdown))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", help="default: params.yaml as it is")
    parser.add_argument("--md", action="store_true", help="print a Markdown table")
    parser.add_argument("--csv", type=lambda path: Path(path).resolve(), help="write the numbers here as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, chdir(name):
        clone(Path(name))
        benchmark(Path(name), arguments.preset, arguments.md, arguments.csv)


if __name__ == "__main__":
    run(main)
