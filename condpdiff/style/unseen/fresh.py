"""The tasks of the task loss: styles of the zoo, or fresh ones, each with its condition and its denoising loss."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from condpdiff.common.hardware import device
from condpdiff.common.task import members, number
from condpdiff.diffusion.conditions import projected
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.style.conditions import rows_of
from condpdiff.style.encoder import load_encoder
from condpdiff.style.families import drawing
from condpdiff.style.families.losses import Denoising
from condpdiff.style.images import decoded, shrink
from condpdiff.style.models import Examples, embed_captions, encode_images, load_vae, to_tensor
from condpdiff.style.photographs import captions
from condpdiff.style.task import DrawnSource, load_task
from condpdiff.zoo.checkpoints import load_zoo
from condpdiff.zoo.collect import trained_part
from condpdiff.zoo.settings import Collect

POOL = 48  # fresh styles at hand, of which a step draws its own
FIRST = 100_000  # number of the first fresh style of a family: no member is among them
MOST, DRAWS = 10, 3  # pictures of a condition: a fresh style's has 1 to so many; and conditions of a style


class Known(NamedTuple):
    """One style as the task loss takes it."""

    latents: Tensor  # [U, C, h, w]
    caption: Tensor  # [U] int64: which caption each has
    y: Tensor  # [DRAWS, d_cond]: its conditions


class Draws:
    """As `task_loss.Draw`: a step's S styles, each with a condition and its LoRA's denoising loss on its images."""

    def __init__(self, data: Path, condition: Condition, collect: Collect, settings: Ldm) -> None:
        """Args: data: where the stages before wrote. Raises a UserError if a file or a package can't be had."""
        self.settings = settings.task_loss
        self.random = np.random.default_rng([settings.seed, 1])
        self.names = members("train")
        tasks = [load_task(family) for family in dict.fromkeys(name.partition("/")[0] for name in self.names)]
        drawn = [task.data.source for task in tasks if isinstance(task.data.source, DrawnSource)]
        # What a style renders is the same for all of a family: the photographs are read once.
        drawn = drawn if self.settings.fresh == "fresh" else []
        self.drawn = [(source, drawing.contents(source.seed)) for source in drawn]
        self.size, self.data, base = tasks[0].data.size, data, data / "base"
        own = [] if self.drawn else [caption for name in self.names for caption in self._rows(name)["caption"]]
        known = list(dict.fromkeys([*captions(), *own]))  # folders have captions of their own
        self.caption = {caption: i for i, caption in enumerate(known)}
        zoo = load_zoo(data / "zoo" / self.names[0], 1)
        self.trained = trained_part(zoo.layout, zoo.config.get("factors", "both"))
        self.denoising = Denoising(base, zoo.layout, zoo.config["alpha"] / zoo.config["rank"])
        self.vae = load_vae(base).to(device())
        self.embeddings, self.mask = (each.to(device()) for each in embed_captions(base, known))
        self.encode = projected(load_encoder(condition), condition, data)
        self.made = 0
        self.pool: list[Known] = []
        self.seen: list[int] = []  # steps that have seen each of the pool

    def __call__(self, step: int) -> tuple[Tensor, Any]:
        """As `task_loss.Draw`."""
        s, random = self.settings, self.random
        if not self.pool:
            self.pool = [self._next() for _ in range(POOL if self.drawn else len(self.names))]
            self.seen = [0] * len(self.pool)
        chosen = random.permutation(len(self.pool))[: s.tasks]
        styles = [self.pool[i] for i in chosen]
        y = torch.stack([style.y[random.integers(DRAWS)] for style in styles]).to(device())
        rows = [torch.from_numpy(np.resize(random.permutation(len(one.latents)), s.rows)) for one in styles]  # S of [V]
        latents = torch.cat([one.latents[r] for one, r in zip(styles, rows, strict=True)])
        caption = torch.cat([one.caption[r] for one, r in zip(styles, rows, strict=True)]).to(device())
        batch = Examples(latents, caption, self.embeddings, self.mask)
        noise = torch.from_numpy(random.standard_normal(latents.shape, dtype=np.float32)).to(device())
        levels = torch.from_numpy(random.integers(self.denoising.levels, size=len(latents))).to(device())
        for i in chosen:
            self.seen[i] += 1
            if self.drawn and self.seen[i] == s.uses:
                self.pool[i], self.seen[i] = self._next(), 0
        return y, lambda theta: self.denoising(theta, batch, noise, levels)

    def state_dict(self) -> dict[str, Any]:
        """As `task_loss.Draw`."""
        pool = [tuple(style) for style in self.pool]
        return {"random": self.random.bit_generator.state, "made": self.made, "pool": pool, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `task_loss.Draw`."""
        self.random.bit_generator.state, self.made, self.seen = state["random"], state["made"], state["seen"]
        self.pool = [Known(latents.to(device()), *more) for latents, *more in state["pool"]]

    def _next(self) -> Known:
        """The next fresh style, or the next of the zoo."""
        count, self.made = self.made, self.made + 1
        if self.drawn:
            source, (scored, crops) = self.drawn[count % len(self.drawn)]
            style = drawing.draw(source.renderer, FIRST + count, source.seed)
            made = shrink(drawing.render(np.concatenate([scored, crops]), style), self.size)
            true, told = made[: len(scored)], made[len(scored) :]
            caption = torch.arange(len(scored))
        else:
            name = self.names[count % len(self.names)]
            rows, told = self._rows(name), decoded(self._rows(name, "held_out"))
            true, caption = decoded(rows), torch.tensor([self.caption[each] for each in rows["caption"]])
        conditions = []
        for _ in range(DRAWS):
            some = self.random.permutation(len(told))
            conditions.append(told[some[: self.random.integers(1, min(MOST, len(told)) + 1)]])
        return Known(encode_images(self.vae, to_tensor(true)), caption, self.encode(conditions))

    def _rows(self, name: str, split: str = "train") -> pd.DataFrame:
        """Of one member of the zoo."""
        return rows_of(self.data / "tasks" / name.partition("/")[0], number(name), split)
