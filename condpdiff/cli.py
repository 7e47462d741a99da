"""The `condpdiff` command: choose what to run, and see what it asks for and what came out; `dvc repro` runs it."""

import shlex
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from typer.core import TyperGroup

from condpdiff.common.errors import UserError, run
from condpdiff.packed import commands


class OneLine(TyperGroup):
    """Commands whose errors are one line, with status 1."""

    def invoke(self, ctx: Any) -> None:
        run(lambda: super(OneLine, self).invoke(ctx))


# Each command imports what it needs: `condpdiff --help` and errors come at once.
plain: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
app = typer.Typer(cls=OneLine, no_args_is_help=True, add_completion=False, **plain)
study_app = typer.Typer(**plain)
app.add_typer(study_app, name="study")
for command in (commands.pack, commands.generate, commands.apply, commands.app):
    app.command()(command)


class Size(StrEnum):
    EMBEDDED = "embedded"
    PAPER = "paper"


Study = Annotated[str, typer.Argument(metavar="NAME", help="A study; `condpdiff study` lists them.")]
SizeOption = Annotated[Size, typer.Option("--size", help="The paper's models and tasks, or ones for two cores.")]


@app.callback(epilog="First: condpdiff preset smoke, condpdiff describe, dvc repro")
def main() -> None:
    """Conditional LoRA parameter generation as a DVC pipeline; params.yaml is the only truth of a run."""


@app.command("preset", epilog="Example: condpdiff preset smoke --dry-run")
def preset_command(
    name: Annotated[str | None, typer.Argument(help="Preset to apply; without it, list them.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing.")] = False,
) -> None:
    """List the presets, or make params.yaml one of them: configs/default.yaml with the preset's keys for its."""
    from condpdiff.experiments.presets import about, apply, as_dvc_options, changes, load_preset, preset_names

    if name is None:
        _list(preset_names(), about)
        return
    done = (changes if dry_run else apply)(load_preset(name))
    for change in done:
        typer.echo(f"{change.key}: {'(none)' if change.old is None else change.old} -> {change.new}")
    if not done:
        typer.echo(f"params.yaml is already preset {name}")
    elif dry_run:
        typer.echo(f"\nNothing is written. For one experiment instead:\n{shlex.join(as_dvc_options(done))}")
    else:
        typer.echo(f"params.yaml is now preset {name}; see `condpdiff describe`, run `dvc repro`")


@app.command("describe", epilog="Example: condpdiff describe --preset roberta-base-r2")
def describe_command(
    preset: Annotated[str | None, typer.Option("--preset", help="Describe this preset; params.yaml stays.")] = None,
) -> None:
    """Tell what a run asks for: base model, K, tasks, and where their input comes from. Nothing is fetched or run."""
    from condpdiff.experiments.describe import describe
    from condpdiff.experiments.params import load_params
    from condpdiff.experiments.presets import load_preset

    loaded = load_preset(preset) if preset else None
    found = describe(loaded.params, loaded.tasks) if loaded else describe(*load_params())
    typer.echo(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=100).rstrip())


@app.command("launch", epilog="Example: condpdiff launch finetune-collect --local 4")
def launch_command(
    stages: Annotated[list[str] | None, typer.Argument(metavar="STAGE", help="These and what they need.")] = None,
    study: Annotated[str | None, typer.Option("--study", metavar="NAME", help="A study's missing runs.")] = None,
    size: SizeOption = Size.EMBEDDED,
    local: Annotated[int | None, typer.Option("--local", min=1, help="Without Slurm: N at a time, here.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the commands; run nothing.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Tell which jobs wait, run or failed.")] = False,
) -> None:
    """Run what is out of date as Slurm jobs, one for each instance of a stage, or side by side on this machine.

    Leave the working tree alone until they have ended. configs/cluster/launch.yaml says what each stage's jobs ask for.
    """
    from condpdiff.experiments import launch
    from condpdiff.experiments.study_plan import load_study

    if study and stages:
        raise UserError("STAGE, --study: found both, allowed: one")
    if status:
        launch.tell(typer.echo)
        return
    if there := launch.queue(strict=not local):
        says = "wait, or `scancel` them; --status shows them"
        raise UserError(f"Slurm still has jobs of this folder, {len(there)}: {says}")
    jobs = launch.study_jobs(load_study(study, size.value), typer.echo) if study else launch.stage_jobs(stages or [])
    launch.start(jobs, local, dry_run, typer.echo)


@study_app.callback(invoke_without_command=True, epilog="Example: condpdiff study run table3")
def study_command(context: typer.Context) -> None:
    """The paper's tables, each a list of DVC experiments, a file of configs/studies/; without a command, list them."""
    from condpdiff.experiments.study_plan import about, study_names

    if context.invoked_subcommand is None:
        _list(study_names(), about)


@study_app.command("run", epilog="Example: condpdiff study run noise --jobs 2")
def study_run_command(
    name: Study,
    size: SizeOption = Size.EMBEDDED,
    row: Annotated[list[str] | None, typer.Option("--row", help="This row alone; may be given again.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="So many at a time; each needs its memory.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the commands; run nothing.")] = False,
) -> None:
    """Run a study's missing experiments, each in a folder of its own; the working tree stays as it is.

    An experiment that has a row's settings is that row, whatever its name. Ctrl-C stops; run again to go on.
    """
    from condpdiff.experiments import launch
    from condpdiff.experiments.study_plan import load_study, pick_rows

    missing = launch.study_jobs(pick_rows(load_study(name, size.value), row or []), typer.echo)
    launch.start(missing, jobs, dry_run, typer.echo)


@study_app.command("show", epilog="Example: condpdiff study show table3 --csv > docs/studies/table3.csv")
def study_show_command(
    name: Study,
    size: SizeOption = Size.EMBEDDED,
    csv: Annotated[bool, typer.Option("--csv", help="One line a row, seed, arm and task, for docs/studies.")] = False,
) -> None:
    """Show a study's table: ours with mean and spread over seeds, the paper's beside it, and what had to run."""
    from condpdiff.experiments.study_plan import load_study
    from condpdiff.experiments.study_results import long_csv, markdown, read

    found = read(load_study(name, size.value))
    typer.echo(long_csv(found) if csv else markdown(found), nl=False)


@app.command("import", epilog="Example: condpdiff import runs/movies --task movies")
def import_command(
    source: Annotated[Path, typer.Argument(help="Adapters: a folder, a stacked safetensors, or a .jsonl.")],
    task: Annotated[str, typer.Option("--task", metavar="NAME", help="The task whose checkpoints they are.")],
    skip_odd: Annotated[bool, typer.Option("--skip-odd", help="Leave out what does not fit, and say why.")] = False,
) -> None:
    """Bring LoRA checkpoints of your own: they become the zoo of a task, in place of fine-tuning.

    SOURCE is a folder of adapters (PEFT, diffusers or kohya), a Trainer's folder with checkpoint-N/, a safetensors of
    theta [N, K] with layout.json beside it, or a .jsonl of {id, description, path}.
    """
    from condpdiff.adapters.importing import import_zoo

    import_zoo(source, task, skip_odd, typer.echo)


@app.command("export", epilog="Example: condpdiff export soup:movies out/model --format merged")
def export_command(
    what: Annotated[str, typer.Argument(help="sample:TASK/3, checkpoint:TASK/150, soup:TASK, or an adapter's path.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    form: Annotated[str, typer.Option("--format", help="peft, diffusers, kohya or merged.")] = "peft",
    between: Annotated[str | None, typer.Option("--between", help="A second LoRA, named as WHAT is.")] = None,
    at: Annotated[float, typer.Option("--at", min=0, max=1, help="How far on the way to it: 0 to 1.")] = 0.5,
    hub: Annotated[str | None, typer.Option("--push-to-hub", metavar="ID", help="Upload it to the hub.")] = None,
) -> None:
    """Write a LoRA as files for other libraries; each export is loaded again before it takes its name.

    Samples and checkpoints count from 1. merged is a plain transformers folder with its tokenizer (text); diffusers and
    kohya are one file (styles).
    """
    from condpdiff.adapters.exporting import export, push

    export(what, out, form, between, at)
    typer.echo(f"{out}: {form}, loaded again without a key too many or too few")
    if hub is not None:
        typer.echo(f"pushed to {push(out, hub)}")


def _list(names: list[str], about: Callable[[str], str]) -> None:
    for name in names:
        typer.echo(f"{name:<{max(map(len, names))}}  {about(name)}")
