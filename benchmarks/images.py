"""What the style domain costs at full size, before it runs: `python -m benchmarks.images [PRESET]`.

Counts operations on the meta device from configs/models/, by default for the preset `style-pixart`: a denoising pass,
an image, a training step, and what a GPU of a data sheet makes of them. No weights are read. docs/scale.md shows a run.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import AutoConfig, AutoModelForTextEncoding

from benchmarks.counting import counted, line, table
from condpdiff.common.errors import UserError, run
from condpdiff.common.settings import read_yaml
from condpdiff.experiments.describe import MODELS
from condpdiff.experiments.presets import load_preset
from condpdiff.style.models import MAX_TOKENS, build_transformer, empty_peft_model
from condpdiff.zoo.checkpoints import layout_of

BF16 = 2  # bytes
GPUS = {"A100 80GB": 312e12, "H100 SXM": 989e12}  # dense bf16 products a second, by data sheet
FRACTION, RANGE = 0.35, (0.2, 0.5)  # of that rate, as in benchmarks.scale: assumed


class Architecture:
    """The parts of a base model on the meta device, from its file of configs/models/."""

    def __init__(self, name: str) -> None:
        path = MODELS / f"{name}.yaml"
        described = read_yaml(path)
        if "block_out_channels" not in described.get("vae", {}):
            raise UserError(f"{path}: vae: found no block_out_channels, allowed: an AutoencoderKL")
        self.config = described["transformer"]
        text = dict(described["text_encoder"])
        with torch.device("meta"):
            self.transformer = build_transformer(self.config)
            self.vae = AutoencoderKL(**described["vae"])
            self.text = AutoModelForTextEncoding.from_config(AutoConfig.for_model(text.pop("model_type"), **text))
        self.side, self.channels = self.config["sample_size"], self.config["in_channels"]
        self.halvings = len(described["vae"]["block_out_channels"]) - 1

    def denoise(self, model: nn.Module, images: int) -> torch.Tensor:
        """One pass of the transformer."""
        with torch.device("meta"):
            return model(
                torch.empty(images, self.channels, self.side, self.side),
                encoder_hidden_states=torch.empty(images, MAX_TOKENS, self.config["caption_channels"]),
                encoder_attention_mask=torch.ones(images, MAX_TOKENS),
                timestep=torch.ones(images, dtype=torch.int64),
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
                return_dict=False,
            )[0]


def operations(base: Architecture, rank: int) -> dict[str, float]:
    """Floating-point operations of one image's share of each kind of work."""

    def on_meta(work: Callable[[], Any]) -> float:
        with torch.device("meta"):
            return float(counted(work))

    pixels = base.side * 2**base.halvings
    latent = (1, base.channels, base.side, base.side)
    lora = empty_peft_model(base.config, rank, rank, "auto")
    for name, parameter in lora.named_parameters():
        parameter.requires_grad_("lora_" in name)
    ids = torch.zeros(1, MAX_TOKENS, dtype=torch.int64, device="meta")
    with torch.no_grad():
        found = {
            "a denoising pass": on_meta(lambda: base.denoise(base.transformer, 1)),
            "decoding an image": on_meta(lambda: base.vae.decode(torch.empty(latent)).sample),
            "encoding an image": on_meta(lambda: base.vae.encode(torch.empty(1, 3, pixels, pixels)).latent_dist.mean),
            "embedding a caption": on_meta(lambda: base.text(input_ids=ids)),
        }
    # Of a LoRA: gradients pass through every layer, and reach the LoRA's weights alone.
    found["a training step"] = on_meta(lambda: base.denoise(lora, 1).float().square().mean().backward())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", default="style-pixart")
    params = load_preset(parser.parse_args().preset).params
    base = Architecture(params.base.name.rpartition("/")[2].lower())
    found = operations(base, params.collect.rank)
    with torch.device("meta"):
        lora = layout_of(empty_peft_model(base.config, params.collect.rank, params.collect.alpha, "auto"))
    passes = params.eval.image_steps * (2 if params.eval.image_guidance > 1 else 1)
    image = passes * found["a denoising pass"] + found["decoding an image"]

    table(("work", "GFLOP"), [(name, f"{value / 1e9:,.0f}") for name, value in found.items()])
    print(line((f"an image: {passes} passes and decoding", f"{image / 1e9:,.0f}")))

    rows = [("LoRA, K", f"{lora.K:,}", "")]
    for name, part in (("transformer", base.transformer), ("autoencoder", base.vae), ("text encoder", base.text)):
        count = sum(p.numel() for p in part.parameters())
        rows.append((name, f"{count:,}", f"{count * BF16 / 1e9:.2f}"))
    table(("part", "parameters", "GB in bf16"), rows)

    rows = []
    for name, rate in GPUS.items():
        low, middle, high = (rate * share / image for share in (RANGE[0], FRACTION, RANGE[1]))
        rows.append((name, f"{middle:.1f} ({low:.1f} to {high:.1f})"))
    table(("GPU", f"images a second (at {RANGE[0]:.0%} to {RANGE[1]:.0%} of the rate)"), rows)


if __name__ == "__main__":
    run(main)
