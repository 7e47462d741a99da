"""prepare-base of a PixArt that is given: brought here as it is, or refused in one line."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from condpdiff.common.files import read_json
from condpdiff.common.task import Base
from condpdiff.style import base as module
from condpdiff.style.base import prepare_base
from condpdiff.style.metrics import FEATURES, INCEPTION
from tests.stand_ins import save_base
from tests.style.stand_ins_style import refusal, save_style_base


def test_local_pixart_is_copied_as_it_is(base: Path, offline: Path) -> None:
    prepare_base(Base(source="local", name=str(base)), Path("base"))
    assert read_json(Path("base/source.json")) == {"source": "local", "name": str(base), "load": "base"}
    for path in base.rglob("*"):
        part = path.relative_to(base).parts[0]
        if path.is_file() and part in (*module.PARTS, "model_index.json"):
            assert (Path("base") / path.relative_to(base)).read_bytes() == path.read_bytes()
    assert not Path("base/captions.json").exists()


def test_folder_that_is_no_pixart_and_unreachable_hub_are_one_line(no_hub: None, offline: Path) -> None:
    save_base("bert", Path("given"))
    said = "params.yaml: base.name: found 'given' without transformer/config.json, allowed: a PixArt"
    assert refusal(Base(source="local", name="given")).startswith(said)
    message = refusal(Base(source="hub", name="some/pixart"))
    assert message.startswith("params.yaml: base.name: base model 'some/pixart' (hub) can't be loaded (")
    assert message.endswith("set base: {source: local, name: DIRECTORY}")


def test_hub_pixart_comes_from_a_snapshot_and_no_other_weights(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    published = save_style_base(offline / "snapshot")

    def snapshot(name: str, allow_patterns: list[str], **_: Any) -> str:
        assert name == "some/pixart"
        asked.extend(allow_patterns)
        return str(published)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    hub = Base(source="hub", name="some/pixart")
    prepare_base(hub, Path("base"))
    assert read_json(Path("base/source.json"))["load"] == "some/pixart"  # what adapters name
    assert {"transformer/*.safetensors", "tokenizer/*.model"} <= set(asked)

    shutil.rmtree("base")
    asked.clear()
    path = published / "transformer/config.json"
    path.write_text(path.read_text().replace("PixArtTransformer2DModel", "UNet2DConditionModel"))
    assert "found a transformer of class UNet2DConditionModel" in refusal(hub)
    assert not any("safetensors" in pattern for pattern in asked)


@pytest.mark.parametrize("asked", ["download", "inception.pt"])
def test_inception_is_brought_here_or_is_one_line(
    asked: str, base: Path, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(folder: str) -> None:
        (Path(folder) / INCEPTION).write_bytes(Path("inception.pt").read_bytes())  # fails without that file

    monkeypatch.setattr("cleanfid.downloads_helper.check_download_inception", download)
    wanted = Base(source="local", name=str(base), inception=asked)
    message = refusal(wanted)
    assert message.startswith(f"params.yaml: base.inception: found {asked!r}: ")
    assert message.endswith(f"allowed: download, or the path of {INCEPTION}")
    Path("inception.pt").write_bytes(b"network")
    prepare_base(wanted, Path("base"))
    assert (Path("base") / FEATURES / INCEPTION).read_bytes() == b"network"
