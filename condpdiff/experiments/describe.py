"""What a run asks for, before it runs: the model and its K, tasks, input, disk, memory, time, and the stages' states.

Nothing is downloaded, no weights are read, and no torch is loaded for the models that the presets name.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from condpdiff.common.errors import UserError
from condpdiff.common.settings import read_yaml
from condpdiff.domain import module
from condpdiff.experiments import estimate
from condpdiff.experiments.estimate import LAYER
from condpdiff.experiments.inputs import (
    MODELS,
    encoder_input,
    input_state,
    model_config,
    model_input,
    prepared_rows,
    published,
    row_tokens,
)
from condpdiff.experiments.params import Params

DATA = Path("data/tasks")
LITE0, INCEPTION = 2_958_848, 24_000_000
"""Weights of the networks of FD-Lite0 (without its head) and of FID (about)."""
UNKNOWN_ROWS = 1000
"""Of validation, where none are prepared and params.yaml takes them all: about GLUE's."""
UP_TO_DATE, CHANGED, DOWNSTREAM = "up to date", "will run", "runs if its input changes"


def describe(params: Params, tasks: Mapping[str, Any], stages: bool = True) -> dict[str, Any]:
    """Everything that `condpdiff describe` tells, as JSON-ready data; `stages=False` leaves DVC alone.

    Raises:
        UserError: params.yaml asks for modules or layers that the base model does not have.
    """
    domain = module("describe", params.domain)
    config, numbers_from = model_config(params.base, params.domain)
    model = None if config is None else domain.architecture(config)
    lora: dict[str, Any] = params.collect.model_dump(include={"rank", "alpha", "target_modules"})
    result: dict[str, Any] = {
        "base": params.base.model_dump()
        | {
            "input": model_input(params.base.source, params.base.name),
            "architecture": config,
            "shape": model and model["shape"],
            "numbers_from": numbers_from,
            "parameters": model and model["parameters"],
        },
        "lora": lora | ({"K": None, "K_generated": None, "head": None} if model is None else count(model, params)),
        "zoo": {"max_checkpoints": params.collect.max_checkpoints, "N": params.normalize.n_checkpoints},
        "generated_layers": params.normalize.layers,
        "latent": {"arch": params.ae.arch, "C": params.ae.latent_channels, "L": params.ae.latent_length},
        "samples": params.sample.count,
        "tasks": [task_row(name, task, params) for name, task in tasks.items()],
        "condition": params.condition.model_dump() | {"input": encoder_input(params.condition)},
        "disk": None,
        "memory": None,
        "time": None,
    }
    if model is not None:
        lora, weights, speed = result["lora"], model["parameters"], estimate.rate()  # before DVC takes a core
        parts = read_yaml(published(params.base)) if params.base.source == "trained" else {}
        rows = {
            task["name"]: estimate.Rows(
                task["prepared_rows"][1] if task["prepared_rows"] else min(task["max_rows"][1], UNKNOWN_ROWS),
                model["tokens"] or row_tokens(DATA / task["name"]),
            )
            for task in result["tasks"]
        }
        spent = estimate.seconds(params, tasks, model, rows, lora["K_generated"], speed, parts)
        stored = weights + other_weights(params)
        result |= {
            "disk": estimate.disk(params, stored, lora["K"], lora["K_generated"], lora["head"]),
            "memory": estimate.memory(params, activations(model, tasks), weights, lora["K"], lora["K_generated"]),
            "time": {"operations_a_second": speed, "seconds": spent | {"total": sum(spent.values())}},
        }
    return result | {
        "stages": stage_states() if stages else {"problem": "not looked up: this run is not in params.yaml"}
    }


def count(model: Mapping[str, Any], params: Params) -> dict[str, Any]:
    """The modules that get a LoRA, K, the K that is generated, and the head's size.

    A module gets one if its name ends in what is asked for, as PEFT matches it: A [r, in] and B [out, r].
    """
    asked, layers = params.collect.target_modules, params.normalize.layers
    suffixes = model["auto"] if asked == "auto" else asked
    chosen = {n: s for n, s in model["linears"].items() if any(f".{n}".endswith(f".{suffix}") for suffix in suffixes)}
    if not chosen:
        names = sorted({LAYER.split(name)[-1] for name in model["linears"]})
        raise UserError(f"params.yaml: collect.target_modules: found {asked}, allowed: endings of {', '.join(names)}")
    sizes = {name: params.collect.rank * sum(shape) for name, shape in chosen.items()}
    layer_of = {name: int(found[1]) if (found := LAYER.search(name)) else -1 for name in chosen}
    last = max(layer_of.values())
    if layers != "all" and layers[1] > last:
        raise UserError(f"params.yaml: normalize.layers: found {list(layers)}, allowed: layers 0 to {last}")
    generated = [n for n in chosen if layers == "all" or layers[0] <= layer_of[n] <= layers[1]]
    return {
        "target_modules": sorted({LAYER.split(name)[-1] for name in chosen}),
        "K": sum(sizes.values()),
        "K_generated": sum(sizes[name] for name in generated),
        "head": model["head"],
    }


def task_row(name: str, task: Any, params: Params) -> dict[str, Any]:
    """One task: its kind, metric, source and rows."""
    where, needed = module("describe", params.domain).source(task)
    states = [input_state(*each) for each in needed]
    limits = [params.data.max_train, params.data.max_validation]
    return {
        "name": name,
        "kind": getattr(task.data, "kind", params.domain),
        "outputs": getattr(task.data, "num_outputs", 0),
        "metrics": task.metrics,
        "source": where,
        "input": states[0]
        if len(set(states)) == 1
        else "; ".join(f"{n} {s}" for (_, n), s in zip(needed, states, strict=True)),
        "max_rows": limits,
        "prepared_rows": prepared_rows(DATA / name, limits),
        "steps": params.collect.steps or task.finetune.steps,
    }


def other_weights(params: Params) -> int:
    """Weights in data/base beside those of the model that is fine-tuned, by the base's file of configs/models/.

    Of styles: image autoencoder, text encoder and the networks of the distances; 0 for a model that has no file there.
    The autoencoder of a base that is trained here is too small to count.
    """
    path = published(params.base)
    if params.domain == "text" or not path.is_file():
        return 0
    parts = read_yaml(path)
    weights = sum(parts.get("weights", {}).values())
    if name := parts["text_encoder"].get("name"):  # a model of its own file
        weights += module("describe", "text").architecture(read_yaml(MODELS / f"{name}.yaml"))["parameters"]
    return int(weights + LITE0 + (INCEPTION if params.base.inception is not None else 0))


def activations(model: Mapping[str, Any], tasks: Mapping[str, Any]) -> int:
    """Bytes that the layers hold in the largest step of fine-tuning, without gradient checkpointing.

    2 s b h (34 + 5 a s / h) a layer in float32 (s tokens, b rows, h hidden, a heads; Korthikanti et al. 2022, whose
    count is for half precision); cross-attention adds 12 to the 34.
    """
    h, a, layers = model["hidden"], model["heads"], model["layers"]
    steps = [(task.finetune.batch_size, model["tokens"] or task.finetune.max_length) for task in tasks.values()]
    return max(int(2 * s * b * h * (model["activations"] + 5 * a * s / h)) * layers for b, s in steps)


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
    time, states = run["time"], run["stages"]
    spent = time["seconds"] if time else {}
    lines += [
        "time       estimate: "
        + (
            f"{_minutes(spent['total'])} at {time['operations_a_second'] / 1e9:.0f} GFLOP/s"
            if time
            else "unknown without K"
        )
    ]
    if "problem" in states:
        lines += [f"stages     {states['problem']}"]
    else:
        lines += ["stages"]
    for stage in spent if "problem" in states else states:
        told = "" if "problem" in states else ", ".join(f"{n} {state}" for state, n in states[stage].items())
        lines += [f"  {stage:<18} {_minutes(spent[stage]) if stage in spent else '':>8}  {told}".rstrip()]
    return "\n".join(lines)


def _listed(items: str | Iterable[str]) -> str:
    return items if isinstance(items, str) else ", ".join(items)


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _minutes(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def _sizes(parts: Mapping[str, int] | None) -> str:
    return ", ".join(f"{name} {_size(size)}" for name, size in parts.items()) if parts else "unknown without K"


def _size(size: float) -> str:
    unit = "B"
    for larger in ("kB", "MB", "GB"):
        if size >= 1000:
            size, unit = size / 1000, larger
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:,.0f} {unit}"
