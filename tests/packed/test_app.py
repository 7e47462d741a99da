"""The page of `condpdiff app` in headless Chromium, on tiny generators of random weights."""

import io
import shutil
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from condpdiff.cli import app
from condpdiff.common.files import read_tensors
from condpdiff.packed.generator import CHECKPOINTS, Generator
from condpdiff.packed.refine import answers
from condpdiff.style.images import SUFFIXES, encode_png
from tests.packed.tiny_generators import SCORES, style_generator, text_generator
from tests.style.stand_ins_style import CAPTIONS, SIZE, make_images, save_style_base

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
pytest.importorskip("gradio", reason="`pip install 'condpdiff[app]'`")
ours = import_module("condpdiff.packed.app")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: `apt install chromium`")


@pytest.fixture(scope="module")
def text(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return text_generator(tmp_path_factory.mktemp("text") / "generator", base("bert"))


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    folder = tmp_path_factory.mktemp("style")
    return style_generator(folder / "generator", save_style_base(folder / "base"))


def base_of(generator: Generator) -> Path:
    return Path(generator.config.base.load)


def test_half_the_scale_is_half_the_effect_and_0_is_no_lora_beside_a_soup(text: Generator) -> None:
    lora = text.generate("films")[0]
    whole, half = lora.state_dict(), lora.with_theta(lora.scaled(0.5), {}).state_dict()
    for key in (key for key in whole if ".lora_B." in key):
        a = key.replace(".lora_B.", ".lora_A.")
        assert (half[key] @ half[a]).allclose(0.5 * whole[key] @ whole[a])
    found = answers(text, lora, base_of(text), 0.0, "the plot was  lovely", "")
    none, soup, generated = found.values()
    assert list(found) == ["no LoRA", "soup of films", "generated"]
    assert none.allclose(generated) and not none.allclose(soup)
    assert float(soup.sum()) == pytest.approx(1)
    assert not answers(text, lora, base_of(text), 1.0, "the plot was lovely", "")["generated"].allclose(none)


def test_conditions_are_mixed_and_the_nearest_style_is_another_that_was_trained_on(style: Generator) -> None:
    assert style.trained == ["waves/2", "waves/3"]  # the first two were held out
    two, none = {"task": "waves/2"}, {"task": "waves/0"}
    ends = {share: ours.style_loras(style, two, none, share, 0)["generated"].theta for share in (0, 0.5, 1)}
    assert ends[0].equal(ours.style_loras(style, two, {}, 0.5, 0)["generated"].theta)
    assert ends[1].equal(ours.style_loras(style, none, {}, 0.5, 0)["generated"].theta)
    assert not ends[0.5].allclose(ends[0]) and not ends[0.5].allclose(ends[1])
    assert list(ours.style_loras(style, two, {}, 0, 0)) == ["generated", "nearest training style, waves/3"]


def test_without_a_lora_images_are_those_of_scale_0(style: Generator) -> None:
    lora = style.generate("waves/2")[0]
    theta = torch.stack([torch.zeros_like(lora.theta), lora.scaled(0), lora.scaled(1)])
    none, nothing, whole = ours.painter(style, base_of(style), tuple(CAPTIONS[:2]), 2, 1.0)(theta)
    assert none.shape == (2, SIZE, SIZE, 3) and np.array_equal(none, nothing) and not np.array_equal(none, whole)


def test_the_nearest_checkpoint_is_told_from_the_packed_ones(text: Generator) -> None:
    lora = text.generate("films")[0]
    theta = read_tensors(text.folder / "zoo/films" / CHECKPOINTS)["theta"].float()
    found = ours.nearest_checkpoint(text, lora.with_theta(theta[1], lora.head))
    assert found is not None and found[0] == 0 and found[1] > 1


# --- the page ---------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hosts that the server connected to, and that the browser asked."""
    found: list[str] = []
    connect = socket.socket.connect

    def spy(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple):
            found.append(str(address[0]))
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", spy)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")  # so that they are put back
    return found


@contextmanager
def served(generator: Generator, asked: list[str]) -> Iterator[Any]:
    """The page; it asks nobody but this machine."""
    page = ours.start(generator, base_of(generator), None)
    try:
        yield page
    finally:
        page.close(verbose=False)
    own = (page.local_url, "data:", "blob:", "127.0.0.1", "localhost", "::1")
    assert all(each.startswith(own) for each in asked), asked


@contextmanager
def opened(generator: Generator, asked: list[str], width: int) -> Iterator[Any]:
    """The page in the browser."""
    from playwright.sync_api import sync_playwright

    with served(generator, asked) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.local_url)
        page.get_by_role("button", name="Generate", exact=True).wait_for()
        yield page
        browser.close()


def generate(page: Any) -> None:
    page.get_by_role("button", name="Generate", exact=True).click()


def adapter_of(page: Any) -> dict[str, Any]:
    """The files of the zip behind the button."""
    label = "Adapter as a zip"
    with page.expect_download() as download:
        page.get_by_role("link", name=label).or_(page.get_by_role("button", name=label)).click()
    archive = zipfile.ZipFile(download.value.path())
    return {Path(name).name: archive.read(name) for name in archive.namelist()}


def refusal(page: Any) -> str:
    """What the page says is wrong, which is then closed."""
    toast = page.get_by_test_id("toast-body")
    toast.first.wait_for()
    said = str(toast.first.inner_text())
    page.get_by_test_id("toast-close").first.click()
    toast.first.wait_for(state="detached")
    return " ".join(said.replace("×", "").split())


@needs_chromium
def test_text_from_the_task_to_the_adapter(text: Generator, asked: list[str]) -> None:
    with opened(text, asked, 390) as page:
        generate(page)
        scores = page.locator("table").first
        scores.wait_for()
        assert f"{SCORES['condpdiff']:.2f}" in scores.inner_text() and "accuracy" in scores.inner_text()
        assert "The nearest checkpoint is " in page.inner_text("body")
        page.get_by_label("A sentence").fill("the film was lovely")
        page.get_by_role("button", name="Compare").click()
        answers = page.locator("table").nth(1)
        answers.wait_for()
        rows = [row.split("\t")[0] for row in answers.inner_text().splitlines()[1:]]
        assert rows == ["no LoRA", "soup of films", "generated"]
        assert "%" in answers.inner_text() and "good" in answers.inner_text()
        files = adapter_of(page)
        assert {"adapter_config.json", "adapter_model.safetensors", "labels.json", "README.md"} <= files.keys()
        assert b"task `films`" in files["README.md"] and b'(base, "adapter")' in files["README.md"]

        page.get_by_label("Task", exact=True).click()
        page.get_by_role("option", name="another one, in words").click()
        generate(page)
        assert "found nothing, allowed: one of task, description and pictures" in refusal(page)
        page.get_by_label("What goes in").fill("was the <b>plot</b> good")
        page.get_by_label("Examples").fill("a lovely plot")
        generate(page)
        assert "example: found 'a lovely plot', allowed: \"text => label\"" in refusal(page)
        page.get_by_label("Examples").fill("a lovely plot => good\n")
        generate(page)
        page.get_by_text("Not trained on").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@needs_chromium
def test_styles_from_pictures_to_the_adapter(style: Generator, asked: list[str], tmp_path: Path) -> None:
    def file(name: str, content: bytes, kind: str = "image/png") -> Any:
        return {"name": name, "mimeType": kind, "buffer": content}

    with opened(style, asked, 1280) as page:
        upload = page.locator("input[type=file]").first
        upload.set_input_files([file("torn.png", b"no picture")])
        generate(page)
        assert refusal(page) == f"Error torn.png: not an image; allowed: {', '.join(SUFFIXES)} of 8, 12, 16 or 32 bits"
        page.get_by_label("Clear").first.click()
        upload.set_input_files([file("notes.txt", b"text", "text/plain")])
        assert "nvalid file type" in refusal(page)
        (large := tmp_path / "large.png").write_bytes(bytes(21 * 2**20))
        upload.set_input_files(large)
        assert "exceed the maximum allowed size of 20.0 Mb" in refusal(page)
        generate(page)
        assert "style: found nothing" in refusal(page)

        upload.set_input_files([file(f"{i}.png", encode_png(image)) for i, image in enumerate(make_images(2, 9))])
        page.get_by_label("Prompts").fill("\n".join(CAPTIONS[:2]))
        page.get_by_role("button", name="More").click()
        page.wait_for_timeout(1000)  # what opens takes its first values after it is shown
        page.get_by_label("Then train it").first.fill("5")
        generate(page)
        page.locator(".caption-label").first.wait_for()
        titles = [caption.partition(": ")[0] for caption in page.locator(".caption-label").all_inner_texts()]
        near = [f"nearest training style, {name}" for name in style.trained]
        assert titles[0:2] == ["no LoRA", "generated"] and titles[2] in near
        assert titles[3] == "generated, then trained 5 steps" and titles[4:] == titles[:4]  # of the second prompt
        files = adapter_of(page)
        assert b"2 pictures" in files["README.md"] and b"5 steps" in files["README.md"]
        (weights := tmp_path / "adapter.safetensors").write_bytes(files["adapter_model.safetensors"])
        assert load_file(weights).keys() == style.generate("waves/2")[0].state_dict().keys()


def test_nobody_else_reaches_it_and_it_serves_no_file_of_the_machine(text: Generator, asked: list[str]) -> None:
    import httpx

    with served(text, asked) as server:
        port, url = server.server_port, server.local_url
        listening = [at.laddr for at in psutil.Process().net_connections() if at.status == psutil.CONN_LISTEN]
        assert [at.ip for at in listening if at.port == port] == ["127.0.0.1"]
        assert httpx.get(url, headers={"Host": "elsewhere.example"}).status_code == 400
        page = httpx.get(url)
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert "googleapis" not in page.text and "cdn" not in page.text.lower()
        for file in (text.folder / "config.json", Path(__file__)):
            assert httpx.get(f"{url}gradio_api/file={file}").status_code in (403, 404)
        large = {"files": ("large.png", io.BytesIO(bytes(21 * 2**20)), "image/png")}
        assert httpx.post(f"{url}gradio_api/upload", files=large).status_code == 413
        taken = CliRunner().invoke(app, ["app", str(text.folder), "--base", str(base_of(text)), "--port", str(port)])
        assert taken.exit_code == 1 and "in use" in str(taken.exception)


def test_without_gradio_one_line_says_how_to_get_it(text: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "condpdiff.packed.app")
    found = CliRunner().invoke(app, ["app", str(text.folder), "--base", str(base_of(text))])
    assert str(found.exception) == "error: this needs gradio: pip install 'condpdiff[app]'"
