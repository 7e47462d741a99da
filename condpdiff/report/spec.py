"""What a domain adds to the report: a `Spec`, of which `condpdiff/<domain>/report.py` has the domain's own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.common.task import Data
from condpdiff.diffusion.settings import Ldm
from condpdiff.evaluate.settings import Eval
from condpdiff.generate.settings import Sample
from condpdiff.report.arms import CONTROLS
from condpdiff.report.blocks import Block, Table
from condpdiff.report.compare import Comparison, Difference
from condpdiff.report.evaluation import Evaluation, Scale, read_evaluation
from condpdiff.report.settings import Report
from condpdiff.report.summary import Summary, averages
from condpdiff.zoo.settings import Collect, Normalize


class Settings(Protocol):
    """What the report reads of params.yaml."""

    data: Data
    collect: Collect
    normalize: Normalize
    ae: Autoencoder
    ldm: Ldm
    sample: Sample
    eval: Eval
    report: Report


class Spec(ABC):
    """A run's evaluations, and what the report says of them in this domain alone."""

    scale: ClassVar[Scale]
    interval: ClassVar[str]  # what the bars of the figure of differences are
    differences: ClassVar[str]  # how the intervals in the table of differences come about
    all_metrics: ClassVar[str]  # caption of the table of all metrics
    why_racing: ClassVar[str]  # why racing leaves figures out, and which
    nonsense: ClassVar[str]  # what the condition `nonsense` is

    def __init__(self, tasks: Mapping[str, Any], data: Path) -> None:
        """Read `data/eval/<task>/` of every task, as `read_evaluation` does."""
        self.data = data
        self.evaluations = [read_evaluation(data / "eval" / name, task, self.scale) for name, task in tasks.items()]

    @property
    def label(self) -> str:
        """What is scored; tasks of different metrics have percent in common."""
        labels = {e.label for e in self.evaluations}
        return labels.pop() if len(labels) == 1 else self.scale.axis.format(metric="first metric")

    @property
    def racing(self) -> bool:
        """Some arms' winners alone were scored on validation."""
        return any(e.racing for e in self.evaluations)

    @abstractmethod
    def why_not_learned(self, e: Evaluation, margin: float) -> str:
        """What is generated for a task whose checkpoints learned nothing says nothing either; empty if they did.

        Args:
            margin: `report.learned_margin`.
        """

    def comparisons(self, summary: Summary, seed: int) -> dict[str, Comparison]:
        """condpdiff minus `control`, `soup` and `original`; a domain may add `mean`, of all candidates and checkpoints.

        The control is the one with the best average over tasks, picked with hindsight: the hardest one to beat.
        """
        control = max(CONTROLS, key=averages(summary).__getitem__)
        arms = {"control": control, "soup": "soup", "original": "original"}
        return {key: self.compare(summary, arm, seed) for key, arm in arms.items()}

    @abstractmethod
    def compare(self, summary: Summary, arm: str, seed: int) -> Comparison:
        """condpdiff minus an arm, selected candidates."""

    @abstractmethod
    def said(self, difference: Difference) -> str:
        """A difference and its interval in a sentence."""

    @abstractmethod
    def qualified(self, comparisons: Mapping[str, Comparison], summary: Summary) -> list[str]:
        """Sentences of the verdict that other domains do not have."""

    @abstractmethod
    def measured(self, params: Settings) -> str:
        """What was measured on how many validation rows, in sentences."""

    @abstractmethod
    def results(self, params: Settings) -> str:
        """Caption of the table of results."""

    @abstractmethod
    def paper(self) -> list[Block]:
        """The paper's figures of this domain."""

    @abstractmethod
    def task_settings(self, e: Evaluation) -> dict[str, str]:
        """Column -> cell of the table of tasks."""

    def rules(self, summary: Summary) -> list[Block]:
        """Tables of all candidates under other rules of selection; empty in racing."""
        return []

    def novelty(self) -> list[Block]:
        """Other measures of novelty than distance."""
        return []


def arm_table(spec: Spec, caption: str, arms: Sequence[str], cell: Callable[[Evaluation, str], str]) -> Table:
    """Arms x tasks."""
    rows = [[arm, *(cell(e, arm) for e in spec.evaluations)] for arm in arms]
    return Table(caption, ["arm", *(e.name for e in spec.evaluations)], rows)
