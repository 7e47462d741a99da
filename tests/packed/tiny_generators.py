"""Tiny generators of random weights, as `condpdiff pack` writes them: of text tasks, and of styles."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.models import SCALE
from condpdiff.common.files import write_json, write_tensors
from condpdiff.common.pretrained import weights_digest
from condpdiff.diffusion import conditions
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.settings import Condition
from condpdiff.packed.generator import CHECKPOINTS, CONFIG, Generator
from condpdiff.zoo.checkpoints import HEAD, Zoo
from condpdiff.zoo.normalized import Frame, Statistics, save_frame
from tests.stand_ins import make_task, make_zoo

SCORES = {"no_lora": 50.0, "soup": 71.25, "original": 72.0, "condpdiff": 73.5}


def text_generator(folder: Path, base: Path) -> Generator:
    """Of the tasks `films` (two classes) and `stars` (a rating), for the stand-in of BERT."""
    from condpdiff.text.encoder import load_encoder

    condition = Condition(kind="task_info", encoder="minilm", model=f"local-dir:{base}")
    encode, tasks = load_encoder(condition), {"films": make_task(), "stars": make_task("regression")}
    y = {"films": encode(["tell good films from bad"]), "stars": encode(["how lovely was the plot"])}
    zoos = {name: make_zoo(base, num_outputs=task.data.num_outputs)[0] for name, task in tasks.items()}
    return _save(folder, "text", base, tasks, zoos, y, condition)


def style_generator(folder: Path, base: Path) -> Generator:
    """Of one family of styles, of whose four members two were trained on, for the stand-in of PixArt."""
    from condpdiff.style.encoder import load_encoder
    from tests.style.stand_ins_style import make_family, make_images, make_style_zoo, random_lite0

    folder.mkdir()
    torch.save(random_lite0(), folder / "lite0.pth")
    condition = Condition(kind="style_images", encoder="lite0_depths", model=f"local-file:{folder / 'lite0.pth'}")
    task, zoo = make_family({"type": "drawn", "renderer": "grading"}), make_style_zoo(base)
    encoded = load_encoder(condition)([make_images(3, q) for q in range(4)])
    y = {f"waves/{q}": encoded[q : q + 1] for q in range(4)}
    return _save(folder, "style", base, {"waves": task}, {"waves": zoo}, y, condition)


def _save(
    folder: Path, domain: Any, base: Path, tasks: dict[str, Any], zoos: dict[str, Zoo], y: dict[str, Tensor],
    condition: Condition,
) -> Generator:  # fmt: skip
    zoo = next(iter(zoos.values()))
    for each in ("ldm", "autoencoder", "latents", "conditions", *(f"zoo/{name}" for name in zoos)):
        (folder / each).mkdir(parents=True)
    size = {"arch": "conv1d", "K": zoo.layout.K, "C": 2, "L": 8, "patch": 64, "width": 4, "depth": 1}
    torch.manual_seed(0)
    decoder, model = autoencoder.build(size), Denoiser(2, 8, (8, 12, 16), 1, next(iter(y.values())).shape[1])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # some start at zero, and would ignore the condition
    diffusion.save(folder / "ldm" / diffusion.FILE, model, diffusion.Process("sample"))
    autoencoder.save(folder / "autoencoder" / autoencoder.FILE, decoder, size)
    write_tensors(folder / "latents" / SCALE, {"shift": torch.zeros(2, 8), "scale": torch.ones(2, 8)})
    write_tensors(folder / "conditions" / conditions.FILE, y)
    zoo.layout.save(folder)
    for name, of in zoos.items():
        (folder / "normalized" / name).mkdir(parents=True)
        statistics = Statistics(of.theta.mean(0), of.theta.std(0))
        save_frame(folder / "normalized" / name, Frame(statistics, of.theta.mean(0), torch.arange(of.layout.K)))
        write_tensors(folder / "zoo" / name / HEAD, of.head)
        if domain == "text":
            write_tensors(folder / "zoo" / name / CHECKPOINTS, {"theta": of.theta.half()})
    source = {"source": "local", "name": "tiny", "load": str(base), "sha256": weights_digest(base)}
    written = {
        "format": 1,
        "domain": domain,
        "base": source,
        "lora": {key: zoo.config[key] for key in ("rank", "alpha", "target_modules", "modules_to_save", "task_type")},
        "collect": {"rank": 2, "alpha": 4.0, "max_checkpoints": 2},
        "normalize": {"method": "shared", "n_checkpoints": 2},
        "condition": condition.model_dump(),
        "sample": {"count": 2, "scheduler": "ddim", "steps": 2, "guidance": 1.0, "performance": None},
        "tasks": {
            name: {"settings": task.model_dump(mode="json", exclude_none=True), "scores": SCORES}
            for name, task in tasks.items()
        },
    }
    write_json(folder / CONFIG, written)
    return Generator.from_pretrained(folder)
