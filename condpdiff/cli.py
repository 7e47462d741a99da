"""The `condpdiff` command: choose what to run, and see what it asks for; `dvc repro` runs it."""

import json
import os
from typing import Annotated

import typer

from condpdiff.common.errors import run
from condpdiff.experiments import cli_study
from condpdiff.experiments.params import load_params
from condpdiff.experiments.presets import about, apply, as_dvc_options, changes, load_preset, preset_names

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(cli_study.app, name="study")


@app.callback()
def main() -> None:
    """Conditional LoRA parameter generation as a DVC pipeline.

    params.yaml is the only truth of a run. Start in the root of the repository:

    \b
      condpdiff preset            the presets: the paper's models and ranks, a smoke run
      condpdiff preset smoke      make params.yaml that run
      condpdiff describe          what params.yaml asks for, and what is already there
      dvc repro                   run it
      condpdiff study             the paper's tables: run their rows, show them beside the paper's
    """


@app.command("preset")
def preset_command(
    name: Annotated[str | None, typer.Argument(help="Preset to apply; without it, list them.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the presets.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing.")] = False,
) -> None:
    """List the presets, or make params.yaml one of them.

    params.yaml becomes configs/default.yaml with the preset's keys in place of its: changes of your own to other keys
    go back to the default. Comments and layout stay. NAME-rR is preset NAME at rank R.

    \b
    Examples:
      condpdiff preset
      condpdiff preset smoke --dry-run     what would change, and the same as `dvc exp run -S ...`
      condpdiff preset bert-base-r4        BERT-base at rank 4 (Table 1)
      condpdiff preset default             back to the defaults
    """
    run(_lister if list_ or name is None else lambda: _apply(name, dry_run))


@app.command("describe")
def describe_command(
    preset: Annotated[str | None, typer.Option("--preset", help="Describe this preset; params.yaml stays.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a run asks for: model, K, tasks, where input comes from, disk and memory, and which stages will run.

    Nothing is downloaded, and no stage runs.

    \b
    Examples:
      condpdiff describe
      condpdiff describe --preset roberta-base-r2
      condpdiff describe --json | jq .lora.K
    """
    run(lambda: _describe(preset, as_json))


def _lister() -> None:
    names = preset_names()
    width = max(map(len, names))
    for name in names:
        typer.echo(f"{name:<{width}}  {about(name)}")


def _apply(name: str, dry_run: bool) -> None:
    preset = load_preset(name)
    done = changes(preset) if dry_run else apply(preset)
    for change in done:
        typer.echo(f"{change.key}: {'(none)' if change.old is None else change.old} -> {change.new}")
    if not done:
        typer.echo(f"params.yaml is already preset {name}")
    elif dry_run:
        typer.echo(f"\nNothing is written. For one experiment instead:\n{as_dvc_options(done)}")
    else:
        typer.echo(f"params.yaml is now preset {name}; see `condpdiff describe`, run `dvc repro`")


def _describe(preset: str | None, as_json: bool) -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from condpdiff.experiments.describe import describe, render

    if preset is None:
        params, tasks = load_params()
    else:
        loaded = load_preset(preset)
        params, tasks = loaded.params, loaded.tasks
    told = describe(params, tasks, stages=preset is None)
    typer.echo(json.dumps(told, indent=2, ensure_ascii=False) if as_json else render(told))
