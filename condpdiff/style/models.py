"""What the style domain knows of PixArt: where the LoRA goes, its inputs and its loss, and the pipeline around it.

A base model is a folder as diffusers writes a pipeline: transformer/, vae/, scheduler/, text_encoder/, tokenizer/.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import PixArtAlphaPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.utils import logging
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import Tensor

from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import read_json
from condpdiff.common.hardware import device
from condpdiff.style.images import decoded

# The pipeline warns of an autoencoder and a text encoder that are not PixArt's own; ours are meant.
logging.set_verbosity_error()
logging.disable_progress_bar()

# All projections of both attentions of a block: over the image (attn1) and over the caption (attn2).
ATTENTION = ("to_k", "to_out.0", "to_q", "to_v")
MAX_TOKENS = 120  # tokens a caption, as PixArt was trained
BATCH = 32
PARTS = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer")  # folders of a base model
AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def peft_transformer(base: Path, seed: int, rank: int, alpha: float, asked: str | Sequence[str]) -> PeftModel:
    """The base's transformer with a LoRA of fresh values, which depend on `seed` alone; a UserError if the base is no
    PixArt, or has no module of the names asked for."""
    transformer = load_transformer(base)
    torch.manual_seed(seed)
    return _with_lora(transformer, rank, alpha, asked)


def empty_peft_model(config: Mapping[str, Any], rank: int, alpha: float, asked: str | Sequence[str]) -> PeftModel:
    """The architecture of a transformer's config.json without memory for its weights (meta device), with its LoRA
    placed: for counting K; a UserError if it has no module of the names asked for."""
    with torch.device("meta"):
        return _with_lora(build_transformer(config), rank, alpha, asked)


def _with_lora(transformer: PixArtTransformer2DModel, rank: int, alpha: float, asked: str | Sequence[str]) -> PeftModel:
    where = sorted(ATTENTION if asked == "auto" else set(asked))
    try:
        return get_peft_model(transformer, LoraConfig(r=rank, lora_alpha=alpha, target_modules=where))  # type: ignore[arg-type]
    except ValueError as error:
        found = f"found {asked}: {' '.join(str(error).split())}"
        raise UserError(f"params.yaml: collect.target_modules: {found}") from None


def build_transformer(config: Mapping[str, Any]) -> PixArtTransformer2DModel:
    """A transformer of random weights; keys of older configurations that the class does not know are passed over."""
    known = inspect.signature(PixArtTransformer2DModel.__init__).parameters
    return PixArtTransformer2DModel(**{key: value for key, value in config.items() if key in known})


def check_is_pixart(base: Path, key: str) -> None:
    """Raise a UserError unless the folder `base`, which `key` names, holds a PixArt pipeline."""
    allowed = "allowed: a PixArt pipeline: transformer/, vae/, scheduler/, text_encoder/ and tokenizer/"
    configs = (f"{part}/config.json" for part in ("transformer", "vae", "text_encoder"))
    for file in (*configs, "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"):
        if not (base / file).is_file():
            raise UserError(f"{key}: found {str(base)!r} without {file}, {allowed}")
    config, kind = read_json(base / "transformer/config.json"), read_json(base / "vae/config.json").get("_class_name")
    # PixArt-alpha's published files call the class as early versions of diffusers did.
    found, published = config.get("_class_name"), ("Transformer2DModel", "ada_norm_single")
    if found != "PixArtTransformer2DModel" and (found, config.get("norm_type")) != published:
        raise UserError(f"{key}: found a transformer of class {found}, allowed: PixArtTransformer2DModel")
    if kind not in AUTOENCODERS:
        raise UserError(f"{key}: found an autoencoder of class {kind}, allowed: {' or '.join(AUTOENCODERS)}")


def check_tasks(base: Path, tasks: Mapping[str, Any], rank: int, asked: str | Sequence[str]) -> None:
    """Raise a UserError unless the base model has a place for the LoRA, and makes images of every family's size."""
    config = read_json(base / "transformer/config.json")
    empty_peft_model(config, rank, rank, asked)
    allowed = image_size(config, read_json(base / "vae/config.json"))
    for name, task in tasks.items():
        if task.data.size != allowed:
            key = f"configs/families/{name}.yaml: data.size"
            raise UserError(f"{key}: found {task.data.size}, allowed: {allowed}, as the base model makes images")


def image_size(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """Pixels a side of a base model's images, by the configurations of its parts."""
    blocks = vae.get("block_out_channels") or vae["encoder_block_out_channels"]  # AutoencoderKL's, AutoencoderTiny's
    return int(transformer["sample_size"]) * 2 ** (len(blocks) - 1)


def load_transformer(base: Path) -> Any:
    """The base's PixArtTransformer2DModel, float32, in evaluation mode, on the CPU; a UserError if it can't be read."""
    check_is_pixart(base, "base model")
    return _load(PixArtTransformer2DModel, base / "transformer")


def load_vae(base: Path) -> Any:
    """The base's autoencoder, one of AUTOENCODERS, as `load_transformer`."""
    check_is_pixart(base, "base model")
    return _load(AUTOENCODERS[read_json(base / "vae/config.json")["_class_name"]], base / "vae")


def _load(kind: Any, folder: Path) -> Any:
    try:
        model = kind.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
        return model.eval().requires_grad_(False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        says = f"can't be loaded ({first_line(error)}); remove data/base and run `dvc repro`"
        raise UserError(f"{folder}: {says}") from None


def load_scheduler(base: Path) -> DDPMScheduler:
    """The noise that the base was trained with; the pipeline's own scheduler samples in few steps."""
    return DDPMScheduler.from_config(read_json(base / "scheduler/scheduler_config.json"))


# --- images, captions ---------------------------------------------------------------------------


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [V, H, W, 3] -> float32 [V, 3, H, W] in [-1, 1], as diffusers' autoencoders take them."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(pixels: Tensor) -> np.ndarray:
    """float [V, 3, H, W] in [-1, 1] -> uint8 [V, H, W, 3]; what lies beyond is cut."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().contiguous().numpy()


@torch.no_grad()
def encode_images(vae: Any, images: Tensor) -> Tensor:
    """float [V, 3, H, W] in [-1, 1] -> latents [V, C, h, w] on the autoencoder's device, scaled for the transformer."""
    found = []
    for i in range(0, len(images), BATCH):
        encoded = vae.encode(images[i : i + BATCH].to(vae.device, vae.dtype))
        found.append(encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents)
    return torch.cat(found) * vae.config.scaling_factor


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Latents [V, C, h, w] -> float [V, 3, H, W], about [-1, 1]; `encode_images` is its inverse."""
    parts = latents.to(vae.device, vae.dtype).div(vae.config.scaling_factor).split(BATCH)
    return torch.cat([vae.decode(part).sample for part in parts])


@torch.no_grad()
def embed_captions(base: Path, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The text encoder's last hidden states [V, T, d] float32 and their mask [V, T], both on the CPU; a UserError if it
    can't be loaded. It is dropped after: PixArt's T5 is eight times as large as its transformer."""
    from transformers import AutoModelForTextEncoding, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(base / "tokenizer")
        # T5-XXL is published in float32, 19 GB.
        how: Any = {"dtype": "auto" if device() == "cpu" else torch.bfloat16, "use_safetensors": True}
        encoder = AutoModelForTextEncoding.from_pretrained(base / "text_encoder", **how).eval().to(device())
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:  # T5 asks for sentencepiece
        raise UserError(f"{base}/text_encoder: can't be loaded ({first_line(error)})") from None
    clean = [caption.lower().strip() for caption in captions]  # as PixArtAlphaPipeline does
    tokens = tokenizer(clean, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    mask = tokens["attention_mask"]
    parts = zip(tokens["input_ids"].split(BATCH), mask.split(BATCH), strict=True)
    found = [encoder(i.to(device()), attention_mask=m.to(device()))[0].float().cpu() for i, m in parts]
    return torch.cat(found), mask


@dataclass(frozen=True)
class Examples:
    """Rows of a prepared style as the loss takes them; a caption is embedded once, however many images have it."""

    latents: Tensor  # [V, C, h, w]
    caption: Tensor  # [V] int64: which of the U captions each has
    embeddings: Tensor  # [U, T, d]
    mask: Tensor  # [U, T]

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, rows: Any) -> "Examples":
        return Examples(self.latents[rows], self.caption[rows], self.embeddings, self.mask)

    def to(self, where: str) -> "Examples":
        """The same on another device."""
        return Examples(*(tensor.to(where) for tensor in (self.latents, self.caption, self.embeddings, self.mask)))


def load_examples(base: Path, rows: pd.DataFrame) -> Examples:
    """Images and captions through their encoders, once, on the CPU; raises as loading these does."""
    vae, captions = load_vae(base).to(device()), sorted(set(rows["caption"]))
    embeddings, mask = embed_captions(base, captions)
    number = {caption: i for i, caption in enumerate(captions)}
    # Decoded a batch at a time: a thousand images of 512 x 512 are 3 GB in float32.
    parts = (rows.iloc[i : i + BATCH] for i in range(0, len(rows), BATCH))
    latents = torch.cat([encode_images(vae, to_tensor(decoded(part))).cpu() for part in parts])
    return Examples(latents, torch.tensor(rows["caption"].map(number).tolist()), embeddings, mask)


# --- the loss, the pipeline ---------------------------------------------------------------------


def denoising_errors(transformer: Any, scheduler: Any, examples: Examples, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Mean squared error [V] of what the transformer predicts of latents with noise [V, C, h, w] of the timesteps [V]
    int64, by the scheduler's prediction type."""
    latents = examples.latents
    count, channels, height, width = latents.shape
    about: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if transformer.config.sample_size == 128:  # PixArt's models for 1,024 pixels alone read these
        pixels = latents.new_tensor([[8 * height, 8 * width]]).repeat(count, 1)  # [V, 2]
        about = {"resolution": pixels, "aspect_ratio": latents.new_full((count, 1), height / width)}
    predicted = transformer(
        scheduler.add_noise(latents, noise, timesteps),
        encoder_hidden_states=examples.embeddings[examples.caption],
        encoder_attention_mask=examples.mask[examples.caption],
        timestep=timesteps,
        added_cond_kwargs=about,
        return_dict=False,
    )[0]
    predicted = predicted[:, :channels]  # PixArt's other channels are a variance, which no loss here trains
    target = {"epsilon": noise, "sample": latents}.get(scheduler.config.prediction_type)
    if target is None:
        target = scheduler.get_velocity(latents, noise, timesteps)
    return (predicted - target).pow(2).mean(dim=(1, 2, 3))


def pipeline(base: Path, transformer: torch.nn.Module, vae: Any = None) -> PixArtAlphaPipeline:
    """diffusers' pipeline around a transformer, with or without a LoRA: called with embeddings in place of prompts."""
    scheduler = DPMSolverMultistepScheduler.from_config(read_json(base / "scheduler/scheduler_config.json"))
    parts: Any = {"vae": vae or load_vae(base), "transformer": transformer, "scheduler": scheduler}
    pipe = PixArtAlphaPipeline(tokenizer=None, text_encoder=None, **parts)  # type: ignore[arg-type]
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(
    pipe: PixArtAlphaPipeline,
    embeddings: Tensor,
    mask: Tensor,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    empty: tuple[Tensor, Tensor] | None = None,
) -> np.ndarray:
    """One batch of images through the pipeline: uint8 [V, H, W, 3], each of its own seed, from embeddings [V, T, d] and
    their mask [V, T]. Guidance is 1 for none; above it `empty` is needed: the empty caption's embedding and mask."""
    negative = {}
    if empty is not None:
        keys = ("negative_prompt_embeds", "negative_prompt_attention_mask")
        negative = {key: one.expand(len(mask), *one.shape[1:]) for key, one in zip(keys, empty, strict=True)}
    images = pipe(
        prompt_embeds=embeddings,
        prompt_attention_mask=mask,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt=None,
        output_type="np",
        use_resolution_binning=False,
        **negative,
    ).images
    return (images * 255).round().astype(np.uint8)
