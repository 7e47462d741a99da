"""A small PixArt, trained on crops of real photographs by `configs/models/<name>.yaml`: `base: {source: trained}`.

Beside what diffusers writes of a pipeline:

captions.json    every caption that the model knows: prompts for scoring
samples.png      real crops, the same through the autoencoder, and generated images below; prompts and seeds inside
autoencoder.csv, denoiser.csv   the two training curves
"""

import inspect
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from condpdiff.common.errors import UserError, nearest
from condpdiff.common.files import write_json
from condpdiff.common.hardware import device
from condpdiff.common.pretrained import load_pretrained
from condpdiff.common.settings import Section, parse, read_yaml
from condpdiff.common.training import adamw, fit
from condpdiff.style import models
from condpdiff.style.images import save_png
from condpdiff.style.photographs import photographs

MODELS = Path("configs/models")
CLASSES = {"transformer": PixArtTransformer2DModel, "vae": AutoencoderTiny, "scheduler": DPMSolverMultistepScheduler}
CAPTIONS, SAMPLES = "captions.json", "samples.png"
SAMPLE_STEPS, SAMPLE_SEEDS = 10, (0, 1, 2)

MUON_RATE = 0.02  # Muon's own; a rate for AdamW says nothing of it, as each of Muon's updates has the same norm
MOMENTUM = 0.95
# Coefficients of the quintic a X + (b X X^T + c (X X^T)^2) X, the steepest at 0 that stay bounded.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class TextEncoder(Section):
    source: Literal["package", "hub", "local"]
    name: str


class Photographs(Section):
    crops: PositiveInt  # crops of each photograph, each moved a little
    seed: NonNegativeInt = 0


class Training(Section):
    steps: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat


class DenoiserTraining(Training):
    caption_dropout: float = Field(ge=0, lt=1)  # share replaced by the empty caption, so that guidance works


class SmallModel(Section):
    """A file of configs/models/ that says how to train a base model."""

    transformer: dict[str, Any]  # arguments of diffusers' classes, see CLASSES
    vae: dict[str, Any]
    scheduler: dict[str, Any]
    text_encoder: TextEncoder
    photographs: Photographs
    autoencoder: Training
    denoiser: DenoiserTraining
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _parts_fit(self) -> "SmallModel":
        for key, kind in CLASSES.items():
            known = sorted(inspect.signature(kind.__init__).parameters.keys() - {"self"})
            for found in getattr(self, key).keys() - set(known):
                raise ValueError(f"{key}: unknown key {found!r}{nearest(found, known)}; see {kind.__name__}")
        for key, needed in (("transformer", "sample_size"), ("vae", "encoder_block_out_channels")):
            if needed not in getattr(self, key):
                raise ValueError(f"{key}: no key {needed!r}")
        channels, latents = self.transformer.get("in_channels"), self.vae.get("latent_channels")
        if channels != latents:
            raise ValueError(f"transformer.in_channels: {channels}, allowed: vae.latent_channels = {latents}")
        return self

    @property
    def size(self) -> int:
        """Pixels a side."""
        return models.image_size(self.transformer, self.vae)


def save_index(folder: Path, text_encoder: str, tokenizer: str, vae: str) -> None:
    """Write model_index.json, by which PixArtAlphaPipeline.from_pretrained reads the folder."""
    ours = {"scheduler": "DPMSolverMultistepScheduler", "transformer": "PixArtTransformer2DModel", "vae": vae}
    index = {part: ["diffusers", kind] for part, kind in ours.items()}
    index |= {"text_encoder": ["transformers", text_encoder], "tokenizer": ["transformers", tokenizer]}
    write_json(folder / "model_index.json", {"_class_name": "PixArtAlphaPipeline", **index})


def load_small_model(name: str) -> SmallModel:
    """Read `configs/models/<name>.yaml`; a UserError if there is no such file, or it does not say how to train."""
    trainable = sorted(p.stem for p in MODELS.glob("*.yaml") if "denoiser" in read_yaml(p))
    if name not in trainable:
        allowed = f"allowed with source: trained: {', '.join(trainable)}"
        raise UserError(f"params.yaml: base.name: found {name!r}{nearest(name, trainable)}, {allowed}")
    return parse(SmallModel, read_yaml(path := MODELS / f"{name}.yaml"), str(path))


def train(name: str, folder: Path) -> None:
    """Text encoder and scheduler as they are, then the autoencoder on crops, then the transformer on their latents."""
    model, where = load_small_model(name), f"{MODELS}/{name}.yaml"
    encoder, key = model.text_encoder.name, f"{where}: text_encoder.name"
    locally = "give it locally as text_encoder: {source: local, name: DIRECTORY}"
    text, tokenizer = load_pretrained(model.text_encoder.source, encoder, key, f"text encoder {encoder!r}", locally)
    if (found := model.transformer.get("caption_channels")) != text.config.hidden_size:
        width = f"the text encoder's {text.config.hidden_size}"
        raise UserError(f"{where}: transformer.caption_channels: found {found}, allowed: {width}")
    text.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    DPMSolverMultistepScheduler(**model.scheduler).save_pretrained(folder / "scheduler")
    save_index(folder, type(text).__name__, type(tokenizer).__name__, "AutoencoderTiny")

    captions, crops = crops_of_photographs(model.photographs, model.size)
    write_json(folder / CAPTIONS, captions)
    pixels = models.to_tensor(crops.reshape(-1, *crops.shape[2:]))  # [U crops, 3, H, W]
    torch.manual_seed(model.seed)
    vae = _train_autoencoder(model, pixels, folder)

    embeddings, mask = models.embed_captions(folder, [*captions, ""])
    caption_of = torch.arange(len(captions)).repeat_interleave(crops.shape[1])
    examples = models.Examples(models.encode_images(vae, pixels), caption_of, embeddings, mask).to(device())
    transformer = _train_denoiser(model, examples, folder)

    # The sheet: a column of each caption.
    real = crops[:, 0]
    restored = models.to_uint8(models.decode_latents(vae, models.encode_images(vae, models.to_tensor(real))))
    pipe, asked, shown = models.pipeline(folder, transformer, vae), examples.embeddings[:-1], examples.mask[:-1]
    made = [models.generate(pipe, asked, shown, [seed] * len(captions), SAMPLE_STEPS, 1.0) for seed in SAMPLE_SEEDS]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in (real, restored, *made)])
    save_png(folder / SAMPLES, sheet, prompts="\n".join(captions), seeds="\n".join(map(str, SAMPLE_SEEDS)))


def crops_of_photographs(settings: Photographs, size: int) -> tuple[list[str], np.ndarray]:
    """The U captions, and each one's crops: uint8 [U, crops, size, size, 3]."""
    rng = np.random.default_rng(settings.seed)
    found = photographs()
    crops = np.stack([[photograph.crop(rng, size) for _ in range(settings.crops)] for photograph in found])
    return [photograph.caption for photograph in found], crops


def _train_autoencoder(model: SmallModel, pixels: Tensor, folder: Path) -> AutoencoderTiny:
    """Train on recoloured crops, and record the scale of the latents of the crops as they are."""
    vae: Any = _fresh_autoencoder(model.vae).to(device())  # type: ignore[arg-type]
    settings, side = model.autoencoder, model.size // 2  # windows of a crop, which cost a quarter

    def loss(network: nn.Module, _: int) -> Tensor:
        top, left = torch.randint(model.size - side + 1, (2,)).tolist()
        crops = pixels[torch.randint(len(pixels), (settings.batch_size,)), :, top : top + side, left : left + side]
        images = recolour(crops.to(device()))
        z = vae.encoder(images)  # [B, C, h, w]
        restored = vae.decoder(z)
        # A pipeline knows one scale for all channels: hold each at mean 0 and variance 1.
        scale = z.mean((0, 2, 3)).square().mean() + (z.std((0, 2, 3)) - 1).square().mean()
        # Differences between neighbouring pixels: blur costs, a shift in colour does not.
        edges = ((restored.diff(dim=d) - images.diff(dim=d)).abs().mean() for d in (2, 3))
        return (restored - images).abs().mean() + 0.5 * sum(edges) + 0.1 * scale

    curve = fit(vae, loss, adamw(vae.parameters(), settings.lr), steps=settings.steps, what="autoencoder")
    curve.to_csv(folder / "autoencoder.csv", index=False)
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=1.0)
    vae.register_to_config(scaling_factor=round(1 / float(models.encode_images(vae, pixels).std()), 6))
    vae.save_pretrained(folder / "vae")
    return vae


def _fresh_autoencoder(config: dict[str, Any]) -> AutoencoderTiny:
    """He's initial values, residual blocks near the identity: without norms torch's own fade from layer to layer."""
    vae = AutoencoderTiny(**config)
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in (m for m in vae.modules() if isinstance(m, AutoencoderTinyBlock)):
        block.conv[-1].weight.data.mul_(0.1)
    return vae


def recolour(images: Tensor) -> Tensor:
    """Half of a batch [B, 3, H, W] in [-1, 1] in other colours, as a style's images have: each with its own saturation
    (grey to doubled), contrast, brightness, and channels in some order, one in four as a negative."""
    count, where = len(images), images.device
    grey = images.mean(1, keepdim=True)
    saturation, contrast, brightness = (torch.rand(3, count, 1, 1, 1, device=where) * 2).unbind()
    order = torch.rand(count, 3, device=where).argsort(1)  # [B, 3]
    changed = grey + saturation * (images - grey)
    changed = changed.gather(1, order[..., None, None].expand_as(changed))
    sign = 1 - 2 * (torch.rand(count, 1, 1, 1, device=where) < 0.25).float()
    changed = (sign * (0.5 + contrast) * changed + 0.5 * (brightness - 1)).clamp(-1, 1)
    return torch.where(torch.rand(count, 1, 1, 1, device=where) < 0.5, changed, images)


def _train_denoiser(model: SmallModel, examples: models.Examples, folder: Path) -> nn.Module:
    """Train the transformer on latents of crops; the last embedding is the empty caption's."""
    transformer: Any = models.build_transformer(model.transformer).to(device())  # type: ignore[arg-type]
    scheduler, settings = models.load_scheduler(folder), model.denoiser
    empty = len(examples.embeddings) - 1

    def loss(network: nn.Module, _: int) -> Tensor:
        batch = examples[torch.randint(len(examples), (settings.batch_size,)).to(device())]
        dropped = torch.rand(len(batch), device=device()) < settings.caption_dropout
        batch = models.Examples(batch.latents, batch.caption.masked_fill(dropped, empty), batch.embeddings, batch.mask)
        timesteps = torch.randint(len(scheduler.alphas_cumprod), (len(batch),)).to(device())
        return models.denoising_errors(network, scheduler, batch, torch.randn_like(batch.latents), timesteps).mean()

    optimizer = MuonAdamW(transformer, settings.lr, inside="transformer_blocks")
    curve = fit(transformer, loss, optimizer, steps=settings.steps, what="denoiser")
    curve.to_csv(folder / "denoiser.csv", index=False)
    transformer.eval().requires_grad_(False).save_pretrained(folder / "transformer")
    return transformer


# --- Muon ---------------------------------------------------------------------------------------


def orthogonalized(g: Tensor, steps: int = 5) -> Tensor:
    """U V^T of each G = U S V^T [B, m, n] float32, with singular values of about 0.7 to 1.2 in place of 1."""
    # Not torch.optim.Muon's, in bf16 and one matrix after another: ten times the training step on many CPUs.
    a, b, c = NEWTON_SCHULZ
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g  # the products are of the short side
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT  # [B, m, m]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonAdamW(torch.optim.AdamW):
    """Muon on the weights of linear layers below `inside`, its own group; AdamW, of rate `lr`, on all other parameters.

    After Jordan et al. (https://kellerjordan.github.io/posts/muon): Nesterov's momentum, whose update is
    orthogonalised. For the small text-to-image model it brings AdamW's loss in half of the steps.
    """

    def __init__(self, model: nn.Module, lr: float, *, inside: str) -> None:
        linear = [m.weight for m in model.get_submodule(inside).modules() if isinstance(m, nn.Linear)]
        known = {id(weight) for weight in linear}
        others = [p for p in model.parameters() if id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": linear, "lr": MUON_RATE}, {"params": others}]
        super().__init__(groups, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)  # as `training.adamw`

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both; a matrix that Muon has moved has no gradient left for AdamW."""
        group = self.param_groups[0]
        moving = [matrix for matrix in group["params"] if matrix.grad is not None]
        for m, n in dict.fromkeys(matrix.shape for matrix in moving):
            matrices = [matrix for matrix in moving if matrix.shape == (m, n)]
            momenta = [self.state[matrix].setdefault("momentum", torch.zeros_like(matrix)) for matrix in matrices]
            gradients: list[Any] = [matrix.grad for matrix in matrices]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            updates = orthogonalized(torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM)))
            torch._foreach_add_(matrices, list(updates.unbind()), alpha=-group["lr"] * math.sqrt(max(1.0, m / n)))
            for matrix in matrices:
                matrix.grad = None
        super().step()
