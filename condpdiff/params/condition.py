"""Section `condition`: what tells the denoiser which task to generate for (Table 4b)."""

from typing import Literal

from condpdiff.params.section import Section


class Condition(Section):
    kind: Literal["task_info_few_shot", "task_info", "few_shot", "one_hot", "learnable"]
    encoder: Literal["minilm", "clip"]
    """Text encoder of the first three kinds."""
    model: str
    """minilm: `package:NAME`, `hub:ID` or `local-dir:PATH`. clip: `ARCH/PRETRAINED`, or `local-dir:PATH`."""
