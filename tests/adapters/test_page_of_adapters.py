"""docs/adapters.md: its commands run, and say what stands there; numbers may be others."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from condpdiff.cli import app
from tests.adapters.conftest import ROOT, save_run
from tests.adapters.stand_ins_adapters import save_adapters, style_transformer, write_run
from tests.stand_ins import make_task, make_zoo

PAGE = (ROOT / "docs/adapters.md").read_text(encoding="utf-8")


def test_commands_of_the_page_say_what_it_says(text_run: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("condpdiff.adapters.exporting.push", lambda out, hub: hub)
    save_run("text", "mine", make_task())
    write_run("mine", make_zoo(Path("data/base"))[0])
    save_adapters(Path("runs/mine"), 12, names="checkpoint-{}0")
    save_adapters(Path("data/adapters"), 1, names="mine")
    commands = re.findall(r"^\$ (condpdiff .*?)(?: +#.*)?$((?:\n(?!\$|```).+)*)", PAGE, re.MULTILINE)
    assert len(commands) == 7
    for command, said in commands:
        if "use_dora" in said and not Path("runs/mine/run-2").exists():
            shutil.rmtree("runs")
            save_adapters(Path("runs/mine"), 4, names="run-{}")
            save_adapters(Path("runs/mine"), 2, names="run-{}", use_dora=True)
            shutil.rmtree("runs/mine/run-1")
        result = CliRunner().invoke(app, command.split()[1:])
        assert result.exit_code == ("error: " in said), result.output
        for line in said.strip().splitlines():
            assert re.sub(r"[\d,]+", "N", line) in re.sub(r"[\d,]+", "N", result.output)


def test_the_page_s_way_into_diffusers_works(style_run: None) -> None:
    style_transformer(1).save_lora_adapter("source")
    result = CliRunner().invoke(app, ["export", "source", "out/lora", "--format", "diffusers"])
    assert result.exit_code == 0, result.output
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["model"].peft_config["default_0"].lora_alpha == 4  # type: ignore[attr-defined]
