"""`condpdiff study`: the paper's tables as lists of DVC experiments."""

from enum import StrEnum
from typing import Annotated

import typer

from condpdiff.common.errors import run

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


class Size(StrEnum):
    EMBEDDED = "embedded"
    PAPER = "paper"


Study = Annotated[str, typer.Argument(metavar="NAME", help="A study; `condpdiff study` lists them.")]
SizeOption = Annotated[Size, typer.Option("--size", help="The paper's models and tasks, or ones for two cores.")]


@app.callback(invoke_without_command=True)
def list_command(context: typer.Context) -> None:
    """The paper's tables, each a list of DVC experiments: list them, run what is missing, show them beside the paper's.

    \b
    Examples:
      condpdiff study                          list them
      condpdiff study run table3               run the rows that are missing
      condpdiff study show table3              our table beside the paper's

    A study is a file of configs/studies/: rows, and the keys that each of them changes.
    """
    if context.invoked_subcommand is None:
        run(_list)


@app.command("run")
def run_command(
    name: Study,
    size: SizeOption = Size.EMBEDDED,
    row: Annotated[list[str] | None, typer.Option("--row", help="This row alone; may be given again.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="So many at a time, with DVC's queue; each needs its memory.")] = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Replace experiments of these names and other settings.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the commands; run nothing.")] = False,
) -> None:
    """Run a study's missing experiments, each as `dvc exp run --temp`; the working tree stays as it is.

    An experiment that has a row's settings is that row, whatever its name and whichever study it was run for, and is
    never run again. Ctrl-C stops at once; run again to go on. Logs: .dvc/tmp/studies/.

    \b
    Examples:
      condpdiff study run table4b --dry-run
      condpdiff study run table3 --row n-1 --row n-150
      condpdiff study run noise --jobs 2
    """
    run(lambda: _run(name, size, row or [], jobs, force, dry_run))


@app.command("show")
def show_command(
    name: Study,
    size: SizeOption = Size.EMBEDDED,
    md: Annotated[bool, typer.Option("--md", help="Markdown, for docs/studies.md (also the default).")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="One line a row, seed, arm and task.")] = False,
    html: Annotated[bool, typer.Option("--html", help="A self-contained page.")] = False,
) -> None:
    """Show a study's table: ours with mean and spread over seeds, the paper's beside it, and which stages had to run.

    Rows that are missing are marked; nothing has to be there.

    \b
    Examples:
      condpdiff study show table4a
      condpdiff study show table3 --html > table3.html
    """
    run(lambda: _show(name, size, md, csv, html))


def _list() -> None:
    from condpdiff.experiments.study_plan import about, study_names

    names = study_names()
    width = max(map(len, names), default=0)
    for name in names:
        typer.echo(f"{name:<{width}}  {about(name)}")


def _run(name: str, size: Size, rows: list[str], jobs: int, force: bool, dry_run: bool) -> None:
    from condpdiff.experiments.study_plan import load_study, pick_rows
    from condpdiff.experiments.study_run import run_rows

    run_rows(pick_rows(load_study(name, size.value), rows), jobs, force, dry_run, typer.echo)


def _show(name: str, size: Size, md: bool, csv: bool, html: bool) -> None:
    from condpdiff.common.errors import UserError
    from condpdiff.experiments import study_results as results
    from condpdiff.experiments import study_table as table
    from condpdiff.experiments.study_plan import load_study

    if md + csv + html > 1:
        raise UserError("--md, --csv, --html: found several, allowed: one")
    found = results.read(load_study(name, size.value))
    typer.echo(results.long_csv(found) if csv else table.html(found) if html else table.markdown(found), nl=False)
