"""The two domains behind the one DAG: `domain: text | style` of params.yaml picks the package that stages call.

Each domain is a package of modules of the same names. What a stage may ask of one is a Protocol below, by the module's
name; a test holds both packages against them. A `task` is always the domain's own, of its `task.Task`.

Both domains have families. Tasks that are none are of text alone, and so are the modules OF_TEXT.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from condpdiff.common.settings import domain

if TYPE_CHECKING:  # a stage loads what it uses alone
    import pandas as pd
    from peft import PeftModel
    from torch import Tensor

    from condpdiff.common import task as tasks
    from condpdiff.common.task import Base, Data
    from condpdiff.diffusion.settings import Condition, Ldm
    from condpdiff.evaluate.family import FamilyEvaluation, Run
    from condpdiff.generate.task_loss import Draw
    from condpdiff.report.spec import Spec
    from condpdiff.text.score import Panel, Scorer
    from condpdiff.zoo.checkpoints import Zoo
    from condpdiff.zoo.many import ManyFinetuning
    from condpdiff.zoo.settings import Collect

OF_TEXT = ("finetune", "score", "nonsense", "report")


class TaskModule(Protocol):
    """What a task's file says."""

    @property
    def Task(self) -> "type[tasks.Task]": ...  # noqa: N802
    def load_task(self, name: str) -> "tasks.Task": ...
    def check(self, params: Any, tasks: Mapping[str, Any]) -> None:
        """Raise unless params.yaml, and the tasks together, are what this domain can do."""


class DataModule(Protocol):
    """Rows of a task, in splits train, held_out and validation."""

    def prepare_data(self, name: str, task: Any, limits: "Data", out: Path) -> None: ...
    def needs(self, task: Any) -> list[tuple[str, str]]:
        """What must be there for a task's rows: (package | dataset | folder | file, name)."""


class BaseModule(Protocol):
    """The pre-trained model, in one folder."""

    def prepare_base(self, base: "Base", out: Path) -> None: ...


class ConditionsModule(Protocol):
    """What tells the generator about a task; an input is what the encoder takes: a text, or a stack of pictures."""

    def inputs(self, folder: Path, kind: str) -> list[Any]: ...
    def shown(self, one: Any, /) -> str: ...


class EncoderModule(Protocol):
    """The condition's encoder."""

    def load_encoder(self, settings: "Condition") -> "Callable[[Sequence[Any]], Tensor]": ...


class ModelsModule(Protocol):
    """Where the LoRA goes, and what a generated adapter says of itself."""

    def empty_peft_model(self, config: dict[str, Any], rank: int, alpha: float, asked: Any) -> "PeftModel": ...


class FinetuneModule(Protocol):
    """One task's zoo."""

    def finetune(self, name: str, task: Any, collect: "Collect", data: Path, base: Path, out: Path) -> None: ...


class ScoreModule(Protocol):
    """The base model of one task, into which LoRAs are merged to be scored."""

    def Scorer(  # noqa: N802
        self, base: Path, zoo: "Zoo", task: Any, splits: "dict[str, pd.DataFrame]", tokens: int
    ) -> "Scorer": ...
    def Panel(self, name: str, task: Any, tokens: int, data: Path) -> "Panel": ...  # noqa: N802


class NonsenseModule(Protocol):
    """Inputs of conditions of no task."""

    def nonsense_inputs(self, kind: str) -> list[Any]: ...


class FamiliesModule(Protocol):
    """The fine-tuning of a family's members."""

    def Family(self, task: Any, collect: "Collect", data: Path, base: Path) -> "ManyFinetuning": ...  # noqa: N802


class FreshModule(Protocol):
    """The tasks of the task loss."""

    def draws(self, data: Path, condition: "Condition", collect: "Collect", settings: "Ldm") -> "Draw": ...


class UnseenModule(Protocol):
    """The evaluation of a family's members."""

    def Evaluation(self, name: str, task: Any, data: Path, run: "Run") -> "FamilyEvaluation": ...  # noqa: N802


class ReportModule(Protocol):
    """What a domain adds to the report of tasks that are no family."""

    def spec(self, tasks: Mapping[str, Any], data: Path) -> "Spec": ...


# fmt: off
@overload
def module(name: Literal["task"], of: str | None = None) -> TaskModule: ...
@overload
def module(name: Literal["data"], of: str | None = None) -> DataModule: ...
@overload
def module(name: Literal["base"], of: str | None = None) -> BaseModule: ...
@overload
def module(name: Literal["conditions"], of: str | None = None) -> ConditionsModule: ...
@overload
def module(name: Literal["encoder"], of: str | None = None) -> EncoderModule: ...
@overload
def module(name: Literal["models"], of: str | None = None) -> ModelsModule: ...
@overload
def module(name: Literal["finetune"], of: str | None = None) -> FinetuneModule: ...
@overload
def module(name: Literal["score"], of: str | None = None) -> ScoreModule: ...
@overload
def module(name: Literal["nonsense"], of: str | None = None) -> NonsenseModule: ...
@overload
def module(name: Literal["families.losses"], of: str | None = None) -> FamiliesModule: ...
@overload
def module(name: Literal["unseen.fresh"], of: str | None = None) -> FreshModule: ...
@overload
def module(name: Literal["unseen.evaluate"], of: str | None = None) -> UnseenModule: ...
@overload
def module(name: Literal["report"], of: str | None = None) -> ReportModule: ...
# fmt: on
def module(name: str, of: str | None = None) -> Any:
    """The module `name` of a domain, by default params.yaml's; dvc.yaml has it as `condpdiff/${domain}/<name>.py`."""
    return import_module(f"condpdiff.{of or domain()}.{name}")
