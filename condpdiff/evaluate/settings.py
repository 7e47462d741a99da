"""Section `eval`: how candidates are scored.

Section `probe`: what the condition does, with the conditions and the statistics swapped.
"""

from pydantic import Field, NonNegativeInt, PositiveInt

from condpdiff.common.settings import Section


class Scoring(Section):
    """The keys of section `eval` that say how one LoRA is scored, whatever it is scored for."""

    batch_tokens: PositiveInt  # tokens a forward pass: rows are batched by length (text domain)
    image_steps: PositiveInt = 10  # denoising steps an image (style domain)
    image_guidance: float = Field(1.0, ge=0)
    """Classifier-free guidance of the text-to-image model; 1: none (style domain)."""


class Eval(Scoring):
    candidates: PositiveInt
    """Candidates of original and of every control that is drawn; as many as `sample.count` for a fair best-of."""
    extra_candidates: PositiveInt  # candidates of ae_reconstruction
    select_rows: PositiveInt  # held-out rows that candidates are selected on
    starts: NonNegativeInt = 4  # unseen members of a family that fine-tuning is started for, from arms that need none
    pca_axes: PositiveInt  # axes of the PCA-Gaussian control
    seed: int = Field(0, ge=0)


NONSENSE, DROPPED = "nonsense", "dropped"
"""Conditions of no task: a description that means nothing, and the null condition of `ldm.condition_dropout`."""


class Probe(Section):
    samples: NonNegativeInt  # LoRAs a cell; 0 probes nothing
    seed: int = Field(0, ge=0)
