"""The commands around a generator's folder; each imports what it needs."""

from pathlib import Path
from typing import Annotated

import typer

from condpdiff.common.errors import UserError
from condpdiff.common.files import check_ours

From = Annotated[str, typer.Argument(metavar="GENERATOR", help="Folder of a generator, or its id on the hub.")]
Pictures = Annotated[list[Path] | None, typer.Argument(metavar="[PICTURE]...", help="More pictures of the style.")]
BaseOption = Annotated[Path | None, typer.Option("--base", help="Folder of the base model, if it is elsewhere.")]


def pack(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    push_to_hub: Annotated[str | None, typer.Option(metavar="ID", help="Then upload it to the hub.")] = None,
) -> None:
    """Make a generator's folder of what `dvc repro` left in data/: it works anywhere, without DVC."""
    from condpdiff.packed.pack import pack as write

    config = write(Path("data"), out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    typer.echo(f"{out}: a generator for {', '.join(config.tasks)} ({size:.0f} MB)")
    if push_to_hub is not None:
        from condpdiff.adapters.exporting import push

        typer.echo(f"pushed to {push(out, push_to_hub)}")


def generate(
    generator: From,
    more: Pictures = None,
    task: Annotated[str | None, typer.Option(help="A task that the generator knows.")] = None,
    description: Annotated[str | None, typer.Option(help="A task that it does not know, in words.")] = None,
    example: Annotated[list[str] | None, typer.Option(help='"text => label", beside it; may be given again.')] = None,
    style_image: Annotated[list[Path] | None, typer.Option(help="1 to 10 pictures of a style, or a folder.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="So many adapters.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder to write the adapters to.")] = Path("adapters"),
    select_on: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the best sample on these labelled rows alone.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Then fine-tune on the rows or pictures.")] = None,
    base: BaseOption = None,
) -> None:
    """Generate LoRAs as PEFT adapters: for a known task, for one in words, or for the style of a few pictures.

    \b
      condpdiff generate generator --task movies --samples 20
      condpdiff generate generator --task movies --samples 20 --select-on rows.csv
      condpdiff generate generator --description "Is it spam?" --example "win a prize => yes"
      condpdiff generate generator --style-image one.jpg two.jpg --steps 20
    """
    from condpdiff.packed.generator import Generator
    from condpdiff.style.images import SUFFIXES, pictures_in

    pictures: list[Path] = []
    for path in [*(style_image or []), *(more or [])]:
        if not (inside := pictures_in(path) if path.is_dir() else [path]):
            raise UserError(f"{path}: no pictures in this folder; allowed: {', '.join(SUFFIXES)}")
        pictures += inside
    if steps and not pictures and select_on is None:
        raise UserError("--steps: found no rows to train on, allowed: with --select-on FILE or --style-image")
    check_ours(out)
    model = Generator.from_pretrained(generator)
    if select_on is not None and model.config.domain != "text":
        raise UserError("--select-on: found with a generator of styles, allowed: with a generator of text tasks")
    pairs = [labelled(text) for text in example or []]
    loras = model.generate(task, description=description, examples=pairs, pictures=pictures, samples=samples, seed=seed)
    if note := model.note(task, loras[0]):
        typer.echo(f"note: {note}", err=True)
    made = [(lora, "") for lora in loras]
    if select_on or steps:
        from condpdiff.packed import refine

        where = model.base(base)  # reads its weights, to hold them against the generator's
    if select_on is not None:
        from condpdiff.text.data import read_labelled

        rows = read_labelled(select_on, refine.text_task(loras[0]).data)
        best, better = refine.select(loras, rows, where)
        typer.echo(better)
        made = [refine.train_on_rows(best, rows, where, steps) if steps else (best, "")]
    elif steps:
        from condpdiff.style.data import captions_of

        read, captions = model.read_pictures(pictures), captions_of(pictures)
        made = [refine.train_on_pictures(lora, read, captions, where, steps) for lora in loras]
    for i, (lora, said) in enumerate(made):
        if said:
            typer.echo(said)
        lora.save_pretrained(out / str(i))
    typer.echo(f"{out}: {len(made)} adapter{'s' * (len(made) > 1)}")


def apply(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a PEFT adapter of a text classifier.")],
    text: Annotated[list[str] | None, typer.Option(help="A text; may be given again.")] = None,
    file: Annotated[Path | None, typer.Option(help="Texts: lines of a .txt, or a table's column text.")] = None,
    base: Annotated[Path | None, typer.Option(help="Folder of the base model, or of the generator.")] = None,
    compare: Annotated[list[Path] | None, typer.Option(metavar="ADAPTER", help="Another one beside it.")] = None,
) -> None:
    """Run text adapters on texts: labels with their probabilities, or values."""
    from condpdiff.packed import apply as of

    if (file is None) == (not text):
        raise UserError(f"found {'--text and --file' if text else 'no text'}, allowed: --text TEXT or --file FILE")
    rows = of.read_texts(file) if file else of.rows_of(text or [])
    typer.echo(of.table(rows, {str(each): of.apply(each, rows, base) for each in [adapter, *(compare or [])]}))


def app(
    generator: From,
    port: Annotated[int | None, typer.Option(help="Without it, the first free one from 7860.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address; open nothing.")] = False,
    base: BaseOption = None,
) -> None:
    """Try a generator on a page in the browser, which this machine alone can reach; Ctrl-C ends it."""
    from condpdiff.packed.app import start
    from condpdiff.packed.generator import Generator

    made_by = Generator.from_pretrained(generator)
    page = start(made_by, made_by.base(base), port, not no_browser)
    typer.echo(f"{page.local_url}  (Ctrl-C ends it)")
    page.block_thread()


def labelled(example: str, where: str = "--example") -> tuple[str, str]:
    """Text and label of an example "text => label"; a UserError if it is none."""
    text, arrow, label = (part.strip() for part in example.rpartition("=>"))
    if not (text and arrow and label):
        raise UserError(f'{where}: found {example!r}, allowed: "text => label"')
    return text, label
