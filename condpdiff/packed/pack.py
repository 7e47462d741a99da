"""`condpdiff pack`: a run's `data/` -> a generator's folder, with the files that generating reads and no others."""

import shutil
from pathlib import Path

import pandas as pd

from condpdiff.autoencoder import models as autoencoder
from condpdiff.common.errors import UserError
from condpdiff.common.files import new_directory, read_config, read_json, write_json, write_tensors
from condpdiff.common.matrices import whole
from condpdiff.common.pretrained import SOURCE, weights_digest
from condpdiff.common.settings import domain, section, tasks
from condpdiff.diffusion import conditions
from condpdiff.diffusion.settings import Condition
from condpdiff.domain import module
from condpdiff.generate.settings import Sample
from condpdiff.packed import config as packed
from condpdiff.packed.card import generator_card
from condpdiff.packed.config import Config
from condpdiff.zoo.checkpoints import HEAD, THETA, open_zoo
from condpdiff.zoo.layout import LAYOUT
from condpdiff.zoo.normalized import STATISTICS
from condpdiff.zoo.settings import Collect, Normalize

MOST_KEPT = 2**24
"""Numbers of a task's checkpoints that are packed, to tell how near a generated LoRA is to one of them: 32 MB."""
ARMS, METRICS = Path("report/plots/arms.csv"), Path("report/metrics.json")


def pack(data: Path, out: Path) -> Config:
    """Write the generator that `dvc repro` trained to the folder `out`.

    Raises:
        UserError: a stage has not run, or `out` is there and is no generator's folder.
    """
    if out.exists() and not (out / packed.FILE).is_file() and any(out.iterdir()):
        raise UserError(f"{out}: found a folder that is no generator's, allowed: a new folder")
    names = tasks()
    with new_directory(out) as folder:
        for file in _files(data, names):
            if not (data / file).is_file():
                raise UserError(f"{data / file}: no such file; run `dvc repro` first")
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / file, folder / file)
        if read_json(data / "base" / SOURCE)["source"] == "trained":  # nobody else has it
            ignored = shutil.ignore_patterns("*.csv", "*.png")
            shutil.copytree(data / "base", folder / packed.BASE, ignore=ignored, copy_function=shutil.copyfile)
        shutil.copyfile(data / "zoo" / names[0] / LAYOUT, folder / LAYOUT)
        config = _config(data, names)
        for name in (name for name, known in config.tasks.items() if known.settings.get("members") is None):
            rows, _ = open_zoo(data / "zoo" / name, config.normalize.n_checkpoints)
            if rows.shape[0] * rows.shape[1] <= MOST_KEPT:
                write_tensors(folder / "zoo" / name / packed.CHECKPOINTS, {"theta": whole(rows).half()})
        write_json(folder / packed.FILE, config.model_dump(mode="json"))
        (folder / "README.md").write_text(generator_card(config), encoding="utf-8")
    return config


def _files(data: Path, names: list[str]) -> list[Path]:
    """What generating reads, relative to `data`."""
    found = [Path("ldm/ldm.safetensors"), Path("conditions") / conditions.FILE]
    # The task loss trains a decoder of its own, with the latents' scale inside.
    own = Path("ldm") / autoencoder.FILE
    found += [own] if (data / own).is_file() else [Path("autoencoder") / autoencoder.FILE]
    found.append((Path("ldm") if (data / own).is_file() else Path("latents")) / "scale.safetensors")
    projection = Path("conditions") / conditions.PROJECTION
    found += [projection] if (data / projection).is_file() else []
    for name in names:
        found += [Path("normalized") / name / STATISTICS, Path("zoo") / name / HEAD]
    return found


def _config(data: Path, names: list[str]) -> Config:
    zoo = read_config(data / "zoo" / names[0] / THETA)
    base = {**read_json(data / "base" / SOURCE), "sha256": weights_digest(data / "base")}
    scores = _scores()
    return Config(
        format=1,
        domain=domain(),  # type: ignore[arg-type]
        base=packed.BaseModel(**base),
        lora=packed.Lora(**{key: zoo.get(key) for key in packed.Lora.model_fields}),
        collect=section("collect", Collect),
        normalize=section("normalize", Normalize),
        condition=section("condition", Condition),
        sample=section("sample", Sample),
        tasks={
            name: packed.Known(
                settings=module("task").load_task(name).model_dump(mode="json", exclude_none=True),
                scores=scores.get(name, {}),
            )
            for name in names
        },
        measured=read_json(METRICS) if METRICS.is_file() else {},
    )


def _scores() -> dict[str, dict[str, float]]:
    """Task -> arm -> score, where a report is there."""
    if not ARMS.is_file():
        return {}
    arms = pd.read_csv(ARMS).dropna(subset=["score"])
    return {str(task): dict(zip(rows["arm"], rows["score"], strict=True)) for task, rows in arms.groupby("task")}
