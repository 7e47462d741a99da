"""What a run asks for, before it runs: the model and its K, the tasks, where input comes from, disk, memory, stages.

Nothing is downloaded and no weights are read: K is counted on an architecture without memory for its weights.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from condpdiff.common.errors import UserError
from condpdiff.domain import module
from condpdiff.experiments.inputs import encoder_input, model_input
from condpdiff.experiments.params import Params
from condpdiff.generate.settings import DOSES

FLOAT = 4  # bytes of a float32
RUNTIME = 900_000_000  # bytes that torch, transformers, peft and datasets hold once imported (measured)
UP_TO_DATE, CHANGED, DOWNSTREAM = "up to date", "will run", "runs if its input changes"


def describe(params: Params, tasks: Mapping[str, Any], stages: bool = True) -> dict[str, Any]:
    """Everything that `condpdiff describe` tells, as JSON-ready data; `stages=False` leaves DVC alone.

    Raises:
        UserError: params.yaml asks for modules or layers that the base model does not have.
    """
    domain = module("describe", params.domain)
    config, numbers_from = domain.model_config(params.base)
    base: dict[str, Any] = params.base.model_dump() | {
        "input": model_input(params.base.source, params.base.name),
        "architecture": config,
        "shape": None if config is None else domain.shape(config),
        "numbers_from": numbers_from,
        "parameters": None,
    }
    lora: dict[str, Any] = params.collect.model_dump(include={"rank", "alpha", "target_modules"})
    lora |= {"K": None, "K_generated": None, "head": None}
    if config is not None:
        counted = count(config, params)
        base["parameters"] = counted.pop("parameters")
        lora |= counted
    result: dict[str, Any] = {
        "base": base,
        "lora": lora,
        "zoo": {"max_checkpoints": params.collect.max_checkpoints, "N": params.normalize.n_checkpoints},
        "generated_layers": params.normalize.layers,
        "latent": {"arch": params.ae.arch, "C": params.ae.latent_channels, "L": params.ae.latent_length},
        "samples": params.sample.count,
        "tasks": [domain.task_row(name, task, params) for name, task in tasks.items()],
        "condition": params.condition.model_dump() | {"input": encoder_input(params.condition)},
        "disk": None,
        "memory": None,
        "stages": stage_states() if stages else {"problem": "not looked up: this run is not in params.yaml"},
    }
    if config is not None:
        stored = base["parameters"] + domain.other_weights(params.base)
        result["disk"] = disk(params, stored, lora["K"], lora["K_generated"], lora["head"])
        activations = domain.activations(config, domain.batches(tasks))
        result["memory"] = memory(params, activations, base["parameters"], lora["K"], lora["K_generated"])
    return result


def count(config: Mapping[str, Any], params: Params) -> dict[str, Any]:
    """Parameters of the base model, the modules that get a LoRA, K, the K that is generated, and the head's size.

    The head is counted with two outputs; a task's own differs by its number of classes.
    """
    from condpdiff.zoo.layout import layout_of

    asked = params.collect.target_modules
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers' own, at PEFT's calls
            empty = module("models", params.domain).empty_peft_model
            model = empty(dict(config), params.collect.rank, params.collect.alpha, asked)
    except ValueError as error:  # PEFT: no module has one of these names
        raise UserError(f"params.yaml: collect.target_modules: found {asked!r}: {error}") from None
    layout = layout_of(model)
    layers = params.normalize.layers
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    aside = ("lora_", "modules_to_save", "original_module")
    return {
        "parameters": sum(size for name, size in sizes.items() if not any(part in name for part in aside)),
        "target_modules": sorted({entry.module for entry in layout.entries}),
        "K": layout.K,
        "K_generated": layout.select_layers(None if layers == "all" else layers)[0].K,
        "head": sum(size for name, size in sizes.items() if "modules_to_save" in name),
    }


def disk(params: Params, weights: int, k: int, k_generated: int, head: int) -> dict[str, int]:
    """Bytes a stage writes, all in float32 (T tasks, N_max collected, N used, S samples).

    data/base 4 W, of all its parts; data/zoo 4 T (N_max K + head); data/normalized 4 T (N K' + 2 K' + K): w, mean, std
    and the soup; data/autoencoder 4 A (A weights of E and D); data/samples 4 T K (S + the points of the trajectories +
    the doses); data/adapters 4 T (K + head).
    Rows, latents and reports are small beside these. Where the file system has no reflinks, DVC's cache
    holds a second copy.
    """
    t, sample = len(params.tasks), params.sample
    path = min(sample.trajectories, sample.count) * sample.trajectory_points
    doses = len(DOSES) * sample.doses if params.ldm.performance != "none" else 0
    parts = {
        "data/base": weights,
        "data/zoo": t * (params.collect.max_checkpoints * k + head),
        "data/normalized": t * ((params.normalize.n_checkpoints + 2) * k_generated + k),
        "data/autoencoder": autoencoder_weights(params, k_generated),
        "data/samples": t * k * (sample.count + path + doses),
        "data/adapters": t * (k + head),
    }
    sizes = {name: FLOAT * values for name, values in parts.items()}
    return sizes | {"total": sum(sizes.values())}


def memory(params: Params, activations: int, weights: int, k: int, k_generated: int) -> dict[str, int]:
    """Peak bytes of the three largest stages, on top of `RUNTIME` for the libraries.

    finetune-collect: 4 W + 4 N_max K + `activations`, of a training step.
    train-ae: 4 T N K', or 512 MB of it and the rest read as it goes, + 16 A (A weights, their gradients and Adam's
    two moments) + 32 K' a row of the batch.
    merge-eval: 4 W + 4 K (N_max + S) + 4 N K' for the PCA control.
    """
    from condpdiff.autoencoder.train import RESIDENT_BYTES  # torch is a second's import

    n, n_max, t = params.normalize.n_checkpoints, params.collect.max_checkpoints, len(params.tasks)
    return {
        "finetune-collect": RUNTIME + FLOAT * (weights + n_max * k) + activations,
        "train-ae": RUNTIME
        + min(FLOAT * t * n * k_generated, RESIDENT_BYTES)
        + 4 * FLOAT * autoencoder_weights(params, k_generated)
        + 8 * FLOAT * k_generated * params.ae.batch_size,
        "merge-eval": RUNTIME + FLOAT * (weights + k * (n_max + params.sample.count) + n * k_generated),
    }


def autoencoder_weights(params: Params, k: int) -> int:
    """How many weights E and D have together, counted without memory for them."""
    import torch

    from condpdiff.autoencoder.models import build, config_of

    with torch.device("meta"):
        return sum(tensor.numel() for tensor in build(config_of(params.ae, k)).state_dict().values())


def stage_states() -> dict[str, Any]:
    """For each stage of dvc.yaml, how many of its instances are up to date, will run, or hang on one that will.

    A stage that will run may still come out of DVC's run cache. Reads the working directory alone.
    """
    try:
        from dvc.repo import Repo
        from networkx import ancestors

        with Repo() as repo:
            changed = set(repo.status())
            graph = repo.index.graph  # an edge leads from a stage to the one that it reads from
            names = {stage: stage.addressing for stage in graph.nodes}
            after = {names[s] for stage in graph if names[stage] in changed for s in ancestors(graph, stage)}
            order = [names[stage] for stage in repo.index.stages]
    except Exception as error:  # DVC has dozens of kinds: no repository, busy, an unreadable dvc.yaml
        return {"problem": (str(error).strip().splitlines() or [type(error).__name__])[0]}
    if not order:
        return {"problem": "dvc.yaml has no stages"}
    states: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name in order:
        state = CHANGED if name in changed else DOWNSTREAM if name in after else UP_TO_DATE
        states[name.partition("@")[0]][state] += 1
    return {stage: dict(counts) for stage, counts in states.items()}


def render(run: Mapping[str, Any]) -> str:
    """The description as text for a terminal."""
    base, lora, zoo, latent, condition = (run[key] for key in ("base", "lora", "zoo", "latent", "condition"))
    lines = [f"base       {base['name']} ({base['source']}; {base['input']})"]
    if base["architecture"]:
        lines += [f"           {base['shape']}, {base['parameters']:,} parameters"]
    lines += [
        f"           numbers from {base['numbers_from']}",
        f"lora       rank {lora['rank']}, alpha {lora['alpha']:g}, on {_listed(lora['target_modules'])}",
        f"           K = {_number(lora['K'])}, of which generated {_number(lora['K_generated'])} "
        f"(layers {run['generated_layers']})",
        f"zoo        {zoo['max_checkpoints']} checkpoints a task, the last N = {zoo['N']} learned",
        f"latent     C x L = {latent['C']} x {latent['L']} = {latent['C'] * latent['L']} values ({latent['arch']})",
        f"condition  {condition['kind']}, {condition['encoder']} {condition['model']} ({condition['input']})",
        f"samples    {run['samples']} a task",
        f"tasks      {len(run['tasks'])}",
    ]
    for task in run["tasks"]:
        rows = task["prepared_rows"] or task["max_rows"]
        note = "prepared" if task["prepared_rows"] else "at most"
        classes = f" ({task['outputs']})" if task["kind"] == "classification" else ""
        kind = f"{task['kind']}{classes}, {_listed(task['metrics'])}"
        rows_text = f"{note} {rows[0]:,} + {rows[1]:,} rows"
        lines += [f"  {task['name']:<8} {kind}; {rows_text}; {task['steps']} steps; {task['source']} ({task['input']})"]
    lines += [f"{title:<10} estimate: {_sizes(run[title])}" for title in ("disk", "memory")]
    if "problem" in run["stages"]:
        return "\n".join([*lines, f"stages     {run['stages']['problem']}"])
    lines.append("stages")
    for stage, states in run["stages"].items():
        lines.append(f"  {stage:<18} " + ", ".join(f"{n} {state}" for state, n in states.items()))
    return "\n".join(lines)


def _listed(items: str | Iterable[str]) -> str:
    return items if isinstance(items, str) else ", ".join(items)


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _sizes(parts: Mapping[str, int] | None) -> str:
    return ", ".join(f"{name} {_size(size)}" for name, size in parts.items()) if parts else "unknown without K"


def _size(size: float) -> str:
    unit = "B"
    for larger in ("kB", "MB", "GB"):
        if size >= 1000:
            size, unit = size / 1000, larger
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:,.0f} {unit}"
