"""`condpdiff pack`: a run's `data/` -> a generator's folder, with the files that generating reads and no others."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.models import SCALE
from condpdiff.common.errors import UserError
from condpdiff.common.files import check_ours, new_directory, read_config, read_json, write_json, write_tensors
from condpdiff.common.matrices import whole
from condpdiff.common.pretrained import SOURCE, weights_digest
from condpdiff.common.settings import domain, section, tasks
from condpdiff.diffusion import conditions, process
from condpdiff.diffusion.settings import Condition
from condpdiff.domain import module
from condpdiff.generate.settings import Sample
from condpdiff.packed.generator import BASE, CHECKPOINTS, CONFIG, BaseModel, Config, Known, LoraSettings
from condpdiff.zoo.adapters import CARD
from condpdiff.zoo.checkpoints import HEAD, LAYOUT, THETA, open_zoo
from condpdiff.zoo.normalized import STATISTICS
from condpdiff.zoo.settings import Collect, Normalize

MOST_KEPT = 2**24  # numbers of a task's checkpoints that tell how near a generated LoRA is to one of them: 32 MB
FILES = (CARD, CONFIG, LAYOUT, BASE, "autoencoder", "latents", "zoo")  # of other generators, or of all
ARMS, METRICS = Path("report/plots/arms.csv"), Path("report/metrics.json")


def pack(data: Path, out: Path) -> Config:
    """Write the generator that `dvc repro` trained to the folder `out`.
    Raises a UserError if a stage has not run, or `out` is there and holds what no generator's folder does."""
    files = _files(data, names := tasks())
    check_ours(out, *FILES, *(Path(each).parts[0] for each in files))
    with new_directory(out) as folder:
        for file in files:
            if not (data / file).is_file():
                raise UserError(f"{data / file}: no such file; run `dvc repro` first")
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / file, folder / file)
        if read_json(data / "base" / SOURCE)["source"] == "trained":  # nobody else has it
            ignored = shutil.ignore_patterns("*.csv", "*.png")
            shutil.copytree(data / "base", folder / BASE, ignore=ignored, copy_function=shutil.copyfile)
        shutil.copyfile(data / "zoo" / names[0] / LAYOUT, folder / LAYOUT)
        config = _config(data, names)
        for name, known in config.tasks.items():
            if known.settings.get("members") is None:
                rows, _ = open_zoo(data / "zoo" / name, config.normalize.n_checkpoints)
                if rows.shape[0] * rows.shape[1] <= MOST_KEPT:
                    write_tensors(folder / "zoo" / name / CHECKPOINTS, {"theta": whole(rows).half()})
        write_json(folder / CONFIG, config.model_dump(mode="json"))
        (folder / CARD).write_text(_card(config), encoding="utf-8")
    return config


def _files(data: Path, names: list[str]) -> list[str]:
    """What generating reads, relative to `data`."""
    # The task loss trains a decoder of its own, with the latents' scale inside.
    own = (data / "ldm" / autoencoder.FILE).is_file()
    files = [f"ldm/{process.FILE}", f"conditions/{conditions.FILE}"]
    files += [f"{'ldm' if own else 'autoencoder'}/{autoencoder.FILE}", f"{'ldm' if own else 'latents'}/{SCALE}"]
    if (data / "conditions" / conditions.PROJECTION).is_file():
        files.append(f"conditions/{conditions.PROJECTION}")
    return files + [file for name in names for file in (f"normalized/{name}/{STATISTICS}", f"zoo/{name}/{HEAD}")]


def _config(data: Path, names: list[str]) -> Config:
    zoo = read_config(data / "zoo" / names[0] / THETA)
    arms = pd.read_csv(ARMS).dropna(subset=["score"]).set_index("arm") if ARMS.is_file() else None
    known = {}
    for name in names:
        scores: dict[Any, float] = {} if arms is None else arms["score"][arms["task"] == name].to_dict()
        settings = module("task").load_task(name).model_dump(mode="json", exclude_none=True)
        known[name] = Known(settings=settings, scores=scores)
    return Config(
        format=1,
        domain=domain(),  # type: ignore[arg-type]
        base=BaseModel(**read_json(data / "base" / SOURCE), sha256=weights_digest(data / "base")),
        lora=LoraSettings(**{key: zoo.get(key) for key in LoraSettings.model_fields}),
        collect=section("collect", Collect),
        normalize=section("normalize", Normalize),
        condition=section("condition", Condition),
        sample=section("sample", Sample),
        tasks=known,
        measured=read_json(METRICS) if METRICS.is_file() else {},
    )


def _card(config: Config) -> str:
    """The model card of a generator's folder."""
    example = 'pictures=["one.jpg", "two.jpg"]'
    if config.domain == "text":
        example = f'task="{next(iter(config.tasks))}", samples=8, seed=0'
    scores = [f"\n## {name}\n{known.table()}\n" for name, known in config.tasks.items() if known.scores]
    return f"""---
library_name: condpdiff
tags: [lora, peft, condpdiff]
base_model: {config.base.load}
---
# A generator of LoRAs

It makes LoRAs (rank {config.lora.rank}) for {config.base.name} by conditional latent diffusion
(Cond P-Diff, arXiv 2408.01415).

```python
from condpdiff import Generator

generator = Generator.from_pretrained("FOLDER")
loras = generator.generate({example})
loras[0].save_pretrained("adapter")
```

- Trained on: {", ".join(config.tasks)}
- SHA-256 of the base's weights: {config.base.sha256}
- Condition: {config.condition.kind} ({config.condition.encoder})
{"".join(scores)}"""
