"""Section `ldm`: the latent diffusion model eps_theta (Eq. 8).

Section `condition`: what tells the denoiser which task to generate for (Table 4b).
"""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from condpdiff.common.settings import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class TaskLoss(Section):
    """After reconstruction, training through the base model (`condpdiff.generate.task_loss`)."""

    steps: NonNegativeInt = 0  # 0: reconstruction alone
    tasks: PositiveInt = 4  # S: tasks a step
    rows: PositiveInt = 4  # V: rows a task and step
    fresh: Literal["fresh", "zoo"] = "fresh"  # tasks that are drawn as training goes on, or those of the zoo alone
    origin: Literal["soup", "one_for_all"] = "soup"
    """Where the decoder's mean starts: the mean soup, or one LoRA trained on all tasks' draws."""
    dropout: Share = 0.0  # of a condition's numbers: what several say is learned, and not one alone
    uses: PositiveInt = 8  # steps that see a fresh task before another one takes its place
    sampling_steps: PositiveInt = 4
    """DDIM steps from noise to z_0, the last of them with gradients; those of `sample.steps` should be as many."""
    lr: PositiveFloat = 1e-3
    decoder_lr: PositiveFloat = 3e-4  # of the decoder, whose axes lead from normalised latents to theta


class Ldm(Section):
    channels: tuple[PositiveInt, PositiveInt, PositiveInt]  # at lengths L, L/2, L/4 of the 1-D U-Net
    blocks: PositiveInt = 1  # residual blocks at each length
    prediction: Literal["epsilon", "v_prediction", "sample"]  # of the network; the paper's Eq. 8 is epsilon
    mean: Literal["none", "ridge"] = "ridge"
    """mu(y), round which latents are generated: 0, as in the paper, or ridge regression from the condition."""
    ridge: PositiveFloat = 1e-3  # its penalty, in mean squared distances of the conditions from their mean
    condition_dropout: Share  # of training rows, whose condition is replaced by the null condition
    residual: Literal["diffusion", "none"] = "diffusion"
    """What is round mu(y): what diffusion makes of noise, or nothing (a regression, without noise)."""
    task_loss: TaskLoss = TaskLoss()
    performance: Literal["none", "rank", "loss"]
    """Which figure of a checkpoint is a second condition: its loss on the score-zoo rows, ranked or as it is."""
    performance_dropout: Share = 0.2  # of training rows, which ask for none; guidance goes from these to the good
    ema: Share  # largest decay of the exponential moving average of the weights
    steps: PositiveInt  # of reconstruction
    batch_size: PositiveInt
    lr: PositiveFloat
    seed: NonNegativeInt = 0


UNDESCRIBED = ("one_hot", "learnable")  # kinds without an encoder: they number the tasks and say nothing of them


class Condition(Section):
    kind: Literal["task_info_few_shot", "task_info", "few_shot", "one_hot", "learnable", "style_images"]
    encoder: Literal["minilm", "clip", "efficientnet_lite0", "lite0_depths", "resnet18"]
    """Text encoder of the first three kinds; image encoder of `style_images`. `lite0_depths`: EfficientNet-Lite0's
    means and deviations at every depth, and colours."""
    axes: PositiveInt | None = None
    """Principal axes of the encoder's vectors that make y, each of unit variance; null: its vectors as they are."""
    model: str
    """minilm: `package:NAME`, `hub:ID` or `local-dir:PATH`. clip: `ARCH/PRETRAINED`, or `local-dir:PATH`.
    efficientnet_lite0, lite0_depths: `package:NAME` or `local-file:PATH`. resnet18: `torchvision:WEIGHTS` or
    `local-file:PATH`."""
