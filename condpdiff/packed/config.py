"""`config.json` of a generator's folder: what it takes, what it makes, what it was trained on and what it scored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json
from condpdiff.common.settings import Section, parse
from condpdiff.diffusion.settings import Condition
from condpdiff.domain import module
from condpdiff.generate.settings import Sample
from condpdiff.zoo.settings import Collect, Normalize

FILE = "config.json"
BASE = "base"  # the folder of the base model, where nobody else has it
CHECKPOINTS = "checkpoints.safetensors"  # of a task, in float16
ARMS = {"condpdiff": "best generated LoRA", "original": "best checkpoint", "soup": "soup"}  # ours, and its rivals
ARMS |= {"gaussian": "best draw from a normal distribution", "no_lora": "no LoRA"}


class BaseModel(Section):
    """The pre-trained model that the LoRAs are for."""

    source: str
    name: str
    load: str  # what `from_pretrained` takes for it: the hub's id, or the folder that it was in
    sha256: str = Field(pattern="^[0-9a-f]{64}$")  # of its weights: `load` may be another folder elsewhere


class Lora(Section):
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
    lora: Lora
    collect: Collect
    normalize: Normalize
    condition: Condition
    sample: Sample
    tasks: dict[Annotated[str, Field(pattern=r"^\w[\w.-]*$")], Known]  # by name, which stands in paths
    measured: dict[str, Any] = {}  # what the run's report measured, as its metrics.json has it

    @staticmethod
    def load(folder: Path) -> "Config":
        """Raises a UserError if the folder is no generator's."""
        if not (file := folder / FILE).is_file():
            raise UserError(f"{folder}: no {FILE}; allowed: the folder of a generator, as `condpdiff pack` writes it")
        config = parse(Config, read_json(file), str(file))
        for name, known in config.tasks.items():
            parse(module("task", config.domain).Task, known.settings, str(file), f"tasks.{name}.settings")
        return config


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the first column on the left and numbers on the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(["", *(f"| {' | '.join(cells)} |" for cells in lines)])
