"""Conditions of no task: texts that mean nothing."""

from condpdiff.text.conditions import condition_texts

NONSENSE = {  # words at random, in the shape of what `conditions.describe` gives
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


def nonsense_inputs(kind: str) -> list[str]:
    """As the kind of condition has them; none for kinds that read no text."""
    return condition_texts(kind, NONSENSE)
