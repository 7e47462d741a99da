"""The arms: their names, order, words, colours and marks stand here alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    what: str  # what the report says of it
    colours: tuple[str, str]  # light and dark; no other arm may have the same light one
    marker: str = "o"  # Matplotlib's
    drawn: bool = True  # it has several candidates


OURS = "condpdiff"
ARMS = {  # LoRA vectors, in the order of every table
    "original": Arm("single checkpoints of the zoo", ("#2563eb", "#6ea8fe")),
    "soup": Arm("the mean of all N checkpoints", ("#0f8a5f", "#3ddc97"), "s", drawn=False),
    "soup_16": Arm("means of 16 random checkpoints", ("#0891a8", "#38d4ea"), "P"),
    "gaussian": Arm(
        "draws from a normal distribution fitted to each coordinate of the zoo", ("#7c3aed", "#b18cff"), "^",
    ),
    "pca_gaussian": Arm(
        "draws from a normal distribution on the zoo's first principal axes (`eval.pca_axes`)", ("#c0268f", "#f472c8"),
        "v",
    ),
    "checkpoint_noise": Arm(
        "checkpoints with random noise on them, as far from a checkpoint as the generated ones are",
        ("#4d7c0f", "#a3d94a"), ">",
    ),
    "ae_reconstruction": Arm("checkpoints after the autoencoder, D(E(w))", ("#96720a", "#e0b93b")),
    "zero_decode": Arm(
        "zeros in place of a decoded vector, denormalised: the soup itself under `normalize.method: task`, the mean of "
        "all tasks' soups under `shared`",
        ("#7a5c48", "#c9a48c"), "X", drawn=False,
    ),
    OURS: Arm("generated: noise, denoised under the task's condition and decoded", ("#e8590c", "#ff8a3d"), "D"),
}  # fmt: skip
CONTROLS = ["soup", "soup_16", "gaussian", "pca_gaussian", "checkpoint_noise"]  # they need no trained generator
MADE = [name for name, arm in ARMS.items() if arm.drawn and name != "original"]
"""Arms of several candidates that are no checkpoints."""
BARE = {  # no LoRA vectors; they come first in every table
    "majority": "the most frequent class of the training rows (regression: their mean), no model",
    "no_lora": "the base model with the task's trained head and no LoRA",
}
WHAT = BARE | {name: arm.what for name, arm in ARMS.items()}
"""Every arm in the order of tables, and what it is."""
