"""The commands around a generator's folder; each imports what it needs."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from condpdiff.common.errors import UserError

if TYPE_CHECKING:
    from condpdiff.packed.generator import Generator
    from condpdiff.packed.lora import Lora

From = Annotated[str, typer.Argument(metavar="GENERATOR", help="Folder of a generator, or its id on the hub.")]
Pictures = Annotated[list[Path] | None, typer.Argument(metavar="[PICTURE]...", help="More pictures of the style.")]
BaseOption = Annotated[Path | None, typer.Option("--base", help="Folder of the base model, if it is elsewhere.")]


def pack(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    push_to_hub: Annotated[str | None, typer.Option(metavar="ID", help="Then upload it to the hub.")] = None,
) -> None:
    """Make a generator's folder of what `dvc repro` left in data/: it works anywhere, without DVC.

    \b
    Examples:
      condpdiff pack generator
      condpdiff generate generator --task movies --out adapters
    """
    from condpdiff.packed.pack import pack as write

    config = write(Path("data"), out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    typer.echo(f"{out}: a generator for {', '.join(config.tasks)} ({size:.0f} MB)")
    if push_to_hub is not None:
        from condpdiff.packed.generator import Generator

        Generator(out).push(push_to_hub)
        typer.echo(f"uploaded to {push_to_hub}")


def generate(
    generator: From,
    more: Pictures = None,
    task: Annotated[str | None, typer.Option(help="A task that the generator knows.")] = None,
    description: Annotated[str | None, typer.Option(help="A task that it does not know, in words.")] = None,
    example: Annotated[
        list[str] | None, typer.Option(help='A labelled example beside it: "text => label"; may be given again.')
    ] = None,
    style_image: Annotated[
        list[Path] | None, typer.Option(help="1 to 10 pictures of a style, or a folder of them.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="So many adapters.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder to write the adapters to.")] = Path("adapters"),
    select_on: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the best sample on these labelled rows alone.")
    ] = None,
    count_passes: Annotated[bool, typer.Option("--count-passes", help="Say what racing saved.")] = False,
    steps: Annotated[int, typer.Option(help="Then fine-tune so many steps on the rows or pictures.")] = 0,
    base: BaseOption = None,
) -> None:
    """Generate LoRAs as PEFT adapters: for a known task, for one in words, or for the style of a few pictures.

    \b
    Examples:
      condpdiff generate generator --task movies --samples 20
      condpdiff generate generator --task movies --samples 20 --select-on rows.csv
      condpdiff generate generator --description "Is it spam?" --example "win a prize => yes"
      condpdiff generate generator --style-image one.jpg two.jpg --steps 20
    """
    from condpdiff.packed.generator import Generator

    pictures = _pictures([*(style_image or []), *(more or [])])
    if select_on is None and count_passes:
        raise UserError("--count-passes: found without --select-on, allowed: with it")
    if steps and not pictures and select_on is None:
        raise UserError("--steps: found no rows to train on, allowed: with --select-on FILE or --style-image")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: found a folder that is not empty, allowed: a new one (--out)")
    made_by = Generator.from_pretrained(generator)
    loras = made_by.generate(
        task,
        description=description,
        examples=[_example(text) for text in example or []],
        pictures=pictures,
        samples=samples,
        seed=seed,
    )
    if note := made_by.note(task, loras[0]):
        typer.echo(f"note: {note}", err=True)
    if select_on is not None or steps:
        loras = _refined(made_by, loras, select_on, count_passes, pictures, steps, base)
    for i, lora in enumerate(loras):
        lora.save_pretrained(out / str(i))
    typer.echo(f"{out}: {len(loras)} adapter{'s' * (len(loras) > 1)}")


def apply(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a PEFT adapter of a text classifier.")],
    text: Annotated[list[str] | None, typer.Option(help="A text; may be given again.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Texts: .txt with one a line, or .csv, .tsv, .jsonl or .parquet with a column text."),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Folder of the base model, or of the generator, if the base is elsewhere.")
    ] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(metavar="ADAPTER", help="Another one beside it; may be given again.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run text adapters on texts: labels with their probabilities, or values.

    \b
    Examples:
      condpdiff apply adapters/0 --text "a film to remember" --text "two hours too long"
      condpdiff apply original --compare soup --compare adapters/0 --file reviews.csv --base bert
    """
    from condpdiff.packed import apply as of

    if (file is None) == (not text):
        raise UserError(f"found {'--text and --file' if text else 'no text'}, allowed: --text TEXT or --file FILE")
    rows = of.read_texts(file) if file else of.rows_of(text or [])
    said = {str(each): of.apply(each, rows, base) for each in [adapter, *(compare or [])]}
    typer.echo(of.as_json(rows, said) if as_json else of.table(rows, said))


def app(
    generator: From,
    port: Annotated[int | None, typer.Option(help="Without it, the first free one from 7860.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address; open nothing.")] = False,
    base: BaseOption = None,
) -> None:
    """Try a generator on a page in the browser, which this machine alone can reach; Ctrl-C ends it.

    \b
    Examples:
      condpdiff app generator
      condpdiff app generator --port 8000 --no-browser
    """
    if find_spec("gradio") is None:
        raise UserError("gradio: not installed; `pip install 'condpdiff[app]'`")
    from condpdiff.packed.app import start
    from condpdiff.packed.generator import Generator

    made_by = Generator.from_pretrained(generator)
    page = start(made_by, made_by.base(base), port, not no_browser)
    typer.echo(f"{page.local_url}  (Ctrl-C ends it)")
    page.block_thread()


def _refined(
    made_by: "Generator",
    loras: "list[Lora]",
    select_on: Path | None,
    count_passes: bool,
    pictures: list[Path],
    steps: int,
    base: Path | None,
) -> "list[Lora]":
    """The best of them, and what training on makes of them."""
    from condpdiff.packed import refine

    rows, where = None, None
    if select_on is not None:
        if made_by.config.domain != "text":
            raise UserError("--select-on: found with a generator of styles, allowed: with a generator of text tasks")
        from condpdiff.text.data import read_labelled

        rows = read_labelled(select_on, refine.text_task(loras[0]).data)
        where = made_by.base(base)  # reads its weights, to hold them against the generator's
        found = refine.select(loras, rows, where)
        typer.echo(
            f"sample {found.index} of {len(loras)}: {found.metric} {found.best:.2f} on {len(rows)} rows, "
            f"{found.best - found.others:+.2f} against the mean of those that were scored on all"
        )
        if count_passes:
            saved = 1 - found.passes / found.full
            typer.echo(f"{found.passes} of {found.full} rows went through the model: racing saved {saved:.0%}")
        loras = [loras[found.index]]
    if not steps:
        return loras
    where, done = where or made_by.base(base), []
    if rows is not None:
        results, of = (refine.train_on_rows(lora, rows, where, steps) for lora in loras), "held-out rows"
    else:
        read, captions, of = made_by.read_pictures(pictures), captions_of(pictures), "pictures"
        results = (refine.train_on_pictures(lora, read, captions, where, steps) for lora in loras)
    for trained in results:
        typer.echo(f"{steps} steps: loss {trained.before:.4f} -> {trained.after:.4f} on {trained.rows} {of}")
        done.append(trained.lora)
    return done


def _pictures(given: list[Path]) -> list[Path]:
    """The pictures, and of each folder those in it, by name."""
    from condpdiff.style.images import SUFFIXES

    found: list[Path] = []
    for path in given:
        inside = [p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES] if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path}: no pictures in this folder; allowed: {', '.join(SUFFIXES)}")
        found += inside
    return found


def captions_of(pictures: list[Path]) -> list[str]:
    """Of each picture what the `.txt` file of its name says, or a neutral caption."""
    from condpdiff.style.images import NEUTRAL

    texts = [path.with_suffix(".txt") for path in pictures]
    return [text.read_text(encoding="utf-8").strip() if text.is_file() else NEUTRAL for text in texts]


def _example(text: str) -> tuple[str, str]:
    before, arrow, label = text.rpartition("=>")
    if not arrow or not before.strip() or not label.strip():
        raise UserError(f'--example: found {text!r}, allowed: "text => label"')
    return before.strip(), label.strip()
