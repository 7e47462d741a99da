"""A generator of LoRAs: `Generator.from_pretrained(folder)`, `generate(task=...)`."""

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor

from condpdiff.common.errors import UserError, first_line, nearest
from condpdiff.common.files import read_config, read_tensors
from condpdiff.common.hardware import without_module
from condpdiff.common.packages import cache_folder
from condpdiff.common.pretrained import SOURCE, weights_digest
from condpdiff.common.task import Base, Members
from condpdiff.diffusion.conditions import FILE, projected
from condpdiff.packed.config import BASE, Config
from condpdiff.packed.lora import Lora
from condpdiff.zoo.checkpoints import HEAD
from condpdiff.zoo.layout import Layout
from condpdiff.zoo.normalized import load_frame
from condpdiff.zoo.settings import SHARED

# diffusers asks for torch's compiler, which takes two seconds to import, and does without where there is none.
with without_module("torch._dynamo"):
    from condpdiff.generate import generator as parts


MOST_PICTURES = 10
"""Pictures of a condition that generators are trained with at most."""
UNSEEN_TEXT = (
    "of tasks never trained on generated LoRAs had 54 % right where a classifier on 16 labelled rows had 86 % "
    "(docs/unseen-text.md)"
)
Picture = Any
"""A path, a PIL image, or an array uint8 [H, W, 3]."""


def _check_sizes(path: Path) -> None:
    """Raise unless a network's file holds what its config tells of: to make a larger one would take all memory."""
    tensors = read_tensors(path)
    if "shift" in tensors:  # a scale's file has no config
        return
    config, most = read_config(path), sum(tensor.numel() for tensor in tensors.values())
    sizes = [size for each in config.values() for size in (each if isinstance(each, list) else [each])]
    deep = max(config.get("depth", 0), config.get("blocks", 0)) > len(tensors)
    if deep or any(size > most for size in sizes if isinstance(size, int)):
        raise UserError(f"{path}: config: found {config}, allowed: sizes of its {most} weights")


class Generator(ModelHubMixin, library_name="condpdiff", tags=["lora", "peft"]):
    """Turns a task's name or description, or a style's pictures, into LoRAs for one base model.

    `from_pretrained` takes a folder, or an id of the Hugging Face hub; `save_pretrained` and `push_to_hub` are its
    inverse. The folder holds safetensors and JSON alone, and nothing in it is run.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read `config.json`; weights are read when they are needed.

        Raises:
            UserError: the folder is no generator's.
        """
        self.folder = Path(folder)
        self.config = Config.load(self.folder)

    def _save_pretrained(self, save_directory: Path) -> None:
        if save_directory.resolve() == self.folder.resolve():
            raise UserError(f"{save_directory}: is the generator's own folder")
        shutil.copytree(self.folder, save_directory, dirs_exist_ok=True, copy_function=shutil.copyfile)

    def push(self, repo_id: str) -> None:
        """`push_to_hub`, whose errors are one line.

        Raises:
            UserError: no network, no login, or no right to write there; the folder stays.
        """
        try:
            self.push_to_hub(repo_id)
        except Exception as error:  # the hub's client raises dozens of kinds
            raise UserError(f"{repo_id}: not uploaded ({first_line(error)}); {self.folder} stays as it is") from None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "Generator":
        """The generator of a folder, or of an id `owner/name` of the hub; `options` as ModelHubMixin's.

        Raises:
            UserError: it can't be had, or is no generator.
        """
        name = str(pretrained_model_name_or_path)
        if Path(name).is_dir():
            return cls(name)
        if Path(name).is_absolute() or name.count("/") != 1 or name.startswith("."):
            raise UserError(f"{name}: no such folder; allowed: a folder, or an id owner/name of the hub")
        from huggingface_hub import HfApi, constants

        try:
            if not constants.HF_HUB_OFFLINE and not options.get("local_files_only"):
                HfApi(token=options.get("token")).model_info(name, timeout=10)  # downloads would try six times
            return super().from_pretrained(name, **options)
        except UserError:
            raise
        except Exception as error:  # the hub's client raises dozens of kinds
            raise UserError(f"{name}: no such folder, and the hub can't give it ({first_line(error)})") from None

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "Generator":
        from huggingface_hub import snapshot_download

        known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        asked = {key: options[key] for key in known if key in options}
        return cls(snapshot_download(model_id, allow_patterns=["*.json", "*.safetensors", "*.md"], **asked))

    # --- what it knows --------------------------------------------------------------------------

    @cached_property
    def parts(self) -> parts.Generator:
        """Denoiser, decoder and scale."""
        try:
            for path in (*self.folder.glob("ldm/*.safetensors"), *self.folder.glob("autoencoder/*.safetensors")):
                _check_sizes(path)
            return parts.Generator.load(self.folder)
        except UserError:
            raise
        except Exception as error:  # configs and weights that do not fit raise a dozen kinds
            raise UserError(f"{self.folder}: its networks can't be read ({first_line(error)})") from None

    @cached_property
    def layout(self) -> Layout:
        """Where each tensor lies in theta."""
        return Layout.load(self.folder)

    @cached_property
    def conditions(self) -> dict[str, Tensor]:
        """y [V, d_cond] of every task that a run had; of a family, of each member `<family>/<q>`."""
        found = read_tensors(self.folder / "conditions" / FILE)
        if len({y.shape[1:] for y in found.values()}) > 1 or any(y.ndim != 2 for y in found.values()):
            raise UserError(
                f"{self.folder / 'conditions' / FILE}: found tensors of several shapes, allowed: [V, d_cond]"
            )
        return found

    @property
    def tasks(self) -> list[str]:
        """What `generate(task=...)` takes: the tasks by name, and members of families as `<family>/<q>`."""
        return list(self.conditions)

    @property
    def generated(self) -> list[str]:
        """Those of `tasks` that have what turns a generated vector into a LoRA."""
        known = self.config.tasks
        has = {name for name in known if (self.folder / "normalized" / name).is_dir()}
        return [name for name in self.tasks if name.partition("/")[0] in has]

    @property
    def trained(self) -> list[str]:
        """Those whose LoRAs it was trained on; of the others it knows the condition alone."""
        found = []
        for name in self.generated:
            family, _, member = name.partition("/")
            members = self.config.tasks[family].settings.get("members")
            of = Members(**members).trained_on(self.config.normalize.train_members) if members else None
            if of is None or int(member) in of.of("train"):
                found.append(name)
        return found

    @property
    def base_name(self) -> str:
        """What an adapter names as its base model: the hub's id, or a folder."""
        inside = self.folder / BASE
        return str(inside.resolve()) if inside.is_dir() else self.config.base.load

    def base(self, own: Path | None = None) -> Path:
        """A folder of the base model: the user's own, the generator's, a run's, or what its source gives once more.

        Raises:
            UserError: it can't be had, or its weights are not those that the generator was trained with.
        """
        asked, inside = self.config.base, self.folder / BASE
        found = own or (inside if inside.is_dir() else Path(asked.load))
        if own is None and not (found / SOURCE).is_file():
            if asked.source not in ("package", "hub"):
                raise UserError(f"base model: no folder {asked.load!r} here; give it with --base FOLDER")
            found = cache_folder() / "bases" / asked.sha256[:16]
            if not found.is_dir():
                from condpdiff.domain import module

                source: Any = {"source": asked.source, "name": asked.name}
                module("base", self.config.domain).prepare_base(Base(**source), found)
        if (digest := weights_digest(found)) != asked.sha256:
            raise UserError(f"{found}: found weights of SHA-256 {digest[:16]}, allowed: {asked.sha256[:16]}")
        return found

    @property
    def numbered(self) -> bool:
        """Whether conditions are numbers, that say nothing of a task: no other tasks can be asked for."""
        return self.config.condition.kind in ("one_hot", "learnable")

    # --- generating -----------------------------------------------------------------------------

    def generate(
        self,
        task: str | None = None,
        *,
        description: str | None = None,
        examples: Sequence[tuple[str, str]] = (),
        pictures: Sequence[Picture] = (),
        samples: int = 1,
        seed: int = 0,
    ) -> list[Lora]:
        """Generate LoRAs for a task that the generator knows, or for one that is described.

        Args:
            task: one of `tasks`.
            description: the task in words (text).
            examples: (text, label) pairs beside it.
            pictures: 1 to MOST_PICTURES of a style, of any content (style).
            samples: so many LoRAs, each from a noise of its own.
            seed: of the noise: the same seed gives the same LoRAs.

        Returns:
            `samples` LoRAs.

        Raises:
            UserError: not exactly one of task, description and pictures; an unknown task; what this generator can't
                be asked with; a picture that can't be read; a condition's encoder that can't be had.
        """
        y = self.condition(task, description, examples, pictures)
        name = task if task is not None else self.nearest(y)
        how = {"Asked with": self._asked(task, description, examples, pictures)}
        if task is None and self.config.domain == "text":
            how["Stands in"] = f"head and labels are those of the nearest task, `{name}`"
        return self.from_condition(y, name, how, samples, seed)

    def from_condition(self, y: Tensor, name: str, how: dict[str, str], samples: int = 1, seed: int = 0) -> list[Lora]:
        """Generate for any condition y [V, d_cond], with the head and statistics of the task `name`.

        Args:
            how: what y was made from, in words; stands on the adapters' cards.
        """
        if samples < 1:
            raise UserError(f"samples: found {samples}, allowed: at least 1")
        settings, random = self.config.sample, torch.Generator().manual_seed(seed)
        try:
            z, _ = self.parts.latents(y, settings.performance, samples, settings, random, None)
            theta = self.parts.to_theta(z, load_frame(self.folder / "normalized", name))
        except (RuntimeError, LookupError, ValueError) as error:
            raise UserError(f"{self.folder}: its files do not fit together ({first_line(error)})") from None
        how = {**how, "Seed": str(seed)}
        return [self._lora(name, each, {**how, "Sample": f"{i} of {samples}"}) for i, each in enumerate(theta)]

    def condition(
        self,
        task: str | None = None,
        description: str | None = None,
        examples: Sequence[tuple[str, str]] = (),
        pictures: Sequence[Picture] = (),
    ) -> Tensor:
        """y [V, d_cond] of a task that is known, described, or shown; raises as `generate`."""
        given = [key for key, value in (("task", task), ("description", description), ("pictures", list(pictures)))
                 if value]  # fmt: skip
        if len(given) != 1:
            raise UserError(f"found {' and '.join(given) or 'nothing'}, allowed: one of task, description and pictures")
        if task is not None:
            if task not in self.conditions:
                known = self.tasks
                raise UserError(f"task: unknown task {task!r}{nearest(task, known)}; allowed: {', '.join(known)}")
            return self.conditions[task]
        wanted = {"text": "description", "style": "pictures"}[self.config.domain]
        if self.numbered or given != [wanted]:
            allowed = "task" if self.numbered else f"task or {wanted}"
            raise UserError(f"found {given[0]}, allowed with this generator: {allowed}")
        return self._encode(self._input(description, examples, pictures))

    def nearest(self, y: Tensor, among: Sequence[str] | None = None) -> str:
        """The task, or the member, whose mean condition has the largest cosine to the mean of y [V, d_cond]."""
        names = list(among or self.generated)
        if not names:
            raise UserError(f"{self.folder}: found no task of config.json among its conditions, allowed: one or more")
        means = torch.stack([self.conditions[name].mean(0) for name in names])
        return names[int(torch.cosine_similarity(means, y.mean(0, keepdim=True)).argmax())]

    @cached_property
    def _encoder(self) -> Any:
        from condpdiff.domain import module

        load = module("encoder", self.config.domain).load_encoder
        return projected(load(self.config.condition), self.config.condition, self.folder)

    def _encode(self, one: Any) -> Tensor:
        return self._encoder([one])

    def _input(self, description: str | None, examples: Sequence[tuple[str, str]], pictures: Sequence[Picture]) -> Any:
        """What the encoder takes."""
        if self.config.domain == "text":
            from condpdiff.text.conditions import example_line

            return "\n".join([str(description), *(example_line(text, label) for text, label in examples)])
        if len(pictures) > MOST_PICTURES:
            raise UserError(f"pictures: found {len(pictures)}, allowed: 1 to {MOST_PICTURES}")
        return self.read_pictures(pictures)

    def read_pictures(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Pictures of any size as the generator takes them: uint8 [n, H, W, 3]; raises as `generate`."""
        from condpdiff.style.images import read_picture

        size = next(iter(self.config.tasks.values())).settings["data"]["size"]
        return np.stack([read_picture(picture, size) for picture in pictures])

    def _asked(
        self, task: str | None, description: str | None, examples: Sequence[Any], pictures: Sequence[Any]
    ) -> str:
        if task is not None:
            return f"task `{task}`"
        if description is not None:
            return f"“{description}”" + (f" and {len(examples)} examples" if examples else "")
        return f"{len(pictures)} picture{'s' * (len(pictures) > 1)}"

    def _lora(self, name: str, theta: Tensor, how: dict[str, str]) -> Lora:
        family = name.partition("/")[0]
        head = read_tensors(self.folder / "zoo" / family / HEAD)
        labels = self.config.tasks[family].settings["data"].get("labels")
        return Lora(theta, self.layout, head, labels, self.config, name, self.base_name, how)

    def note(self, task: str | None, lora: Lora) -> str | None:
        """For a task that was never trained on: what stands in for its head and statistics, and what was measured."""
        if task is not None:
            return None
        measured = self.config.measured
        if self.config.domain == "style":
            parts = [
                f"{measured[tier]['condpdiff']:.0f} % {of}"
                for tier, of in (("known", "on styles of known families"), ("held_out", "on families held out"))
                if "condpdiff" in measured.get(tier, {})
            ]
            return (
                "of the way from the mean soup to a style's own LoRA it went " + " and ".join(parts) if parts else None
            )
        own = " and statistics" * (self.config.normalize.method not in SHARED)
        return f"the head{own} and the labels are those of `{lora.task}`, the nearest task; {UNSEEN_TEXT}"
