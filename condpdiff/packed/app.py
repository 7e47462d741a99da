"""`condpdiff app`: a page on this machine alone that generates LoRAs and shows what they do."""

import base64
import functools
import html
import os
import re
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import read_json
from condpdiff.packed import trying
from condpdiff.packed.generator import MOST_PICTURES, Generator
from condpdiff.packed.trying import GENERATED, NO_LORA
from condpdiff.style.images import SUFFIXES, encode_png

HOST = "127.0.0.1"
MOST_BYTES = "20mb"
"""Of one upload."""
MOST_PROMPTS = 8
PROMPTS = ["a photograph of a cat, whole", "a photograph of a temple, whole", "a photograph of a flower, close-up"]
"""Where the base model brings no captions of its own."""
DESCRIBED = ""
"""The choice of a task that the generator does not know."""
ARMS = {
    "majority": "the most frequent label, or the mean",
    "no_lora": "no LoRA",
    "soup": "soup: the mean of the task's checkpoints",
    "original": "the best checkpoint",
    "condpdiff": "the best generated LoRA",
}
CSS = """
.gradio-container {max-width: 1200px !important}
.images {display: grid; gap: 6px; align-items: end}
.images b, .images span {font-size: .85em; line-height: 1.25; overflow-wrap: anywhere}
.images span {grid-column: 1 / -1; margin-top: 8px}
.images img {width: 100%; border-radius: 4px; display: block}
.numbers {border-collapse: collapse; width: 100%}
.numbers, .numbers tr {border: none !important}
.numbers :is(td, th) {border: solid var(--border-color-primary) !important; border-width: 0 0 1px !important}
.numbers :is(td, th) {padding: 4px 8px; text-align: right}
.numbers :is(td, th):first-child {text-align: left}
"""
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
"""The browser itself refuses to ask anyone else."""


def start(generator: Generator, base: Path, port: int | None, browser: bool = False) -> Any:
    """Serve the page on the loopback interface, and give Gradio's Blocks, which go on in a thread of their own.

    Raises:
        UserError: the port is taken.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    # What is uploaded and made lies in a folder of the page's own: no other file can be asked for.
    scratch = tempfile.TemporaryDirectory(prefix="condpdiff-app-")
    os.environ["GRADIO_TEMP_DIR"] = scratch.name
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    page = build(generator, base, Path(scratch.name))
    page.scratch = scratch  # lives as long as the page
    own = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # none is loaded
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # no other site's name leads here
    try:
        page.launch(
            server_name=HOST, server_port=port, inbrowser=browser, share=False, quiet=True, prevent_thread_lock=True,
            max_file_size=MOST_BYTES, footer_links=[], run_history=False, enable_monitoring=False, mcp_server=False,
            ssr_mode=False, pwa=False, theme=own, css=CSS,
            app_kwargs={"middleware": [hosts, Middleware(_Policy)]},
        )  # fmt: skip
    except OSError:
        raise UserError(f"--port: {port or 'those from 7860'} in use, allowed: a free one") from None
    return page


class _Policy:
    """Adds POLICY to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, sent)


def build(generator: Generator, base: Path, scratch: Path) -> Any:
    """The page, as Gradio's Blocks.

    Args:
        scratch: folder of what it makes.
    """
    import gradio as gr

    with gr.Blocks(title="condpdiff", analytics_enabled=False) as page:
        gr.Markdown(f"# LoRAs for {html.escape(generator.config.base.name)}")
        {"style": _style_page, "text": _text_page}[generator.config.domain](generator, base, scratch)
    return page


def _readable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Errors as one line on the page; those that are not the user's to mend also in the terminal."""
    import gradio as gr

    @functools.wraps(function)
    def run(*given: Any) -> Any:
        try:
            return function(*given)
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
            # Of a file that was uploaded its name alone.
            line = re.sub(rf"{re.escape(os.environ['GRADIO_TEMP_DIR'])}/\w+/", "", first_line(error))
            raise gr.Error(html.escape(line), duration=15, print_exception=False) from None

    return run


def _title(name: str, scale: float) -> str:
    return name + f" × {scale:g}" * (scale != 1)


def _zip(lora: Any, name: str, scale: float, scratch: Path) -> Any:
    """The button for an adapter."""
    import gradio as gr

    file = trying.zipped(lora, scale, Path(tempfile.mkdtemp(dir=scratch)), "adapter")
    return gr.DownloadButton(f"Adapter as a zip ({_title(name, scale)})", value=str(file), visible=True)


# --- styles -------------------------------------------------------------------------------------


def _style_page(generator: Generator, base: Path, scratch: Path) -> None:
    import gradio as gr

    trained = set(generator.trained)
    names = sorted(generator.generated, key=lambda name: (name.partition("/")[0], int(name.partition("/")[2] or 0)))
    choices = [("", "")]
    for name in names:
        what = generator.config.tasks[name.partition("/")[0]].settings["condition"]["description"]
        choices.append((f"{name}: {what}" + " (not trained on)" * (name not in trained), name))

    def style(which: str) -> list[Any]:
        known = f"{'Or ' * (not generator.numbered)}{which} style that is known"
        if generator.numbered:
            return [gr.Dropdown(choices, value="", label=known)]
        gr.Markdown(f"1 to {MOST_PICTURES} pictures of {which} style, of any content")
        look: dict[str, Any] = {"columns": 5, "fit_columns": False, "height": 150, "show_label": False, "buttons": []}
        pictures = gr.Gallery(file_types=list(SUFFIXES), interactive=True, sources=["upload"], type="filepath", **look)
        return [pictures, gr.Dropdown(choices, value="", label=known)]

    captions = base / "captions.json"
    prompts = read_json(captions)[:3] if captions.is_file() else PROMPTS
    with gr.Row():
        with gr.Column(scale=2):
            first = style("a")
            with gr.Accordion("Mix with a second style", open=False):
                second = style("a second")
                share = gr.Slider(0, 1, 0.5, step=0.05, label="Share of the second style")
            asked = gr.Textbox("\n".join(prompts), lines=3, label=f"Prompts, one a line (up to {MOST_PROMPTS})")
            scale = gr.Slider(0, 2, 1, step=0.1, label="Scale of the generated LoRA", info="0: none of its effect")
            with gr.Accordion("More", open=False):
                seed = gr.Number(0, precision=0, label="Seed of the LoRA's noise")
                steps = gr.Slider(0, 200, 0, step=5, label="Then train it on the pictures for so many steps")
                denoising = gr.Slider(1, 50, 10, step=1, label="Denoising steps an image")
                guidance = gr.Slider(1, 10, 1, step=0.5, label="Guidance of the base model", info="1: none")
        with gr.Column(scale=3):
            button = gr.Button("Generate", variant="primary")
            images = gr.HTML(_hint("Images without a LoRA and with the generated one will be here."), min_height=240)
            adapter = gr.DownloadButton("Adapter as a zip", visible=False)
            notes = gr.Markdown()
    loras = gr.State()
    shown = [asked, scale, denoising, guidance]

    def paint(loras: dict[str, Any] | None, text: str, scale: float, *how: float) -> tuple[Any, Any]:
        if not loras:
            return gr.skip(), gr.skip()
        prompts = [line.strip() for line in text.splitlines() if line.strip()]
        if not 1 <= len(prompts) <= MOST_PROMPTS:
            raise UserError(f"prompts: found {len(prompts)}, allowed: 1 to {MOST_PROMPTS}")
        ours = [name for name in loras if name.startswith(GENERATED)]
        theta = [trying.scaled(lora, scale if name in ours else 1) for name, lora in loras.items()]
        made = trying.paint(theta, loras[GENERATED], base, prompts, int(how[0]), how[1])
        titles = [_title(name, scale if name in ours else 1) for name in (NO_LORA, *loras)]
        return _grid(titles, prompts, made), _zip(loras[ours[-1]], ours[-1], scale, scratch)

    def generate(*given: Any, progress: Any = gr.Progress()) -> Any:  # noqa: B008  (where Gradio looks for it)
        *styles, share, seed, steps, text, scale, denoising, guidance = given
        one, other = (_style(part) for part in (styles[: len(first)], styles[len(first) :]))
        progress(0.1, "generating")
        found = trying.style_loras(generator, one, other, share, int(seed or 0))
        if steps:
            progress(0.3, f"training {steps} steps")
            trained = trying.trained_on(generator, found[GENERATED], one, bool(other), int(steps), base)
            found[f"{GENERATED}, then trained {steps} steps"] = trained
        progress(0.7, "images")
        note = generator.note(one if isinstance(one, str) and not other else None, found[GENERATED])
        near = "“Nearest training style” is what this generator makes for it, not the LoRA that was trained."
        return (
            found,
            " ".join([near, f"Measured before: {note}." if note else ""]),
            *paint(found, text, scale, denoising, guidance),
        )

    every = [*first, *second, share, seed, steps, *shown]
    for event in (button.click, share.release):
        event(_readable(generate), every, [loras, notes, images, adapter], show_progress_on=[images])
    scale.release(_readable(paint), [loras, *shown], [images, adapter], show_progress_on=[images])


def _style(given: Sequence[Any]) -> trying.Style:
    """What was given of one style: pictures, a known one, or nothing."""
    name, pictures = given[-1], [Path(path) for path, _ in (given[0] or [])] if len(given) > 1 else []
    if name and pictures:
        raise UserError("style: found pictures and a known style, allowed: one of them")
    return str(name) if name else pictures


def _grid(titles: Sequence[str], prompts: Sequence[str], made: np.ndarray) -> str:
    """Images uint8 [S, U, H, W, 3] as a table of S columns; they stand in the page itself."""
    cells = [f"<b>{html.escape(title)}</b>" for title in titles]
    for u, prompt in enumerate(prompts):
        cells.append(f"<span>{html.escape(prompt)}</span>")
        for title, images in zip(titles, made, strict=True):
            png = base64.b64encode(encode_png(images[u])).decode()
            cells.append(f'<img src="data:image/png;base64,{png}" alt="{html.escape(f"{prompt}: {title}")}">')
    columns = f"grid-template-columns: repeat({len(titles)}, minmax(0, 1fr))"
    return f'<div class="images" style="{columns}">{"".join(cells)}</div>'


# --- text ---------------------------------------------------------------------------------------


def _text_page(generator: Generator, base: Path, scratch: Path) -> None:
    import gradio as gr

    choices = [(name, name) for name in generator.generated]
    if not generator.numbered:
        choices.append(("another one, in words", DESCRIBED))
    with gr.Row():
        with gr.Column(scale=2):
            task = gr.Dropdown(choices, value=choices[0][1], label="Task")
            with gr.Column(visible=False) as words:
                description = gr.Textbox("", lines=3, label="What goes in, and what comes out")
                examples = []
                for i in (1, 2):
                    with gr.Row():
                        text = gr.Textbox("", label=f"Example {i}", scale=2, min_width=120)
                        examples += [text, gr.Textbox("", label=f"Its label {i}", scale=1, min_width=80)]
            seed = gr.Number(0, precision=0, label="Seed of the LoRA's noise")
        with gr.Column(scale=3):
            button = gr.Button("Generate", variant="primary")
            about = gr.HTML(_hint("What is known of the generated LoRA will be here."), min_height=120)
            adapter = gr.DownloadButton("Adapter as a zip", visible=False)
            with gr.Column(visible=False) as trial:
                text = gr.Textbox("", label="A sentence")
                pair = gr.Textbox("", label="The second sentence", visible=False)
                scale = gr.Slider(0, 2, 1, step=0.1, label="Scale of the generated LoRA", info="0: none of its effect")
                ask = gr.Button("Compare")
                answers = gr.HTML(min_height=80)
    lora = gr.State()
    task.change(lambda name: gr.Column(visible=name == DESCRIBED), task, words)

    def generate(name: str, description: str, *more: Any) -> Any:
        *examples, seed, scale = more
        given = [(a.strip(), b.strip()) for a, b in zip(examples[::2], examples[1::2], strict=True)]
        if any(bool(a) != bool(b) for a, b in given):
            raise UserError("example: found one without a label, or a label alone, allowed: both or neither")
        in_words = {"description": description.strip(), "examples": [one for one in given if all(one)]}
        asked: dict[str, Any] = {"task": name} if name != DESCRIBED else in_words
        made = generator.generate(**asked, seed=int(seed or 0))[0]
        columns = generator.config.tasks[made.task.partition("/")[0]].settings["data"].get("columns", {})
        second = gr.Textbox(visible=bool(columns.get("text_pair")))
        about = _about(generator, made, name or None)
        return made, about, gr.Column(visible=True), second, "", _zip(made, GENERATED, scale, scratch)

    def compare(made: Any, text: str, pair: str, scale: float) -> Any:
        if made is None or not text.strip():
            return gr.skip(), gr.skip()
        found = trying.answers(generator, made, base, scale, text, pair)
        labels = made.labels or []
        rows = []
        for name, output in found.items():
            said = labels[int(output.argmax())] if labels else f"{float(output):.2f}"
            rows.append(
                [_title(name, scale if name == GENERATED else 1), said, *(f"{float(p):.1%}" for p in output if labels)]
            )
        return _table(["", "answer", *labels], rows), _zip(made, GENERATED, scale, scratch)

    given = [task, description, *examples, seed, scale]
    button.click(_readable(generate), given, [lora, about, trial, pair, answers, adapter], show_progress_on=[about])
    asked = [lora, text, pair, scale]
    for event in (ask.click, text.submit, pair.submit, scale.release):
        event(_readable(compare), asked, [answers, adapter], show_progress_on=[answers])


def _about(generator: Generator, lora: Any, task: str | None) -> str:
    """What is known of a generated LoRA."""
    far, length = trying.distances(generator, lora)
    parts = [
        f"<p>Its weights are {far:.2f} (L2) from the soup of {html.escape(lora.task)}, the mean of that task's "
        f"checkpoints; without a LoRA it would be {length:.2f}.</p>"
    ]
    if near := trying.nearest_checkpoint(generator, lora):
        far, between = near
        parts.append(
            f"<p>The nearest checkpoint is {far:.2f} away; from one checkpoint to its nearest: {between:.2f}.</p>"
        )
    if note := generator.note(task, lora):
        parts.append(f"<p>Not trained on: {html.escape(note)}.</p>")
    known = generator.config.tasks[lora.task.partition("/")[0]]
    if task and known.scores:
        rows = [[what, f"{known.scores[arm]:.1f}"] for arm, what in ARMS.items() if arm in known.scores]
        parts.append(_table([f"measured when the generator was trained: {known.settings['metrics'][0]}", "%"], rows))
    return "".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{html.escape(cell)}</{kind}>' for cell in cells)}</tr>"

    return f'<table class="numbers">{row(head, "th")}{"".join(row(cells, "td") for cells in rows)}</table>'


def _hint(text: str) -> str:
    return f'<p style="opacity: .6">{text}</p>'
