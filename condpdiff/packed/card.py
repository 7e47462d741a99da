"""Model cards: of a generator's folder, and of an adapter that it made."""

from pathlib import Path

from condpdiff.packed.config import Config, Known
from condpdiff.zoo.adapters import card

OWN = ("condpdiff", "original", "soup", "gaussian", "no_lora")
"""Arms of a card's scores: ours, and what it is held against."""


def adapter_card(config: Config, task: str, how: dict[str, str], base: str, folder: Path) -> str:
    """Of one adapter: its base, how it was made, and how to load it."""
    known = config.tasks[task.partition("/")[0]]
    said = [
        "Sampled by Cond P-Diff; nothing was fine-tuned unless it says so below.\n",
        *(f"- {key}: {value}" for key, value in how.items()),
        f"- Base model: {config.base.name}, SHA-256 of its weights {config.base.sha256[:16]}",
    ]
    if how.get("Asked with") == f"task `{task}`":
        said += _scores(known)
    return card(config.lora.model_dump(), base, folder, said, known.settings["data"].get("labels"))


def generator_card(config: Config) -> str:
    """Of a generator's folder."""
    lines = [
        *("---", "library_name: condpdiff", "tags: [lora, peft, condpdiff]", f"base_model: {config.base.load}", "---"),
        "# A generator of LoRAs",
        f"\nIt makes LoRAs (rank {config.lora.rank}) for {config.base.name} by conditional latent diffusion (Cond "
        "P-Diff, arXiv 2408.01415).\n",
        "```python\nfrom condpdiff import Generator\n",
        'generator = Generator.from_pretrained("FOLDER")',
        _example(config),
        'loras[0].save_pretrained("adapter")\n```',
        f"\n- Trained on: {', '.join(config.tasks)}",
        f"- SHA-256 of the base's weights: {config.base.sha256}",
        f"- Condition: {config.condition.kind} ({config.condition.encoder})",
    ]
    for name, known in config.tasks.items():
        if known.scores:
            lines += [f"\n## {name}", *_scores(known)]
    return "\n".join([*lines, ""])


def _example(config: Config) -> str:
    if config.domain == "style":
        return 'loras = generator.generate(pictures=["one.jpg", "two.jpg"])'
    return f'loras = generator.generate(task="{next(iter(config.tasks))}", samples=8, seed=0)'


def _scores(known: Known) -> list[str]:
    """A table of what the run measured for the task."""
    metric = next(iter(known.settings["metrics"]))
    rows = [f"| {arm} | {known.scores[arm]:.2f} |" for arm in OWN if arm in known.scores]
    return ["", f"| arm | {metric} on validation |", "|---|---:|", *rows] if rows else []
