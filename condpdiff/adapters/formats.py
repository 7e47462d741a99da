"""LoRA files as people have them, read and written.

PEFT        a folder: adapter_model.safetensors, adapter_config.json
diffusers   pytorch_lora_weights.safetensors, of diffusers' training scripts and SimpleTuner
kohya       one file of keys `lora_unet_...lora_down.weight`, with an alpha beside each matrix

Pickles are never opened. What a merge W0 + (alpha / r) B A does not hold is an error that names it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import open_tensors, read_json, read_tensors, write_tensors
from condpdiff.zoo.adapters import CONFIG, LABELS, PEFT_FILE
from condpdiff.zoo.placed import PREFIX

ONE_FILE = "pytorch_lora_weights.safetensors"
FILES = (PEFT_FILE, ONE_FILE, "adapter_model.bin", "pytorch_lora_weights.bin")
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
METADATA = "lora_adapter_metadata"  # where diffusers keeps PEFT's configuration inside its file
IGNORED = (
    "auto_mapping base_model_name_or_path inference_mode peft_type peft_version revision lora_alpha lora_dropout r "
    "modules_to_save target_modules task_type exclude_modules corda_config eva_config init_lora_weights loftq_config "
    "fan_in_fan_out layers_pattern lora_ga_config megatron_core ensure_weight_tying qalora_group_size runtime_config"
)
"""Keys of PEFT's configuration, as words, that change nothing of W0 + (alpha / r) B A; any other one must be empty."""
STARTS = (None, True, False, "gaussian", "eva", "orthogonal")  # ways of drawing A and B that leave W0 as it is
HEADS = ("classifier", "classifier.out_proj", "classification_head.out_proj", "score", "logits_proj")
"""What transformers calls the last layer of a classifier."""


@dataclass(frozen=True)
class Adapter:
    """One LoRA, and the head that was trained with it."""

    tensors: dict[str, Tensor]  # LoRA matrices and head by PEFT key, without an adapter's name: float32
    config: dict[str, Any]  # `rank` and `alpha`; `target_modules`, `modules_to_save` and `task_type` as PEFT has them
    base: str | None = None  # what the base model is called; None where a file does not say
    labels: list[str] | None = None  # class names in the order of their indices

    def matrices(self, prefix: str) -> dict[str, Tensor]:
        """Those of the LoRA alone, with another prefix than PEFT's."""
        return {prefix + k.removeprefix(PREFIX): tensor for k, tensor in self.tensors.items() if ".lora_" in k}


def is_adapter(path: Path) -> bool:
    """Whether a file or folder looks like one adapter, readable or not."""
    return (path.suffix == ".safetensors" and path.is_file()) or any((path / f).is_file() for f in (CONFIG, *FILES))


def head_width(tensors: Mapping[str, Tensor]) -> int | None:
    """C of a classifier's last layer [C, d]; None without one."""
    return next((len(tensors[key]) for head in HEADS if (key := f"{PREFIX}{head}.weight") in tensors), None)


def read_labels(folder: Path) -> list[str] | None:
    """Class names of an adapter's `labels.json`, in order; None without one. Raises a UserError if it is odd."""
    if not (file := folder / LABELS).is_file():
        return None
    found = read_json(file)
    if not isinstance(found, dict) or set(found) != {str(i) for i in range(len(found))}:
        of = ", ".join(found) if isinstance(found, dict) else repr(found)[:60]
        raise UserError(f"{file}: found labels of {of}, allowed: of 0, 1 and so on")
    return [str(found[str(i)]) for i in range(len(found))]


def in_header(path: Path, key: str) -> dict[str, Any]:
    """The JSON that a safetensors file has in its header, {} where there is none; a UserError if it is odd."""
    with open_tensors(path) as file:
        said = (file.metadata() or {}).get(key, "{}")
    try:
        return dict(json.loads(said))
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{path}: {key}: found {said[:60]!r}, allowed: a configuration in JSON") from None


def as_alpha(found: Any, path: Path) -> float:
    """A LoRA's alpha; a UserError if it is no number."""
    try:
        return float(found)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{path}: alpha: found {found!r}, allowed: a number") from None


def read_adapter(path: Path) -> Adapter:
    """Read a PEFT folder, a folder with a diffusers file, or one file of diffusers' or kohya's keys.

    Rank and alpha are what the configuration says, else the tensors; alpha is the rank where nothing says it. Raises a
    UserError if there is no adapter, it is a pickle, can't be read, or is more than W0 + (alpha / r) B A.
    """
    if path.is_dir() and not is_adapter(path):  # an adapter of another name than `default` lies in a folder of that
        inside = [each for each in path.iterdir() if each.is_dir() and is_adapter(each)]
        if len(inside) != 1:
            raise UserError(f"{path}: no adapter in it, allowed: {CONFIG} with {PEFT_FILE}, or {ONE_FILE}")
        path = inside[0]
    file = next((path / name for name in FILES if (path / name).is_file()), path)
    if file.suffix in PICKLES and file.is_file():
        raise UserError(f"{file}: a pickle, which may run code when it is opened; allowed: safetensors")
    if (path / CONFIG).is_file():
        config, found, where = read_json(path / CONFIG), read_tensors(path / PEFT_FILE), path / CONFIG
    else:
        path = where = file
        config = {re.sub(r"^(transformer|unet)\.", "", k): value for k, value in in_header(path, METADATA).items()}
        found = read_tensors(path)
    if not isinstance(config, dict) or (kind := config.get("peft_type") or "LORA") != "LORA":
        raise UserError(f"{where}: peft_type: found {kind if isinstance(config, dict) else config!r}, allowed: LORA")
    if (start := config.get("init_lora_weights")) not in STARTS:
        raise UserError(f"{where}: init_lora_weights: found {start!r}, which changes the base model as well")
    for key, value in config.items():
        if key not in IGNORED.split() and value and value != "none":
            raise UserError(f"{where}: {key}: found {value!r}, allowed: a LoRA without it; B A alone is merged")
    alphas = [t.item() for key, t in found.items() if key.endswith(".alpha") and t.numel() == 1]
    if path == file:
        found = _as_peft(found, path)
    tensors = {}
    for key, tensor in found.items():
        if not tensor.is_floating_point():
            raise UserError(f"{path}: {key}: found {tensor.dtype}, allowed: float32, float16, bfloat16")
        key = re.sub(r"\.(lora_[AB])\.[^.]+\.(weight|bias)$", r".\1.\2", key)  # a file may hold the adapter's name
        tensors[re.sub(r"\.modules_to_save\.[^.]+\.", ".", key)] = tensor.float()
    ranks = {key: len(torch.atleast_1d(t)) for key, t in tensors.items() if key.endswith(".lora_A.weight")}
    if not ranks:
        raise UserError(f"{path}: no LoRA matrix in it, found: {', '.join([*tensors][:2]) or 'nothing'}")
    if {*ranks.values()} != {rank := config.get("r", min(ranks.values()))}:
        shown = ", ".join(map(str, sorted({*ranks.values()})))
        raise UserError(f"{path}: found matrices of rank {shown}, allowed: {rank} for all")
    if len(set(alphas)) > 1 or (alphas and len(alphas) != len(ranks)):
        raise UserError(f"{path}: found alphas {sorted(set(alphas))} on {len(alphas)} modules, allowed: one for all")
    names = sorted(key.removeprefix(PREFIX).removesuffix(".lora_A.weight") for key in ranks)
    about = {"rank": int(rank), "target_modules": config.get("target_modules") or names}
    about |= {key: config.get(key) for key in ("modules_to_save", "task_type")}
    about["alpha"] = as_alpha(config.get("lora_alpha", min(alphas, default=rank)), path)
    labels = read_labels(path if path.is_dir() else path.parent)
    return Adapter(tensors, about, config.get("base_model_name_or_path"), labels)


def _as_peft(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Keys of diffusers or kohya -> PEFT's keys, without alphas."""
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    # OneTrainer calls a transformer what it is, kohya's scripts call it a U-Net.
    found = {re.sub("^lora_transformer_", "lora_unet_", key): tensor for key, tensor in tensors.items()}
    if any(key.startswith(("lora_unet_", "lora_te")) for key in found):
        try:
            found, _ = _convert_non_diffusers_lora_to_diffusers(found)
        except Exception as error:  # tensors of other shapes raise half a dozen kinds
            raise UserError(f"{path}: keys that diffusers can't convert: {first_line(error)[:200]}") from None
    found = {key: tensor for key, tensor in found.items() if not key.endswith(".alpha")}
    if not any(".lora_A." in key for key in found):
        found = convert_unet_state_dict_to_peft(found)
    return {PREFIX + re.sub(r"^(transformer|unet|base_model\.model)\.", "", key): t for key, t in found.items()}


def write_diffusers(adapter: Adapter, folder: Path) -> None:
    """Write `pytorch_lora_weights.safetensors` as diffusers does: keys `transformer.<module>.lora_A.weight`."""
    from diffusers.loaders.lora_base import LoraBaseMixin

    about, layers = adapter.config, {"transformer": adapter.matrices("")}
    config = {"r": about["rank"], "lora_alpha": about["alpha"], "target_modules": about["target_modules"]}
    LoraBaseMixin._save_lora_weights(folder, layers, {"transformer": config}, weight_name=ONE_FILE)  # type: ignore[arg-type]
    (folder / ONE_FILE).chmod(0o644)


def write_kohya(adapter: Adapter, folder: Path) -> None:
    """Write the same file under kohya's keys."""
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

    found = convert_state_dict_to_kohya(adapter.matrices("unet."))
    alphas = {key: torch.tensor(adapter.config["alpha"]) for key in found if key.endswith(".alpha")}  # diffusers': rank
    write_tensors(folder / ONE_FILE, found | alphas)
