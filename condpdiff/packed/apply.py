"""What text adapters say of texts: labels with their probabilities, or values."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from huggingface_hub import HfApi, constants
from peft import PeftModel, get_peft_model_state_dict

from condpdiff.adapters.formats import CONFIG, HEADS, PEFT_FILE, head_width, read_labels
from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import as_spelt, read_json, read_tensors
from condpdiff.common.hardware import device
from condpdiff.common.tables import read_table
from condpdiff.text.models import Batches, load_model, load_tokenizer
from condpdiff.zoo.adapters import LABELS

LONGEST, BATCH = 512, 4096  # tokens of a text, which is cut there; padded tokens a forward pass
TOP, WIDTH = 3, 48  # labels, and characters of a text, that a table shows


def read_texts(path: Path) -> pd.DataFrame:
    """Texts of a file, as `rows_of` gives them: of a .txt its lines, of a table columns `text` and `text_pair`.
    Raises a UserError if the file can't be read, or has no texts."""
    if not (path := as_spelt(path)).is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix.lower() == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 at byte {error.start}; allowed: UTF-8 text") from None
        frame = pd.DataFrame({"text": [line for line in lines if line.strip()]})
    else:
        frame = read_table(path, str(path))
    if "text" not in frame or frame.empty:
        raise UserError(f"{path}: found {len(frame)} rows of {', '.join(map(str, frame))}; allowed: rows of text")
    found = rows_of(*(frame[column].tolist() for column in ("text", "text_pair") if column in frame))
    for column in found:
        for number, text in enumerate(found[column], start=1):
            if not isinstance(text, str):
                raise UserError(f"{path}: row {number}: {column}: found {text!r}, allowed: text")
    return found


def rows_of(texts: Sequence[str], pairs: Sequence[str] | None = None) -> pd.DataFrame:
    """Texts as `apply` takes them: columns `text` and `text_pair`, "" where there is none."""
    return pd.DataFrame({"text": texts, "text_pair": pairs or [""] * len(texts)}, dtype=object)


@torch.inference_mode()
def apply(adapter: Path, rows: pd.DataFrame, base: Path | None = None) -> pd.DataFrame:
    """Run a PEFT adapter of a text classifier, of which safetensors and JSON alone are read, on V rows as `rows_of`'s.

    `base` is the folder of its base model, or of the generator that made it; by default, what the adapter names. Gives
    float32 [V, C] with a column a class: its probabilities; or [V, 1]: values. Raises a UserError if there is no such
    adapter, it is of another kind, or its base can't be had or does not fit.
    """
    settings = read_json(adapter / CONFIG)
    if (kind := settings.get("task_type") if isinstance(settings, dict) else settings) != "SEQ_CLS":
        raise UserError(f"{adapter / CONFIG}: task_type: found {kind!r}, allowed: 'SEQ_CLS', classifiers of text")
    tensors = read_tensors(adapter / PEFT_FILE)
    if (count := head_width(tensors)) is None:
        raise UserError(f"{adapter}: no classifier among its tensors, allowed: {' or '.join(HEADS)}")
    labels = read_labels(adapter)
    if count > 1 and labels and len(labels) != count:
        raise UserError(f"{adapter / LABELS}: found {len(labels)} labels, allowed: {count}, as the classifier has")
    if base and not base.is_dir():
        raise UserError(f"--base: no such folder {str(base)!r}")
    if base and (base / "config.json").is_file() and "format" in read_json(base / "config.json"):
        from condpdiff.packed.generator import Generator

        base = Generator(base).base()
    name = str(base or settings.get("base_model_name_or_path"))
    try:
        if not Path(name).is_dir() and not constants.HF_HUB_OFFLINE:
            HfApi().model_info(name, timeout=10)  # downloads would try six times
        model, _ = load_model(Path(name), count)
        tokenizer = load_tokenizer(Path(name))
    except Exception as error:  # transformers and the hub's client raise dozens of kinds
        own = "--base FOLDER gives its own, or that of the generator which made the adapter"
        raise UserError(f"{adapter}: base model {name!r} can't be loaded ({first_line(error)}); {own}") from None
    model.config.pad_token_id = tokenizer.pad_token_id
    labels = labels or [model.config.id2label[i] for i in range(count)]  # type: ignore[index]
    try:
        loaded = PeftModel.from_pretrained(model, str(adapter)).eval().to(device())
    except Exception as error:  # PEFT and torch raise a dozen kinds
        raise UserError(f"{adapter}: does not fit the base model {name!r} ({first_line(error)})") from None
    if wrong := sorted(tensors.keys() ^ get_peft_model_state_dict(loaded).keys()):
        raise UserError(f"{adapter}: does not fit the base model {name!r}: {wrong[0]!r} is in one of them alone")
    batches = Batches(rows, tokenizer, min(LONGEST, tokenizer.model_max_length), BATCH)
    logits = batches.outputs(loaded)
    if count == 1:
        return pd.DataFrame({"value": logits[:, 0]})
    return pd.DataFrame(torch.from_numpy(logits).softmax(1).numpy(), columns=pd.Index(labels))


def table(rows: pd.DataFrame, said: dict[str, pd.DataFrame]) -> str:
    """A line a text, a column an adapter, aligned: the value, or the TOP labels, the likeliest first."""
    texts = [" / ".join(filter(None, pair)) for pair in rows.itertuples(index=False)]
    columns = [["text", *(text if len(text) <= WIDTH else text[: WIDTH - 1] + "…" for text in texts)]]
    for name, found in said.items():
        if found.shape[1] == 1:
            shown = [f"{value:.3f}" for value in found.iloc[:, 0]]
        else:
            likeliest = (row.sort_values(ascending=False, kind="stable")[:TOP] for _, row in found.iterrows())
            shown = [", ".join(f"{label} {p:.3f}" for label, p in row.items()) for row in likeliest]
        columns.append([name, *shown])
    widths = [max(map(len, column)) for column in columns]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in zip(*columns, strict=True))
