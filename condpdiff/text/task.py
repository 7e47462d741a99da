"""A text task's file: what the task is, where its rows come from, how it is learned."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from condpdiff.common import task
from condpdiff.common.settings import Section, check_choices, value_of

Metric = Literal["accuracy", "f1", "matthews", "pearson", "spearman", "log_likelihood"]
CHOICES = {
    "base.source": ("package", "hub", "local"),
    "condition.kind": ("task_info_few_shot", "task_info", "few_shot", "one_hot", "learnable"),
    "condition.encoder": ("minilm", "clip"),
}
"""What the keys that both domains have may be here."""
METRICS: dict[str, tuple[Metric, ...]] = {
    "classification": ("accuracy", "f1", "matthews"),
    "regression": ("pearson", "spearman"),
    "language": ("log_likelihood",),
}


class Split(Section):
    """How one file of rows becomes train and validation."""

    validation: float = Field(gt=0, lt=1)  # share of the rows (or of the groups) that goes to validation
    group_prefix: str | None = None  # rows whose `id` agrees up to this separator stay together (snippets of one text)
    group: str | None = None  # rows of one value in this column stay together (all of one author)
    stratify: bool = False  # the share is of each class (of its rows, or of its groups), and at least one of two
    seed: int = 0

    @model_validator(mode="after")
    def _one_kind_of_groups(self) -> "Split":
        if self.group is not None and self.group_prefix is not None:
            raise ValueError(f"group: {self.group!r}, allowed: null beside group_prefix")
        return self


class PackageSource(Section):
    """Rows out of a file that an ordinary package ships."""

    type: Literal["package"]
    package: str
    member: str  # path of the file in the package; `a.tar.gz!b.txt` reads a file of a nested archive
    format: Literal["csv", "tsv"]
    header: list[str] | None = None  # column names, when the file has no header line
    split: Split


class HubSource(Section):
    """Rows out of a data set on the Hugging Face hub."""

    type: Literal["hub"]
    dataset: str
    config: str | None = None
    train: str = "train"
    validation: str = "validation"


class FilesSource(task.Form):
    """Rows out of the user's own files: one for each split, or one for both."""

    type: Literal["files"]
    train: str | None = None
    validation: str | None = None
    file: str | None = None  # one file, which `split` makes two of
    split: Split | None = None
    decimal: Literal[".", ","] = "."  # what stands before the fraction of a number in text files

    @model_validator(mode="after")
    def _one_or_two_files(self) -> "FilesSource":
        given = [k for k in ("train", "validation", "file", "split") if getattr(self, k) is not None]
        if given not in (["train", "validation"], ["file", "split"]):
            raise ValueError(f"files: {', '.join(given) or 'none'}, allowed: train and validation, or file and split")
        return self


class WordnetSource(Section):
    """A family of tasks out of WordNet's nouns: is this gloss of a kind of X? (condpdiff/text/families/wordnet.py)"""

    type: Literal["wordnet"]
    tier: Literal["near", "far"]  # near: relatives of the members are trained on; far: nothing of the members is
    seed: NonNegativeInt = 0  # of the members' order and of their rows; one for all tiers of a run


class Columns(Section):
    """Names of the columns that hold the text, the second text of a pair, and the label.

    A name may also lead into what a column holds: `messages.0.content`, `premise.en`.
    """

    text: str
    text_pair: str | None = None
    label: str | None = None  # None: rows of a language model have no label
    join: str | None = None  # what stands between the strings of a text that is a list of them


class Binarize(Section):
    """Turns a rating into two classes and drops the rows in between."""

    below: float
    above: float


class FewShot(Section):
    """Two examples that stand in the condition beside the description."""

    draws: PositiveInt = 8  # how many pairs of training rows are drawn
    seed: int = 0
    examples: list[tuple[str, str | float]] | None = None  # fixed ones (text, label) in place of draws


class Finetune(task.Finetune):
    """Fine-tuning settings of one text task; its head is trained before the collection window opens, and not after."""

    head_lr: float = Field(0.0, ge=0)
    """Peak learning rate of the classification head; it rises as the LoRA's does and falls to 0 at the window. A
    family's head is fixed, and has none; a language model has no head."""
    max_length: PositiveInt = 128  # tokens a row; longer rows are cut


class TaskData(Section):
    """Where the task's rows come from, and what its labels mean."""

    kind: Literal["classification", "regression", "language"]
    """language: a causal language model's, without labels and without a head."""
    labels: list[str] | None = None  # class names in the order of their indices (classification)
    indices: int | None = None
    """Rows have numbers of the classes, which start here; null: names, or numbers from 0 that all occur in train."""
    range: tuple[float, float] | None = None  # smallest and largest label (regression)
    source: Annotated[PackageSource | HubSource | FilesSource | WordnetSource, Field(discriminator="type")]
    columns: Columns = Columns(text="text", label="label")  # a family makes its own rows, and has no other ones
    positive: str | None = None  # the class whose F1 is meant, of two; null: the second one
    binarize: Binarize | None = None

    @model_validator(mode="after")
    def _kind_fits(self) -> "TaskData":
        kind, labels, cut, split = self.kind, self.labels or [], self.binarize, getattr(self.source, "split", None)
        if kind == "classification" and len(set(labels)) < 2:
            raise ValueError("kind: classification, allowed: with at least two different labels")
        if kind == "language" and (labels or self.range or cut or self.columns.text_pair):
            raise ValueError("kind: language, allowed: with neither labels, range, binarize nor text_pair")
        if kind == "regression":
            if self.range is None:
                raise ValueError("kind: regression, allowed: with range: [smallest, largest]")
            if self.range[0] >= self.range[1]:
                raise ValueError(f"range: {list(self.range)}, allowed: [smallest, largest]")
            if labels or cut:
                raise ValueError("kind: regression, allowed: with neither labels nor binarize")
        if self.positive is not None and (len(labels) != 2 or self.positive not in labels):
            raise ValueError(f"positive: {self.positive!r}, allowed: one of two labels")
        if kind != "language" and self.columns.label is None:
            raise ValueError(f"columns.label: null, allowed: a column (data.kind: {kind})")
        if cut and (len(labels) != 2 or cut.below > cut.above):
            raise ValueError(f"binarize: {cut.model_dump()}, allowed: with two labels, and below <= above")
        if kind != "classification" or cut:
            if split and split.stratify:
                raise ValueError("source.split.stratify: True, allowed: false but for class labels")
            if self.indices is not None:
                raise ValueError(f"indices: {self.indices}, allowed: null but for class labels")
        return self

    @property
    def f1_classes(self) -> list[int]:
        """Indices of the classes whose F1 are averaged: the positive one of two, all of more."""
        labels = self.labels or []
        if len(labels) != 2:
            return list(range(len(labels)))
        return [1 if self.positive is None else labels.index(self.positive)]

    @property
    def num_outputs(self) -> int:
        """Width of the head: one for each class, one for regression; 0 for a language model, which has none."""
        return 0 if self.kind == "language" else len(self.labels) if self.labels else 1


class TaskCondition(Section):
    """What tells the generator about the task; a family's texts have {noun} and {gloss} in the place of a member's."""

    description: str
    paraphrases: list[str] = []
    few_shot: FewShot = FewShot()


class Task(task.Task):
    """One text task, in sections, so that a stage depends on just its part."""

    data: TaskData
    condition: TaskCondition
    metrics: list[Metric] = Field(min_length=1)  # the first one ranks candidates; all are reported, in percent
    finetune: Finetune

    @model_validator(mode="after")
    def _parts_fit(self) -> "Task":
        source, members, allowed = self.data.source, self.members, METRICS[self.data.kind]
        if not set(self.metrics) <= set(allowed):
            raise ValueError(f"metrics: {self.metrics}, allowed: {', '.join(allowed)} (data.kind: {self.data.kind})")
        if isinstance(source, WordnetSource) != (members is not None):
            raise ValueError(f"members: {members}, allowed: {'as a family has them' if members is None else 'null'}")
        if isinstance(source, WordnetSource) and source.tier == "far" and members is not None and members.train:
            raise ValueError(f"members.train: {members.train}, allowed: 0 (data.source.tier: far)")
        headless = members is not None or self.data.kind == "language"
        if (self.finetune.head_lr > 0) == headless:
            raise ValueError(f"finetune.head_lr: {self.finetune.head_lr}, allowed: {'0' if headless else 'above 0'}")
        return self


def load_task(name: str) -> Task:
    """The task as check-params left it in `data/settings/<name>/`."""
    return task.load_sections(name, Task)


def check(params: Section, tasks: Mapping[str, Task]) -> None:
    """Raise a ValueError, or a UserError, unless a run, the whole of params.yaml, is what this domain can do."""
    check_choices(params, CHOICES)
    if len(seeds := {t.data.source.seed for t in tasks.values() if isinstance(t.data.source, WordnetSource)}) > 1:
        raise ValueError(f"data.source.seed: {sorted(seeds)}, allowed: one seed, or far nouns would be trained on")
    if any(each.members for each in tasks.values()):
        if (fresh := value_of(params, "ldm.task_loss.fresh")) != "zoo":
            raise ValueError(f"ldm.task_loss.fresh: {fresh}, allowed: zoo (domain: text)")
        described = CHOICES["condition.kind"][:3]
        if (kind := value_of(params, "condition.kind")) not in described:
            raise ValueError(f"condition.kind: {kind}, allowed: {', '.join(described)} (for families)")
