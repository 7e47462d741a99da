"""The domains behind the one DAG: `domain: text | style` of params.yaml picks the package whose modules stages call.

Every domain is a package of the same modules, each with the same entry points:

    task        load_task                   what a task file says
    data        prepare_data                rows of a task, in splits train, held_out and validation
    sources     (data's)                    where they come from
    description inputs, shown               what the condition is made of
    encoder     load_encoder                the condition's encoder
    base        prepare_base                the pre-trained model
    models      TASK_TYPE, CARD             where the LoRA goes
    rows        read_rows                   prepared rows, back from disk
    finetune    finetune                    one task's zoo
    metrics     (score's, evaluation's)
    score       Scorer                      merge a vector of LoRA weights, and score it
    evaluation  evaluate                    every arm's candidates, by one rule
    between     unseen_inputs, score_between    what lies between two tasks
    probe       nonsense_inputs, load_score     what the condition does
    report      make                        the page
"""

from importlib import import_module
from typing import Any

from condpdiff.common.settings import domain


def module(name: str, of: str | None = None) -> Any:
    """The module `name` of a domain, by default params.yaml's; dvc.yaml has it as `condpdiff/${domain}/<name>.py`."""
    return import_module(f"condpdiff.{of or domain()}.{name}")
