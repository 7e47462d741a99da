"""The two domains behind the one DAG: `domain: text | style` of params.yaml picks the package that stages call.

Each domain is a package of modules of the same names, with the same entry points and parameters; a test holds both
packages against the table below. A `task` is always the domain's own, of its `task.Task`. Both domains have families.
Tasks that are none are of text alone, and so are the modules OF_TEXT.
"""

from importlib import import_module
from typing import Any

from condpdiff.common.settings import domain

ENTRY_POINTS = {
    "task": ("Task", "load_task", "check"),  # what a task's file says, and whether params.yaml and all tasks may be so
    "data": ("prepare_data", "needs"),  # rows of a task; needs(task) -> (package | dataset | folder | file, name)
    "base": ("prepare_base",),  # the pre-trained model, in one folder
    "conditions": ("inputs", "shown"),  # what the encoder takes of a task: texts, or stacks of pictures
    "encoder": ("load_encoder", "weights"),  # the condition's encoder, and how much each of its numbers counts
    "models": ("empty_peft_model", "check_tasks"),  # where the LoRA goes, and whether a base model can do all tasks
    "finetune": ("TextFinetuning",),  # of one task: a `zoo.collect.Finetuning`
    "score": ("Scorer", "Panel"),  # the base model of one task, into which LoRAs are merged to be scored
    "families.losses": ("Family",),  # the fine-tuning of a family's members: a `zoo.many.ManyFinetuning`
    "unseen.fresh": ("Draws",),  # the tasks of the task loss: a `generate.task_loss.Draw`
    "unseen.evaluate": ("Evaluation",),  # of a family's members: an `evaluate.family.FamilyEvaluation`
}
OF_TEXT = ("finetune", "score")


def module(name: str, of: str | None = None) -> Any:
    """The module `name` of a domain, by default params.yaml's; dvc.yaml has it as `condpdiff/${domain}/<name>.py`."""
    return import_module(f"condpdiff.{of or domain()}.{name}")
