"""`condpdiff app`: a page on this machine alone that generates LoRAs and shows what they do."""

import functools
import html
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from condpdiff.common.errors import UserError, first_line
from condpdiff.common.files import read_json, read_tensors
from condpdiff.common.task import number
from condpdiff.evaluate.settings import Scoring
from condpdiff.packed import refine
from condpdiff.packed.commands import labelled
from condpdiff.packed.generator import CHECKPOINTS, MOST_PICTURES, Generator, Lora, table
from condpdiff.packed.refine import GENERATED, NO_LORA
from condpdiff.style.images import NEUTRAL, SUFFIXES
from condpdiff.zoo.normalized import load_frame

HOST, MOST_BYTES, MOST_PROMPTS = "127.0.0.1", "20mb", 8  # MOST_BYTES: of one upload
# Where the base model brings no captions of its own.
PROMPTS = ["a photograph of a cat, whole", "a photograph of a temple, whole", "a photograph of a flower, close-up"]
DESCRIBED = ""  # the choice of a task that the generator does not know
# The browser itself refuses to ask anyone else.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
Style = dict[str, Any]  # a style as `Generator.condition` takes it
SCALE: dict[str, Any] = {"label": "Scale of the generated LoRA", "info": "0: none of its effect", "step": 0.1}


def start(generator: Generator, base: Path, port: int | None, browser: bool = False) -> Any:
    """Serve the page on the loopback interface from a thread; gives Gradio's Blocks. A UserError: the port is taken."""
    # What is uploaded and made lies in a folder of the page's own: no other file can be asked for.
    scratch = tempfile.TemporaryDirectory(prefix="condpdiff-app-")
    os.environ |= {"GRADIO_TEMP_DIR": scratch.name, "GRADIO_ANALYTICS_ENABLED": "False"}
    page: Any
    with gr.Blocks(title="condpdiff", analytics_enabled=False) as page:
        gr.Markdown(f"# LoRAs for {html.escape(generator.config.base.name)}")
        {"style": _style_page, "text": _text_page}[generator.config.domain](generator, base)
    page.scratch = scratch  # lives as long as the page
    own = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # none is loaded
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # no other site's name leads here
    try:
        page.launch(
            server_name=HOST, server_port=port, inbrowser=browser, share=False, quiet=True, prevent_thread_lock=True,
            max_file_size=MOST_BYTES, footer_links=[], run_history=False, enable_monitoring=False, mcp_server=False,
            ssr_mode=False, pwa=False, theme=own, css=".gradio-container {max-width: 1200px !important}",
            app_kwargs={"middleware": [hosts, Middleware(BaseHTTPMiddleware, dispatch=_with_policy)]}, show_error=True,
        )  # fmt: skip
    except OSError:
        raise UserError(f"--port: {port or 'those from 7860'} in use, allowed: a free one") from None
    return page


async def _with_policy(request: Any, answer: Any) -> Any:
    found = await answer(request)
    found.headers["content-security-policy"] = POLICY
    return found


@contextmanager
def _told() -> Iterator[None]:
    """The user's errors as one line on the page; of a file that was uploaded its name alone."""
    try:
        yield
    except UserError as error:
        line = re.sub(rf"{re.escape(os.environ['GRADIO_TEMP_DIR'])}/\w+/", "", first_line(error))
        raise gr.Error(html.escape(line), duration=15, print_exception=False) from None


def _title(name: str, scale: float) -> str:
    return name + f" × {scale:g}" * (scale != 1 and name.startswith(GENERATED))


def _zip(lora: Lora, name: str, scale: float) -> gr.DownloadButton:
    out = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]), "adapter")
    how = {} if scale == 1 else {"Scale": f"its effect times {scale:g}, in the weights"}
    lora.with_theta(lora.scaled(scale), lora.head, **how).save_pretrained(out, out.name)
    file = shutil.make_archive(str(out), "zip", out.parent, out.name)
    return gr.DownloadButton(f"Adapter as a zip ({_title(name, scale)})", value=file, visible=True)


def _style_page(generator: Generator, base: Path) -> None:
    choices, trained = [("", "")], generator.trained
    for name in sorted(generator.tasks, key=lambda name: (name.partition("/")[0], number(name))):
        what = generator.known(name).settings["condition"]["description"]
        choices.append((f"{name}: {what}" + " (not trained on)" * (name not in trained), name))

    def style(which: str) -> list[Any]:
        shown = not generator.numbered
        gr.Markdown(f"1 to {MOST_PICTURES} pictures of {which} style, of any content", visible=shown)
        pictures = gr.Gallery(
            show_label=False, file_types=list(SUFFIXES), interactive=True, sources=["upload"], type="filepath",
            columns=5, fit_columns=False, height=150, visible=shown, buttons=[],
        )  # fmt: skip
        return [pictures, gr.Dropdown(choices, value="", label=f"{'Or ' * shown}{which} style that is known")]

    captions = base / "captions.json"
    prompts = read_json(captions)[:3] if captions.is_file() else PROMPTS
    with gr.Row():
        with gr.Column(scale=2):
            one = style("a")
            with gr.Accordion("Mix with a second style", open=False):
                two = style("a second")
                share = gr.Slider(0, 1, 0.5, step=0.05, label="Share of the second style")
            asked = gr.Textbox("\n".join(prompts), lines=3, label=f"Prompts, one a line (up to {MOST_PROMPTS})")
            scale = gr.Slider(0, 2, 1, **SCALE)
            with gr.Accordion("More", open=False):
                seed = gr.Number(0, precision=0, label="Seed of the LoRA's noise")
                steps = gr.Slider(0, 200, 0, step=5, label="Then train it on the pictures for so many steps")
                denoising = gr.Slider(1, 50, 10, step=1, label="Denoising steps an image")
                guidance = gr.Slider(1, 10, 1, step=0.5, label="Guidance of the base model", info="1: none")
        with gr.Column(scale=3):
            button = gr.Button("Generate", variant="primary")
            gr.Markdown("Images without a LoRA and with the generated one")  # a gallery's label lies over its images
            images = gr.Gallery(show_label=False, format="png", height="auto")
            adapter = gr.DownloadButton("Adapter as a zip", visible=False)
            notes = gr.Markdown()
    loras = gr.State()

    @_told()
    def generate(
        pictures: Any, name: str, more: Any, second: str, share: float, seed: float | None, steps: float
    ) -> tuple[dict[str, Lora], str]:
        one, two = _style(pictures, name), _style(more, second)
        found = style_loras(generator, one, two, share, int(seed or 0))
        if steps:
            if two or "task" in one:
                what = "a mixture of two styles" if two else f"the known style {name}"
                raise UserError(f"steps: found {what}, allowed: pictures of one style, which training needs")
            read = generator.read_pictures(one["pictures"])
            trained, _ = refine.train_on_pictures(found[GENERATED], read, [NEUTRAL] * len(read), base, int(steps))
            found[f"{GENERATED}, then trained {steps} steps"] = trained
        said = "“Nearest training style” is what this generator makes for it, not the LoRA that was trained."
        if note := generator.note(None if two else name, found[GENERATED]):
            said += f" Measured before: {note}."
        return found, said

    @_told()
    def show(loras: dict[str, Lora] | None, text: str, scale: float, steps: float, guidance: float) -> Any:
        if not loras:
            return gr.skip(), gr.skip()
        prompts = [line.strip() for line in text.splitlines() if line.strip()]
        if not 1 <= len(prompts) <= MOST_PROMPTS:
            raise UserError(f"prompts: found {len(prompts)}, allowed: 1 to {MOST_PROMPTS}")
        theta = [lora.scaled(scale if name.startswith(GENERATED) else 1) for name, lora in loras.items()]
        painted = painter(generator, base, tuple(prompts), int(steps), guidance)
        made = painted(torch.stack([torch.zeros(generator.layout.K), *theta]))
        last = [name for name in loras if name.startswith(GENERATED)][-1]
        titles = [_title(name, scale) for name in (NO_LORA, *loras)]
        captions = [f"{title}: {prompt}" for prompt in prompts for title in titles]
        images = made.swapaxes(0, 1).reshape(-1, *made.shape[2:])  # a row a prompt
        return gr.Gallery(list(zip(images, captions, strict=True)), columns=len(titles)), _zip(loras[last], last, scale)

    ways: dict[str, Any] = {"inputs": [loras, asked, scale, denoising, guidance], "outputs": [images, adapter]}
    for event in (button.click, share.release):
        made = event(generate, [*one, *two, share, seed, steps], [loras, notes], show_progress_on=[images])
        made.success(show, **ways)
    scale.release(show, **ways)


def _style(pictures: Any, name: str) -> Style:
    if name and pictures:
        raise UserError("style: found pictures and a known style, allowed: one of them")
    return {"task": name} if name else {"pictures": [Path(path) for path, _ in pictures]} if pictures else {}


def style_loras(generator: Generator, one: Style, two: Style, share: float, seed: int) -> dict[str, Lora]:
    """What is generated for a style, or with `share` of the condition of a second, and for the nearest one trained on.

    `two` may be empty. A UserError: none is given, or can't be read.
    """
    if not one:
        raise UserError("style: found nothing, allowed: pictures, or a style that is known")
    y, how = generator.condition(**one)
    if two:
        other, its = generator.condition(**two)
        y, how = torch.lerp(y.mean(0), other.mean(0), share)[None], f"{1 - share:.0%} {how}, {share:.0%} {its}"
    given = one.get("task"), two.get("task")
    near = generator.nearest(y, [name for name in generator.trained if name not in given])
    return {
        GENERATED: generator.from_condition(y, generator.nearest(y), {"Asked with": how}, seed=seed)[0],
        f"nearest training style, {near}": generator.generate(near, seed=seed)[0],
    }


@functools.lru_cache(maxsize=1)
def painter(generator: Generator, base: Path, prompts: tuple[str, ...], steps: int, guidance: float) -> Any:
    """What makes images uint8 [S, U, H, W, 3] of U prompts, with each of S vectors theta [K]."""
    from condpdiff.style.unseen.score import Painter

    lora, scoring = generator.config.lora, Scoring(batch_tokens=1, image_steps=steps, image_guidance=guidance)
    return Painter(base, generator.layout, lora.alpha / lora.rank, list(prompts), scoring)


def _text_page(generator: Generator, base: Path) -> None:
    choices = [(name, name) for name in generator.tasks]
    if not generator.numbered:
        choices.append(("another one, in words", DESCRIBED))
    with gr.Row():
        with gr.Column(scale=2):
            task = gr.Dropdown(choices, value=choices[0][1], label="Task")
            with gr.Column(visible=False) as words:
                description = gr.Textbox("", lines=3, label="What goes in, and what comes out")
                examples = gr.Textbox("", lines=2, label="Examples, one a line: text => label")
            seed = gr.Number(0, precision=0, label="Seed of the LoRA's noise")
        with gr.Column(scale=3):
            button = gr.Button("Generate", variant="primary")
            about = gr.Markdown("What is known of the generated LoRA will be here.", min_height=120)
            adapter = gr.DownloadButton("Adapter as a zip", visible=False)
            text = gr.Textbox("", label="A sentence")
            pair = gr.Textbox("", label="The second sentence, where the task is of pairs")
            scale = gr.Slider(0, 2, 1, **SCALE)
            ask = gr.Button("Compare")
            said = gr.Markdown(min_height=80)
    lora = gr.State()
    task.change(lambda name: gr.Column(visible=name == DESCRIBED), task, words)

    @_told()
    def generate(name: str, description: str, examples: str, seed: float | None, scale: float) -> Any:
        asked: dict[str, Any] = {"task": name}
        if name == DESCRIBED:
            given = [labelled(line, "example") for line in examples.splitlines() if line.strip()]
            asked = {"description": description.strip(), "examples": given}
        made = generator.generate(**asked, seed=int(seed or 0))[0]
        return made, _about(generator, made, name), "", _zip(made, GENERATED, scale)

    @_told()
    def compare(made: Lora | None, text: str, pair: str, scale: float) -> Any:
        if made is None or not text.strip():
            return gr.skip(), gr.skip()
        labels, rows = made.labels or [], []
        for name, output in refine.answers(generator, made, base, scale, text, pair).items():
            answer = labels[int(output.argmax())] if labels else f"{float(output):.2f}"
            rows.append([_title(name, scale), answer, *(f"{float(p):.1%}" for p in output if labels)])
        return table(["", "answer", *labels], rows), _zip(made, GENERATED, scale)

    button.click(generate, [task, description, examples, seed, scale], [lora, about, said, adapter])
    gr.on([ask.click, text.submit, pair.submit, scale.release], compare, [lora, text, pair, scale], [said, adapter])


def _about(generator: Generator, lora: Lora, task: str) -> str:
    """What is known of a LoRA that was generated for a task, or (DESCRIBED) for another one, in Markdown."""
    soup, known = load_frame(generator.folder / "normalized", lora.task).soup, generator.known(lora.task)
    parts = [
        f"Its weights are {float((lora.theta - soup).norm()):.2f} (L2) from the soup of {lora.task}, the mean of that "
        f"task's checkpoints; without a LoRA it would be {float(soup.norm()):.2f}."
    ]
    if near := nearest_checkpoint(generator, lora):
        parts.append("The nearest checkpoint is {:.2f} away; from one checkpoint to its nearest: {:.2f}.".format(*near))
    if note := generator.note(task, lora):
        parts.append(f"Not trained on: {note}.")
    if task and known.scores:
        parts.append(f"Measured when the generator was trained:\n{known.table()}")
    return "\n\n".join(parts)


def nearest_checkpoint(generator: Generator, lora: Lora) -> tuple[float, float] | None:
    """L2 from the LoRA to the nearest checkpoint of its task, and the median of that between checkpoints, if packed."""
    if not (file := generator.folder / "zoo" / lora.task / CHECKPOINTS).is_file():
        return None
    theta = read_tensors(file).get("theta", torch.empty(0)).float()
    if theta.shape[1:] != lora.theta.shape or not len(theta):
        raise UserError(f"{file}: theta: found {list(theta.shape)}, allowed: [N, {len(lora.theta)}]")
    between = torch.cdist(theta, theta).fill_diagonal_(float("inf")).min(1).values.median()
    return float((theta - lora.theta).norm(dim=1).min()), float(between)
