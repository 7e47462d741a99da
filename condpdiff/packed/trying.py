"""What a generated LoRA does beside others: images of one's own prompts, answers to one's own sentences."""

import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_tensors
from condpdiff.evaluate.settings import Scoring
from condpdiff.packed.config import CHECKPOINTS
from condpdiff.packed.generator import Generator
from condpdiff.packed.lora import Lora
from condpdiff.packed.refine import TOKENS, text_task, train_on_pictures, zoo_of
from condpdiff.zoo.layout import Layout
from condpdiff.zoo.normalized import load_frame

Style = str | Sequence[Path]
"""A style that the generator knows by name, or pictures of one."""
GENERATED, NO_LORA = "generated", "no LoRA"


def scaled(lora: Lora, scale: float) -> Tensor:
    """theta [K] of the LoRA with `scale` times its effect on the base model."""
    factor = [torch.full((e.size,), scale if ".lora_B." in e.key else 1.0) for e in lora.layout.entries]
    return lora.theta * torch.cat(factor)


def zipped(lora: Lora, scale: float, folder: Path, name: str) -> Path:
    """`<folder>/<name>.zip` of the adapter, at that scale."""
    out = folder / name
    how = {} if scale == 1 else {"Scale": f"its effect times {scale:g}, in the weights"}
    lora.with_theta(scaled(lora, scale), lora.head, **how).save_pretrained(out)
    card = out / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace(str(out), name), encoding="utf-8")
    return Path(shutil.make_archive(str(out), "zip", folder, name))


# --- styles -------------------------------------------------------------------------------------


def style_loras(generator: Generator, first: Style, second: Style, share: float, seed: int) -> dict[str, Lora]:
    """What is generated for a style, or between two, and what for the nearest style that was trained on.

    Args:
        second: empty for none.
        share: of the second, 0 to 1: the conditions are mixed, not the weights.

    Raises:
        UserError: no style, or one that can't be read.
    """
    if not first:
        raise UserError("style: found nothing, allowed: pictures, or a style that is known")
    y = _condition(generator, first)
    how = _in_words(first)
    if second:
        y = torch.lerp(y.mean(0), _condition(generator, second).mean(0), share)[None]
        how = f"{1 - share:.0%} {how}, {share:.0%} {_in_words(second)}"
    known = first if isinstance(first, str) and not second else generator.nearest(y)
    near = generator.nearest(y, [name for name in generator.trained if name not in (first, second)])
    return {
        GENERATED: generator.from_condition(y, known, {"Asked with": how}, seed=seed)[0],
        f"nearest training style, {near}": generator.generate(near, seed=seed)[0],
    }


def trained_on(generator: Generator, lora: Lora, style: Style, mixed: bool, steps: int, base: Path) -> Lora:
    """The LoRA after so many steps of fine-tuning on the style's pictures.

    Raises:
        UserError: there are none; fewer than 2 steps.
    """
    from condpdiff.style.images import NEUTRAL

    if mixed or isinstance(style, str):
        found = "a mixture of two styles" if mixed else f"the known style {style}"
        raise UserError(f"steps: found {found}, allowed: pictures of one style, which training needs")
    captions = [NEUTRAL] * len(style)
    return train_on_pictures(lora, generator.read_pictures(style), captions, base, steps).lora


def paint(
    loras: Sequence[Tensor], lora: Lora, base: Path, prompts: Sequence[str], steps: int, guidance: float = 1.0
) -> np.ndarray:
    """Images uint8 [1 + S, U, H, W, 3] of U prompts without a LoRA, then with each of S vectors [K].

    Args:
        lora: any of the generator's.
        steps: of denoising; guidance: of the base model, 1 for none.
    """
    settings = lora.config.lora
    painter = _painter(base, lora.layout, settings.alpha / settings.rank, tuple(prompts))
    painter.scoring = Scoring(batch_tokens=1, image_steps=steps, image_guidance=guidance)
    return painter(torch.stack([torch.zeros(lora.layout.K), *loras]))


@lru_cache(maxsize=1)
def _painter(base: Path, layout: Layout, scale: float, prompts: tuple[str, ...]) -> Any:
    from condpdiff.style.unseen.score import Painter

    return Painter(base, layout, scale, list(prompts), Scoring(batch_tokens=1, image_guidance=1.0))


def _condition(generator: Generator, style: Style) -> Tensor:
    return generator.condition(style) if isinstance(style, str) else generator.condition(pictures=style)


def _in_words(style: Style) -> str:
    if isinstance(style, str):
        return f"style `{style}`"
    return f"{len(style)} picture{'s' * (len(style) > 1)}"


# --- text ---------------------------------------------------------------------------------------


def soup_of(generator: Generator, lora: Lora) -> Tensor:
    """theta [K]: the mean of the checkpoints of the task whose head the LoRA has."""
    return load_frame(generator.folder / "normalized", lora.task).soup


def distances(generator: Generator, lora: Lora) -> tuple[float, float]:
    """L2 from the LoRA to the soup, and from no LoRA to the soup."""
    soup = soup_of(generator, lora)
    return float((lora.theta - soup).norm()), float(soup.norm())


def nearest_checkpoint(generator: Generator, lora: Lora) -> tuple[float, float] | None:
    """L2 from the LoRA to the nearest checkpoint of its task, and the median of that between checkpoints; None where
    the generator has no checkpoints."""
    file = generator.folder / "zoo" / lora.task / CHECKPOINTS
    if not file.is_file():
        return None
    theta = read_tensors(file).get("theta", torch.empty(0)).float()
    if theta.shape[1:] != lora.theta.shape or not len(theta):
        raise UserError(f"{file}: theta: found {list(theta.shape)}, allowed: [N, {len(lora.theta)}]")
    between = torch.cdist(theta, theta).fill_diagonal_(float("inf")).min(1).values.median()
    return float((theta - lora.theta).norm(dim=1).min()), float(between)


def answers(generator: Generator, lora: Lora, base: Path, scale: float, text: str, pair: str) -> dict[str, Tensor]:
    """What the base model says of a sentence with its head and no LoRA, the soup, and the LoRA.

    Returns:
        Probabilities [classes], or a value [1].

    Raises:
        UserError: no sentence, or not both of a pair; the task has no head of its own.
    """
    from condpdiff.text.score import Scorer

    task = text_task(lora)
    pairs = task.data.columns.text_pair is not None
    if not text.strip() or (pairs and not pair.strip()):
        raise UserError(f"sentence: found {'one or none' if pairs else 'none'}, allowed: {'two' if pairs else 'one'}")
    texts = {"text": [" ".join(text.split())], "text_pair": [" ".join(pair.split()) if pairs else ""]}
    scorer = Scorer(base, zoo_of(lora), task, {"asked": pd.DataFrame({**texts, "label": [0.0]})}, TOKENS)
    found = {}
    loras = {NO_LORA: None, f"soup of {lora.task}": soup_of(generator, lora), GENERATED: scaled(lora, scale)}
    for name, theta in loras.items():
        scorer.merge(theta)
        output = torch.from_numpy(scorer.outputs("asked")[0])
        found[name] = output if task.data.kind == "regression" else output.softmax(0)
    return found
