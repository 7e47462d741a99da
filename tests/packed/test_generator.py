"""A generator's folder: nothing in it leads outside, and pictures come with the captions of their folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from condpdiff import Generator
from condpdiff.cli import app
from condpdiff.common.files import read_json, read_tensors, write_json, write_tensors
from condpdiff.packed.config import FILE
from condpdiff.style.data import captions_of
from condpdiff.style.images import encode_png
from tests.messages import message_of
from tests.packed.tiny_generators import style_generator, text_generator
from tests.style.stand_ins_style import make_images, save_style_base


@pytest.mark.parametrize("name", ["../films", "/films", "films/../stars", "..", "films/x"])
def test_names_that_lead_outside_are_one_line(base: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    folder = text_generator(tmp_path / "generator", base("bert")).folder
    file = folder / "conditions/conditions.safetensors"
    y, config = read_tensors(file), read_json(folder / FILE)
    write_tensors(file, {"stars": y["stars"], name: y["films"]})
    assert f"found {name!r}, allowed: the tasks of config.json" in message_of(Generator(folder).generate, name)
    if not name.startswith("films"):
        tasks = {"stars": config["tasks"]["stars"], name: config["tasks"]["films"]}
        write_json(folder / FILE, config | {"tasks": tasks})
        assert "config.json: tasks" in message_of(Generator, folder)
    write_json(folder / FILE, config | {"base": config["base"] | {"sha256": "../" * 5}})
    assert "config.json: base.sha256" in message_of(Generator, folder)


def test_pictures_of_a_folder_train_on_with_the_captions_beside_them(tmp_path: Path) -> None:
    base = save_style_base(tmp_path / "base")
    folder = style_generator(tmp_path / "generator", base).folder
    (pictures := tmp_path / "pictures").mkdir()
    for i, image in enumerate(make_images(2, 9)):
        (pictures / f"{i}.png").write_bytes(encode_png(image))
    paths = sorted(pictures.iterdir())
    assert captions_of(paths) == ["a picture"] * 2
    lines = [json.dumps({"file_name": path.name, "text": f"picture {path.stem}"}) for path in paths]
    (pictures / "metadata.jsonl").write_text("\n".join(lines))
    assert captions_of(paths[1:]) == ["picture 1"]
    words = ["generate", str(folder), "--style-image", str(pictures), "--base", str(base), "--out"]
    made = CliRunner().invoke(app, [*words, str(tmp_path / "out"), "--steps", "2"])
    assert made.exit_code == 0 and "2 steps: loss " in made.output and "on 2 pictures" in made.output, made.output
    assert "2 steps of fine-tuning on 2 pictures" in (tmp_path / "out/0/README.md").read_text()
    (pictures / "0.txt").write_text("another")
    refused = CliRunner().invoke(app, [*words, str(tmp_path / "other"), "--steps", "2"])
    assert "found captions in" in str(refused.exception) and not (tmp_path / "other").exists()
    shutil.rmtree(pictures)
    pictures.mkdir()
    refused = CliRunner().invoke(app, [*words, str(tmp_path / "other")])
    assert "no pictures in this folder" in str(refused.exception)
