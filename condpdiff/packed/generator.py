"""A generator of LoRAs: `Generator.from_pretrained(folder)`, `generate(task=...)`."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from huggingface_hub import HfApi, ModelHubMixin, constants, snapshot_download
from pydantic import Field
from torch import Tensor

from condpdiff.common.errors import UserError, first_line, nearest
from condpdiff.common.files import check_ours, new_directory, read_config, read_json, read_tensors
from condpdiff.common.hardware import without_module
from condpdiff.common.packages import cache_folder
from condpdiff.common.pretrained import SOURCE, weights_digest
from condpdiff.common.settings import Section, parse
from condpdiff.common.task import Base, Members, number
from condpdiff.diffusion.conditions import FILE, projected
from condpdiff.diffusion.settings import UNDESCRIBED, Condition
from condpdiff.domain import module
from condpdiff.generate.settings import Sample
from condpdiff.zoo.adapters import WRITTEN, card, write_adapter
from condpdiff.zoo.checkpoints import HEAD, Layout, unflatten
from condpdiff.zoo.normalized import load_frame
from condpdiff.zoo.settings import SHARED, Collect, Normalize

# diffusers asks for torch's compiler, which takes two seconds to import, and does without where there is none.
with without_module("torch._dynamo"):
    from condpdiff.generate import generator as parts

CONFIG = "config.json"
BASE = "base"  # the folder of the base model, where nobody else has it
CHECKPOINTS = "checkpoints.safetensors"  # of a task, in float16
ARMS = {"condpdiff": "best generated LoRA", "original": "best checkpoint", "soup": "soup"}  # ours, and its rivals
ARMS |= {"gaussian": "best draw from a normal distribution", "no_lora": "no LoRA"}
MOST_PICTURES = 10  # of a condition: generators are trained with that many at most
UNSEEN_TEXT = """of tasks never trained on generated LoRAs had 54 % right where a classifier on 16 labelled rows had \
86 % (docs/unseen-text.md)"""
Picture = Any  # a path, a PIL image, or an array uint8 [H, W, 3]


class BaseModel(Section):
    """The pre-trained model that the LoRAs are for."""

    source: str
    name: str
    load: str  # what `from_pretrained` takes for it: the hub's id, or the folder that it was in
    sha256: str = Field(pattern="^[0-9a-f]{64}$")  # of its weights: `load` may be another folder elsewhere


class LoraSettings(Section):
    """What every LoRA of the generator has alike."""

    rank: int
    alpha: float
    target_modules: list[str]
    modules_to_save: list[str]
    task_type: Literal["SEQ_CLS", "CAUSAL_LM", "FEATURE_EXTRACTION"] | None  # PEFT's name for what such a model does


class Known(Section):
    """A task that the generator was trained on, or a family of them."""

    settings: dict[str, Any]  # the task's file, in sections
    scores: dict[str, float] = {}  # by arm: its selected candidate's on validation, of the run that trained this

    def table(self) -> str:
        """The scores in Markdown, "" without any."""
        rows = [[what, f"{self.scores[arm]:.2f}"] for arm, what in ARMS.items() if arm in self.scores]
        return table(["arm", f"{self.settings['metrics'][0]} on validation"], rows) if rows else ""


class Config(Section):
    format: Literal[1]
    domain: Literal["text", "style"]
    base: BaseModel
    lora: LoraSettings
    collect: Collect
    normalize: Normalize
    condition: Condition
    sample: Sample
    tasks: dict[Annotated[str, Field(pattern=r"^\w[\w.-]*$")], Known]  # by name, which stands in paths
    measured: dict[str, Any] = {}  # what the run's report measured, as its metrics.json has it

    @staticmethod
    def load(folder: Path) -> "Config":
        """Raises a UserError if the folder is no generator's."""
        if not (file := folder / CONFIG).is_file():
            raise UserError(f"{folder}: no {CONFIG}; allowed: the folder of a generator, as `condpdiff pack` writes it")
        config = parse(Config, read_json(file), str(file))
        for name, known in config.tasks.items():
            parse(module("task", config.domain).Task, known.settings, str(file), f"tasks.{name}.settings")
        return config


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the first column on the left and numbers on the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(["", *(f"| {' | '.join(cells)} |" for cells in lines)])


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


@dataclass(frozen=True)
class Lora:
    """A LoRA with its head, where it has one, and with what it was made from."""

    theta: Tensor  # [K] float32
    layout: Layout
    head: dict[str, Tensor]  # by PEFT key; empty where nothing but the LoRA is generated
    labels: list[str] | None  # class names in the order of their indices
    config: Config  # of the generator that made it
    task: str  # whose head and statistics it has
    base: str  # what it names as its base model
    how: dict[str, str]  # what it was made from, in words

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors by PEFT key."""
        return {**unflatten(self.theta, self.layout), **self.head}

    def with_theta(self, theta: Tensor, head: dict[str, Tensor], **how: str) -> "Lora":
        """The same with other weights [K] and another head; `how` says what was done."""
        return replace(self, theta=theta, head=head, how={**self.how, **how})

    def scaled(self, scale: float) -> Tensor:
        """theta [K] with `scale` times its effect on the base model."""
        factor = [torch.full((e.size,), scale if ".lora_B." in e.key else 1.0) for e in self.layout.entries]
        return self.theta * torch.cat(factor)

    def save_pretrained(self, folder: str | Path, shown_as: str | Path = "") -> None:
        """Write a PEFT adapter with `labels.json` and a card, on which the folder may have another name."""
        base, lora = self.config.base, self.config.lora.model_dump()
        said = [
            "Sampled by Cond P-Diff; nothing was fine-tuned unless it says so below.\n",
            *(f"- {key}: {value}" for key, value in self.how.items()),
            f"- Base model: {base.name}, SHA-256 of its weights {base.sha256[:16]}",
        ]
        if self.how.get("Asked with") == f"task `{self.task}`":
            said.append(self.config.tasks[self.task.partition("/")[0]].table())
        text = card(lora, self.base, shown_as or folder, said, self.labels)
        check_ours(Path(folder), *WRITTEN)
        with new_directory(Path(folder)) as scratch:
            write_adapter(scratch, self.state_dict(), lora, self.base, text, self.labels)


class Generator(ModelHubMixin, library_name="condpdiff", tags=["lora", "peft"]):
    """Turns a task's name or description, or a style's pictures, into LoRAs for one base model.

    `save_pretrained` and `push_to_hub` are `from_pretrained`'s inverse. Nothing in a generator's folder is run.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read `config.json`; weights are read when they are needed. Raises a UserError if it is no generator's."""
        self.folder = Path(folder)
        self.config, self.layout = Config.load(self.folder), Layout.load(self.folder)

    def _save_pretrained(self, save_directory: Path) -> None:
        if save_directory.resolve() != self.folder.resolve():
            shutil.copytree(self.folder, save_directory, dirs_exist_ok=True, copy_function=shutil.copyfile)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "Generator":
        """The generator of a folder, or of an id `owner/name` of the hub; `options` are `snapshot_download`'s.
        Raises a UserError if it can't be had, or is no generator."""
        name = str(pretrained_model_name_or_path)
        if Path(name).is_dir():
            return cls(name)
        try:
            if not constants.HF_HUB_OFFLINE and not options.get("local_files_only"):
                HfApi(token=options.get("token")).model_info(name, timeout=10)  # downloads would try six times
            folder = snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.md"], **options)
        except Exception as error:  # the hub's client raises dozens of kinds
            raise UserError(f"{name}: no such folder, and the hub can't give it ({first_line(error)})") from None
        return cls(folder)

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
    def conditions(self) -> dict[str, Tensor]:
        """y [V, d_cond] of every task that a run had; of a family, of each member `<family>/<q>`."""
        found = read_tensors(file := self.folder / "conditions" / FILE)
        for name in found:
            family, of_family, member = name.partition("/")
            if family not in self.config.tasks or (of_family and not member.isdigit()):
                raise UserError(f"{file}: found {name!r}, allowed: the tasks of config.json, and <family>/<q>")
        if len({y.shape[1:] for y in found.values()}) > 1 or any(y.ndim != 2 for y in found.values()):
            raise UserError(f"{file}: found tensors of several shapes, allowed: [V, d_cond]")
        return found

    @property
    def tasks(self) -> list[str]:
        """What `generate(task=...)` takes: the tasks by name, and members of families as `<family>/<q>`."""
        return list(self.conditions)

    def known(self, task: str) -> Known:
        """A task, or the family of a member."""
        return self.config.tasks[task.partition("/")[0]]

    @property
    def trained(self) -> list[str]:
        """Those of `tasks` whose LoRAs it was trained on; of the others it knows the condition alone."""
        members = {name: self.known(name).settings.get("members") for name in self.tasks}
        at_most = self.config.normalize.train_members
        return [k for k, m in members.items() if not m or number(k) in Members(**m).trained_on(at_most).of("train")]

    @property
    def numbered(self) -> bool:
        """Whether conditions are numbers, that say nothing of a task: no other tasks can be asked for."""
        return self.config.condition.kind in UNDESCRIBED

    def base(self, own: Path | None = None) -> Path:
        """A folder of the base model: the user's own, the generator's, a run's, or what its source gives once more.
        Raises a UserError if it can't be had, or its weights are not those that the generator was trained with."""
        asked, inside = self.config.base, self.folder / BASE
        found = own or (inside if inside.is_dir() else Path(asked.load))
        if own is None and not (found / SOURCE).is_file():
            if asked.source not in ("package", "hub"):
                raise UserError(f"base model: no folder {asked.load!r} here; give it with --base FOLDER")
            found = cache_folder() / "bases" / asked.sha256[:16]
            if not found.is_dir():
                base = Base.model_validate({"source": asked.source, "name": asked.name})
                module("base", self.config.domain).prepare_base(base, found)
        if (digest := weights_digest(found)) != asked.sha256:
            raise UserError(f"{found}: found weights of SHA-256 {digest[:16]}, allowed: {asked.sha256[:16]}")
        return found

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
        """Generate LoRAs, each from a noise of its own: the same `seed` gives the same ones.

        They are for one of `tasks`; for a task in words, with (text, label) pairs beside them (text); or for a style of
        which there are 1 to MOST_PICTURES pictures, of any content (style).
        Raises a UserError unless exactly one of task, description and pictures is given and this generator can be asked
        with it; if a task is unknown, a picture can't be read, or a condition's encoder can't be had.
        """
        y, words = self.condition(task, description, examples, pictures)
        name, how = task or self.nearest(y), {"Asked with": words}
        if not task and self.config.domain == "text":
            how["Stands in"] = f"head and labels are those of the nearest task, `{name}`"
        return self.from_condition(y, name, how, samples, seed)

    def from_condition(self, y: Tensor, name: str, how: dict[str, str], samples: int = 1, seed: int = 0) -> list[Lora]:
        """Generate for a condition y [V, d_cond] with the head and statistics of the task `name`; cards say `how`."""
        if samples < 1:
            raise UserError(f"samples: found {samples}, allowed: at least 1")
        settings, random = self.config.sample, torch.Generator().manual_seed(seed)
        try:
            z, _ = self.parts.latents(y, settings.performance, samples, settings, random, None)
            theta = self.parts.to_theta(z, load_frame(self.folder / "normalized", name))
        except (RuntimeError, LookupError, ValueError) as error:
            raise UserError(f"{self.folder}: its files do not fit together ({first_line(error)})") from None
        head = read_tensors(self.folder / "zoo" / name.partition("/")[0] / HEAD)
        labels, inside = self.known(name).settings["data"].get("labels"), self.folder / BASE
        base = str(inside.resolve()) if inside.is_dir() else self.config.base.load
        about = [{**how, "Seed": str(seed), "Sample": f"{i} of {samples}"} for i in range(samples)]
        return [Lora(theta[i], self.layout, head, labels, self.config, name, base, about[i]) for i in range(samples)]

    def condition(
        self,
        task: str | None = None,
        description: str | None = None,
        examples: Sequence[tuple[str, str]] = (),
        pictures: Sequence[Picture] = (),
    ) -> tuple[Tensor, str]:
        """y [V, d_cond] of a task that is known, described, or shown, and which in words; raises as `generate`."""
        asked = {"task": task, "description": description, "pictures": list(pictures)}
        given = [key for key, value in asked.items() if value]
        if len(given) != 1:
            raise UserError(f"found {' and '.join(given) or 'nothing'}, allowed: one of task, description and pictures")
        if task:
            if task not in self.conditions:
                says = f"{nearest(task, self.tasks)}; allowed: {', '.join(self.tasks)}"
                raise UserError(f"task: unknown task {task!r}{says}")
            return self.conditions[task], f"task `{task}`"
        wanted = {"text": "description", "style": "pictures"}[self.config.domain]
        if self.numbered or given != [wanted]:
            allowed = "task" if self.numbered else f"task or {wanted}"
            raise UserError(f"found {given[0]}, allowed with this generator: {allowed}")
        if description:
            from condpdiff.text.conditions import example_line

            lines = [description, *(example_line(text, label) for text, label in examples)]
            beside = f" and {len(examples)} examples" if examples else ""
            return self._encoder(["\n".join(lines)]), f"“{description}”{beside}"
        if len(pictures) > MOST_PICTURES:
            raise UserError(f"pictures: found {len(pictures)}, allowed: 1 to {MOST_PICTURES}")
        return self._encoder([self.read_pictures(pictures)]), f"{len(pictures)} picture{'s' * (len(pictures) > 1)}"

    @cached_property
    def _encoder(self) -> Any:
        load = module("encoder", self.config.domain).load_encoder
        return projected(load(self.config.condition), self.config.condition, self.folder)

    def read_pictures(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Pictures of any size as the generator takes them, uint8 [n, H, W, 3]; raises as `generate`."""
        from condpdiff.style.images import read_picture

        size = next(iter(self.config.tasks.values())).settings["data"]["size"]
        return np.stack([read_picture(picture, size) for picture in pictures])

    def nearest(self, y: Tensor, among: Sequence[str] | None = None) -> str:
        """The task, or the member, whose mean condition has the largest cosine to the mean of y [V, d_cond]."""
        names = among or self.tasks
        means = torch.stack([self.conditions[name].mean(0) for name in names])
        return names[int(torch.cosine_similarity(means, y.mean(0, keepdim=True)).argmax())]

    def note(self, task: str | None, lora: Lora) -> str | None:
        """For a task that was never trained on: what stands in for its head and statistics, and what was measured."""
        if task:
            return None
        if self.config.domain == "text":
            own = " and statistics" * (self.config.normalize.method not in SHARED)
            return f"the head{own} and the labels are those of `{lora.task}`, the nearest task; {UNSEEN_TEXT}"
        tiers = {"known": "on styles of known families", "held_out": "on families held out"}
        measured = {of: self.config.measured.get(tier, {}).get("condpdiff") for tier, of in tiers.items()}
        far = " and ".join(f"{share:.0f} % {of}" for of, share in measured.items() if share is not None)
        return f"of the way from the mean soup to a style's own LoRA it went {far}" if far else None
