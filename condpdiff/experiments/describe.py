"""What a run asks for, before it runs: the model and its K, tasks, input, disk, memory, time, and the stages' states.

Nothing is downloaded, no weights are read, and no torch is loaded for the models that the presets name.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condpdiff.common.errors import UserError
from condpdiff.common.settings import read_yaml
from condpdiff.domain import module
from condpdiff.experiments import estimate
from condpdiff.experiments.estimate import LAYER
from condpdiff.experiments.inputs import MODELS, encoder_input, input_state, model_config, prepared, published
from condpdiff.experiments.params import Params

DATA = Path("data/tasks")
LITE0, INCEPTION = 2_958_848, 24_000_000
"""Weights of the networks of FD-Lite0 (without its head) and of FID (about)."""
UNKNOWN_ROWS, TOKENS = 1000, 25
"""Of validation, and of one of its rows, where none are prepared: about GLUE's, and the default run's mean."""
UP_TO_DATE, CHANGED, DOWNSTREAM = "up to date", "will run", "runs if its input changes"


def describe(params: Params, tasks: Mapping[str, Any], stages: bool = True) -> dict[str, Any]:
    """Everything that `condpdiff describe` tells, as JSON-ready data; `stages=False` leaves DVC alone.

    Raises:
        UserError: params.yaml asks for modules or layers that the base model does not have.
    """
    domain = module("architecture", params.domain)
    config, numbers_from = model_config(params.base, params.domain)
    model = None if config is None else domain.architecture(config)
    known: dict[str, Any] = model or {"shape": None, "parameters": None}
    lora: dict[str, Any] = params.collect.model_dump(include={"rank", "alpha", "target_modules"})
    lora |= {"K": None, "K_generated": None, "head": None} if model is None else count(model, params)
    limits = [params.data.max_train, params.data.max_validation]
    rows = {name: prepared(DATA / name, limits) for name in tasks}
    needs: dict[str, Any] = {"disk": None, "memory": None, "time": None}
    spent: dict[str, float] = {}
    if model is not None and not any(task.members for task in tasks.values()):  # a family's costs are not counted
        k, made = lora["K"], lora["K_generated"]
        size = {n: (found or ([0, min(limits[1], UNKNOWN_ROWS)], TOKENS)) for n, found in rows.items()}
        each = {name: (of_split[1], model["tokens"] or tokens) for name, (of_split, tokens) in size.items()}
        trained = read_yaml(published(params.base)) if params.base.source == "trained" else {}
        speed = estimate.rate()  # before DVC takes a core
        spent = estimate.seconds(params, tasks, model, each, made, speed, trained)
        needs = {
            "disk": estimate.disk(params, model["parameters"] + other_weights(params), k, made, lora["head"]),
            "memory": estimate.memory(params, model, tasks, k, made),
            "time": {"operations_a_second": speed, "total": sum(spent.values())},
        }
    states, problem = stage_states() if stages else ({}, "not looked up: this run is not in params.yaml")
    return {
        "base": params.base.model_dump()
        | {"input": input_state(params.base.source, params.base.name), "architecture": config}
        | {"shape": known["shape"], "parameters": known["parameters"], "numbers_from": numbers_from},
        "lora": lora,
        "zoo": {"max_checkpoints": params.collect.max_checkpoints, "N": params.normalize.n_checkpoints},
        "generated_layers": params.normalize.layers,
        "latent": {"arch": params.ae.arch, "C": params.ae.latent_channels, "L": params.ae.latent_length},
        "samples": params.sample.count,
        "tasks": [
            task_row(name, task, params) | {"max_rows": limits, "prepared_rows": found[0] if found else None}
            for (name, task), found in zip(tasks.items(), rows.values(), strict=True)
        ],
        "condition": params.condition.model_dump() | {"input": encoder_input(params.condition)},
        **needs,
        "stages": {
            stage: {"seconds": spent.get(stage), "states": states.get(stage, {})}
            for stage in dict.fromkeys([*states, *spent])
        },
        "problem": problem,
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
    """One task: its kind, metrics, source, whether that is here, and steps."""
    where, needed = module("architecture", params.domain).source(task)
    states = {item: input_state(kind, item) for kind, item in needed}
    same = len(set(states.values())) == 1
    return {
        "name": name,
        "kind": getattr(task.data, "kind", params.domain),
        "outputs": getattr(task.data, "num_outputs", 0),
        "metrics": task.metrics,
        "source": where,
        "members": task.members.model_dump() if task.members else None,
        "input": "; ".join(set(states.values()) if same else [f"{item} {state}" for item, state in states.items()]),
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
        weights += module("architecture", "text").architecture(read_yaml(MODELS / f"{name}.yaml"))["parameters"]
    return int(weights + LITE0 + (INCEPTION if params.base.inception is not None else 0))


def stage_states() -> tuple[dict[str, dict[str, int]], str | None]:
    """For each stage of dvc.yaml, how many of its instances are up to date, will run, or hang on one that will.

    A stage that will run may still come out of DVC's run cache. Reads the working directory alone.

    Returns:
        Stage -> state -> instances; why there are none.
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
        return {}, (str(error).strip().splitlines() or [type(error).__name__])[0]
    states: dict[str, dict[str, int]] = {}
    for name in order:
        state = CHANGED if name in changed else DOWNSTREAM if name in after else UP_TO_DATE
        states.setdefault(name.partition("@")[0], Counter())[state] += 1
    return states, None if order else "dvc.yaml has no stages"


def render(run: Mapping[str, Any]) -> str:
    """The description as text for a terminal."""
    base, lora, zoo, latent, condition, time = (
        run[key] for key in ("base", "lora", "zoo", "latent", "condition", "time")
    )
    modules = lora["target_modules"]
    k, generated = ("unknown" if lora[key] is None else f"{lora[key]:,}" for key in ("K", "K_generated"))
    lines = [f"base       {base['name']} ({base['source']}; {base['input']})"]
    if base["shape"]:
        lines += [f"           {base['shape']}, {base['parameters']:,} parameters"]
    lines += [
        f"           numbers from {base['numbers_from']}",
        f"lora       rank {lora['rank']}, alpha {lora['alpha']:g}, "
        f"on {modules if isinstance(modules, str) else ', '.join(modules)}",
        f"           K = {k}, of which generated {generated} (layers {run['generated_layers']})",
        f"zoo        {zoo['max_checkpoints']} checkpoints a task, the last N = {zoo['N']} learned",
        f"latent     C x L = {latent['C']} x {latent['L']} = {latent['C'] * latent['L']} values ({latent['arch']})",
        f"condition  {condition['kind']}, {condition['encoder']} {condition['model']} ({condition['input']})",
        f"samples    {run['samples']} a task",
        f"tasks      {len(run['tasks'])}",
    ]
    for task in run["tasks"]:
        train, validation = task["prepared_rows"] or task["max_rows"]
        rows = f"{'prepared' if task['prepared_rows'] else 'at most'} {train:,} + {validation:,} rows"
        kind = f"{task['kind']} ({task['outputs']})" if task["kind"] == "classification" else task["kind"]
        if members := task["members"]:
            rows = f"{sum(members.values())} members, {members['train']} of them trained on"
        told = f"{kind}, {', '.join(task['metrics'])}; {rows}; {task['steps']} steps"
        lines += [f"  {task['name']:<8} {told}; {task['source']} ({task['input']})"]
    unknown = "unknown without K" if lora["K"] is None else "unknown of families"
    for title in ("disk", "memory"):
        sizes = ", ".join(f"{name} {_size(size)}" for name, size in (run[title] or {}).items())
        lines += [f"{title:<10} estimate: {sizes or unknown}"]
    total = f"{_time(time['total'])} at {time['operations_a_second'] / 1e9:.0f} GFLOP/s" if time else unknown
    lines += [f"time       estimate: {total}", f"stages     {run['problem'] or ''}".rstrip()]
    for name, stage in run["stages"].items():
        states = ", ".join(f"{n} {state}" for state, n in stage["states"].items())
        seconds = "" if stage["seconds"] is None else _time(stage["seconds"])
        lines += [f"  {name:<18} {seconds:>8}  {states}".rstrip()]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds >= 6000:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} GB" if size < 1000 else f"{size:,.0f} GB"
