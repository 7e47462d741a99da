"""Section `condition`: what tells the denoiser which task to generate for (Table 4b)."""

from typing import Literal

from condpdiff.params.section import Section

UNDESCRIBED = ("one_hot", "learnable")
"""Kinds without an encoder: they number the tasks and say nothing of them."""


class Condition(Section):
    kind: Literal["task_info_few_shot", "task_info", "few_shot", "one_hot", "learnable", "style_images"]
    encoder: Literal["minilm", "clip", "efficientnet_lite0", "resnet18"]
    """Text encoder of the first three kinds; image encoder of `style_images`."""
    model: str
    """minilm: `package:NAME`, `hub:ID` or `local-dir:PATH`. clip: `ARCH/PRETRAINED`, or `local-dir:PATH`.
    efficientnet_lite0: `package:NAME` or `local-file:PATH`. resnet18: `torchvision:WEIGHTS` or `local-file:PATH`."""
