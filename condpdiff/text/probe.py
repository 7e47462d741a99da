"""What the condition does to text tasks: descriptions that mean nothing, and the score of a LoRA on one task."""

from pathlib import Path

from torch import Tensor

from condpdiff.evaluate.interpolation import Score, Scoring
from condpdiff.text.conditions import condition_texts
from condpdiff.text.rows import read_rows
from condpdiff.text.score import Scorer
from condpdiff.text.task import Task
from condpdiff.zoo.checkpoints import load_zoo

NONSENSE = {  # words at random, in the shape of what `describe` gives
    "task_info": [
        "Lantern seven the marble under quickly bicycle of which tuesday grows.",
        "Copper because an umbrella fourteen whisper fence, north to spoon.",
        "Violin gravel into ate perhaps window less than oblong harbour.",
    ],
    "few_shot": [
        "Input: ladder green of seldom biscuit Output: hinge\nInput: eleven river carpet whose Output: plum",
        "Input: the anchor slowly pepper by candle Output: tin\nInput: button over wool Output: Wednesday",
    ],
}


def nonsense_inputs(task: Task, kind: str) -> list[str]:
    """Texts that mean nothing, as the kind of condition has them; none for kinds that read no text.

    Args:
        task: any of the run's; domains whose inputs have a size of their own take it from there.
    """
    return condition_texts(kind, NONSENSE)


def load_score(name: str, task: Task, settings: Scoring, data: Path, zoos: Path, base: Path) -> Score:
    """The task's first metric on all its validation rows, in percent, with its own head.

    Args:
        data: folder of the prepared tasks.
        zoos: folder of the tasks' zoos.
    """
    validation = {"validation": read_rows(data / name, "validation")}
    scorer = Scorer(base, load_zoo(zoos / name, 1), task, validation, settings.batch_tokens)

    def score(theta: Tensor | None) -> float:
        scorer.merge(theta)
        return scorer.score("validation", scorer.predict("validation"))[task.metrics[0]]

    return score
