"""A page to try the network on: drop a photo, see its clothes, take masks and cut-outs along.

python app.py
python app.py --port 8000 --checkpoint weights.pth
"""

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image

from cloth_segmentation.classes import FEW_CLASSES, ClassSet
from cloth_segmentation.command.outputs import Job
from cloth_segmentation.command.script import one_line, run_script
from cloth_segmentation.command.signals import ignore_stops
from cloth_segmentation.errors import RunError
from cloth_segmentation.pictures import brightened, overlay
from cloth_segmentation.segmenter import PHOTO_ERRORS
from cloth_segmentation.segmenter import Segmenter as LibrarySegmenter
from cloth_segmentation.serve.headers import OwnHeaders
from cloth_segmentation.serve.options import ServeOptions
from infer import Segmentation, Segmenter
from options import AppOptions, parse
from utils.web import StayHere, free_address, keep_swept

if TYPE_CHECKING:
    import gradio as gr
    from fastapi import FastAPI

Limits = AppOptions | ServeOptions
"""What says how large photos may be."""

EXAMPLES = [Path(__file__).parent / "input_images" / name for name in ("astronaut.png", "grace_hopper.jpg")]
"""Photos to try it with: the bundled ones. Others in that folder are someone's own."""

IMAGES = ["image", ".webp", ".jp2", ".jfif", ".tga"]
"""What is taken for a photo at first sight; the last ones are unknown to some systems."""

PREVIEW = 1600
"""Longest side of the pictures on the page, pixels; downloads have the photo's own size."""

SESSIONS = 20
"""Visitors whose last photo stays in memory."""

KEPT = 3600
"""Seconds for which photos, and what was made of them, are kept."""

CSS = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
#too-large ~ #alert { display: none; }
#alert p, #too-large { color: #b91c1c; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.dark #alert p, .dark #too-large { color: #fca5a5; }
#shares p { overflow-wrap: anywhere; }
#shares table { width: 100%; }
#shares :is(th, td) { border-color: var(--border-color-primary) !important; }
#shares :is(th, td) { padding: 8px; text-align: right; white-space: nowrap; }
#shares :is(th, td):first-child { text-align: left; }
#shares i { display: inline-block; width: 1em; height: 1em; margin-right: .5em; vertical-align: -.1em; }
#cutouts .grid-wrap { min-height: 0; }
#cutouts .grid-container { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)) !important; }
#cutouts img { background: repeating-conic-gradient(#bbb 0 25%, #eee 0 50%) 0 0 / 20px 20px; }
@media (max-width: 700px) {  /* one column: what was dropped, what was found, what can be done with it */
  #left, #right { display: contents; }
  #slider { order: 1; }
  #facts { order: 2; }
  #nothing, #cutouts { order: 3; }
}
"""

# Gradio says how many bytes are too many, and no more. This looks at a file before Gradio does.
SCRIPT = """<script>
for (const kind of ["change", "drop"]) window.addEventListener(kind, event => {
  const files = (kind === "drop" ? event.dataTransfer : event.target)?.files;
  if (!files?.length) return;
  document.getElementById("too-large")?.remove();
  const large = [...files].find(file => file.size > LIMIT_BYTES);
  if (!large) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (kind === "change") event.target.value = "";
  const note = Object.assign(document.createElement("p"), {id: "too-large", role: "alert"});
  note.textContent = `${large.name}: expected at most LIMIT_MEGABYTES MB, found ${(large.size / 1e6).toFixed(1)} MB; ` +
    "make it smaller.";
  document.getElementById("drop").after(note);
}, true);
</script>"""


def color_rules(classes: ClassSet) -> str:
    """CSS of the colours of classes, as bright as in overlays."""
    return "".join(
        f"#shares i.class-{number} {{ background: rgb{color}; }}\n"
        for number, color in enumerate(brightened(classes.palette))
    )


class Shown(NamedTuple):
    """What a visitor sees; the photo itself is on disk."""

    one: Segmentation  # all classes
    name: str  # of the photo's file


def sentence(path: Path, error: Exception) -> str:
    """What is wrong with a photo, for the one who dropped it."""
    if isinstance(error, FileNotFoundError):
        found = f"expected the photo that was dropped, found it deleted, as all are after {KEPT // 60} minutes"
    elif isinstance(error, OSError):
        found = f"expected a photo that can be opened, found one that cannot be ({error.strerror})"
    elif isinstance(error, MemoryError):
        found = "expected enough memory for this photo, found too little; make it smaller"
    else:
        found = one_line(str(error).removeprefix(f"{path}: ").replace(str(path), path.name))
    return f"{path.name}: {found}."


def preview(picture: Image.Image, side: int = PREVIEW) -> Image.Image:
    """A picture no larger than the page needs."""
    small = picture.copy()
    small.thumbnail((side, side))
    return small


def plain(text: str) -> str:
    """A text as Markdown that shows it as it is, whatever the name of a file holds."""
    return "".join(each if each.isalnum() or each == " " else f"&#{ord(each)};" for each in text)


def shares_table(facts: dict[str, Any]) -> str:
    """Markdown of the table of shares, which is the legend too. Of many classes, those that are seen have a row."""
    few = len(facts["classes"]) <= FEW_CLASSES
    rows = (
        f"| <i class='class-{each['id']}'></i>{plain(each['name'])} | {each['share']:.1%} | {each['pixels']:,} |\n"
        for each in facts["classes"]
        if few or each["pixels"]
    )
    title = f"{plain(facts['photo'])}, {facts['width']} x {facts['height']} pixels\n\n"
    return title + "| class | share | pixels |\n|---|--:|--:|\n" + "".join(rows)


class Files(NamedTuple):
    """What is made of a photo for the page and for its visitor."""

    slider: tuple[Path, Path]  # photo and overlay, as large as the page needs
    mask: Path  # and what follows, called as infer.py calls it
    json: Path
    cutouts: dict[str, Path]  # by the name of their class, where there is something to cut out
    gallery: list[tuple[Image.Image, str]]  # the same as large as the page needs


def make_files(one: Segmentation, name: str, facts: dict[str, Any]) -> Files:
    """Write them, in a folder of their own; ``name`` is that of the photo's file."""
    folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
    small = folder / "photo.jpg", folder / "overlay.jpg"
    job = Job(Path(name), folder / f"{Path(name).stem}.png")
    files = Files(small, job.path("mask"), job.path("json"), {}, [])
    photo = preview(one.photo)
    labels = Image.fromarray(one.labels).resize(photo.size, Image.Resampling.NEAREST)
    for picture, path in zip(
        (photo, overlay(photo, np.asarray(labels), one.class_set.palette)), files.slider, strict=True
    ):
        picture.save(path, quality=90, subsampling=0)  # the colours of outlines as sharp as the rest
    one.mask().save(files.mask)
    files.json.write_text(json.dumps(facts, indent=2) + "\n")
    for name in one.found:
        cutout = one.cutout(name)
        files.cutouts[name] = job.path("cutout", one.class_set.short_name(name))
        cutout.save(files.cutouts[name], compress_level=3)  # of 9: half the time of 6, files a quarter larger
        files.gallery.append((preview(cutout.crop(cutout.getchannel("A").getbbox()), 800), name))
    return files


def build(segment: LibrarySegmenter, opt: Limits) -> "gr.Blocks":
    """The page."""
    import gradio as gr

    # Pillow refuses larger photos when it has read their header, and cloth_segmentation/photos.py says so.
    Image.MAX_IMAGE_PIXELS = round(opt.max_megapixels * 1e6) // 2  # it warns from here on, and refuses twice as many
    clothes = segment.classes.clothes

    def choice() -> "gr.CheckboxGroup":
        return gr.CheckboxGroup(list(clothes), value=list(clothes), label="Clothes", elem_id="wanted")

    def problem(text: str) -> "gr.Markdown":
        return gr.Markdown(plain(text), visible=True)

    def show(shown: Shown | None, wanted: list[str]) -> dict[Any, Any]:
        """Everything that depends on the classes; the network does not run."""
        if shown is None:
            return {alert: problem("Expected a photo, found none here any more. Please drop it again.")}
        try:
            one = shown.one.only(*wanted)
            facts = one.to_dict() | {"photo": shown.name}
            files = make_files(one, shown.name, facts)
        except PHOTO_ERRORS as error:
            return {alert: problem(sentence(Path(shown.name), error))}
        return {
            state: shown,
            alert: gr.Markdown(visible=False),
            right: gr.Column(visible=True),
            details: gr.Column(visible=True),
            slider: files.slider,
            shares: shares_table(facts),
            mask: files.mask,
            numbers: files.json,
            **{
                button: gr.DownloadButton(value=files.cutouts.get(name), visible=name in files.cutouts)
                for name, button in cutouts.items()
            },
            gallery: gr.Gallery(files.gallery, visible=bool(files.gallery)),
            nothing: gr.Markdown(visible=not files.gallery),
        }

    def segment_file(path: str, wanted: list[str]) -> dict[Any, Any]:
        try:
            shown = Shown(segment(Path(path)), Path(path).name)
        except (*PHOTO_ERRORS, RunError) as error:
            hidden = {part: gr.Column(visible=False) for part in (right, details)}
            return {drop: None, state: None, alert: problem(sentence(Path(path), error)), **hidden}
        return {drop: None} | show(shown, wanted)

    def segment_example(number: int, wanted: list[str]) -> dict[Any, Any]:
        return segment_file(str(EXAMPLES[number]), wanted)

    with gr.Blocks(title="Cloth segmentation", analytics_enabled=False) as page:
        state = gr.State(time_to_live=KEPT)
        gr.Markdown("# Cloth segmentation\nA photo of people in, the shapes of their clothes out.")
        with gr.Row():
            with gr.Column(scale=2, min_width=260, elem_id="left"):
                limits = f"at most {opt.max_megabytes:g} MB and {opt.max_megapixels:g} megapixels"
                drop = gr.File(label=f"A photo, {limits}", file_types=IMAGES, height=150, elem_id="drop")
                alert = gr.Markdown(visible=False, elem_id="alert")
                examples = gr.Dataset(
                    components=[gr.Image(render=False)], samples=[[str(path)] for path in EXAMPLES], type="index",
                    label="Or one of these", elem_id="examples",
                )  # fmt: skip
                with gr.Column(min_width=200, visible=False, elem_id="facts") as details:
                    if len(clothes) <= FEW_CLASSES:
                        wanted = choice()
                    shares = gr.Markdown(elem_id="shares")
                    if len(clothes) > FEW_CLASSES:  # above, they would push the table out of sight
                        wanted = choice()
                    gr.Markdown("Downloads: mask, numbers, cut-outs")
                    with gr.Row(elem_id="downloads"):
                        mask = gr.DownloadButton("Mask", size="md", min_width=120)
                        numbers = gr.DownloadButton("JSON", size="md", min_width=120)
                        cutouts = {n: gr.DownloadButton(n.capitalize(), size="md", min_width=120) for n in clothes}
            with gr.Column(scale=3, min_width=260, visible=False, elem_id="right") as right:
                slider = gr.ImageSlider(
                    label="Photo and clothes", show_label=False, interactive=False, max_height=600,
                    buttons=["fullscreen"], elem_id="slider",
                )  # fmt: skip
                nothing = gr.Markdown("No clothes of these classes were found in this photo.", elem_id="nothing")
                gallery = gr.Gallery(
                    label="Cut-outs", show_label=False, interactive=False, format="png", object_fit="contain",
                    height="auto", buttons=["fullscreen"], elem_id="cutouts",
                )  # fmt: skip
        gr.Markdown(
            f"Weights: {plain(segment.describe())}. Photos stay on this machine, and are deleted after an hour."
        )

        common: dict[str, Any] = {
            "outputs": [
                state, drop, alert, right, details, slider, shares, mask, numbers, *cutouts.values(), gallery, nothing,
            ],
            "concurrency_id": "network",  # of which there is one: one photo at a time
            "concurrency_limit": 1,
            "api_visibility": "private",
        }  # fmt: skip
        drop.upload(segment_file, [drop, wanted], show_progress_on=[drop, slider], **common)
        examples.click(segment_example, [examples, wanted], show_progress_on=[drop, slider], **common)
        wanted.input(show, [state, wanted], show_progress_on=[slider], **common)
    blocks: gr.Blocks = page
    return blocks


def settings(opt: Limits, classes: ClassSet) -> dict[str, Any]:
    """Arguments of Gradio for the page, however it is served."""
    import gradio as gr

    limit = round(opt.max_megabytes * 1e6)
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    script = SCRIPT.replace("LIMIT_BYTES", str(limit)).replace("LIMIT_MEGABYTES", f"{opt.max_megabytes:g}")
    return {
        "max_file_size": limit, "ssr_mode": False, "pwa": False, "mcp_server": False, "enable_monitoring": False,
        "run_history": False, "footer_links": [], "allowed_paths": [], "theme": gr.themes.Default(**fonts),
        "head": script, "css": CSS + color_rules(classes),
    }  # fmt: skip


def launch(page: "gr.Blocks", opt: AppOptions, classes: ClassSet) -> None:
    """Serve the page, in a thread of its own."""
    from starlette.middleware import Middleware

    page.launch(
        server_name=opt.host, server_port=opt.port, share=False, inbrowser=False, quiet=True, prevent_thread_lock=True,
        state_session_capacity=SESSIONS, app_kwargs={"middleware": [Middleware(OwnHeaders)]}, **settings(opt, classes),
    )  # fmt: skip
    print(f"The page is at {page.local_url} (Ctrl-C ends it)", flush=True)


def mount(app: "FastAPI", segment: LibrarySegmenter, opt: ServeOptions) -> None:
    """Have the page at /page of the service too. Raises RunError."""
    folder = Path(tempfile.mkdtemp(prefix="cloth_segmentation_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    gr = load_gradio(folder, {opt.host})
    page = build(segment, opt)
    page.state_session_capacity = SESSIONS
    gr.mount_gradio_app(app, page, path="/page", **settings(opt, segment.classes))
    Thread(target=keep_swept, args=(folder, KEPT), daemon=True).start()


def load_gradio(folder: Path, addresses: set[str]) -> Any:
    """Gradio, which keeps its files in a folder and stays on this machine.

    Args:
        folder: for the files of visitors.
        addresses: of this machine, beside the loopback ones.

    Raises:
        RunError: it is not there.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder), "NO_PROXY": "*"}
    try:
        import gradio as gr
    except ImportError as error:
        raise RunError("expected gradio, found none; pip install -r requirements-app.txt") from error
    gr.set_static_paths(EXAMPLES)  # served from where they are, not from copies that would be swept away
    sys.addaudithook(StayHere(addresses))  # Gradio can be told to fetch things, and may call home one day
    return gr


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Open the page, until someone ends it."""
    opt = parse(AppOptions, argv)
    addresses = free_address(opt.host, opt.port)
    segment = Segmenter.load(**opt.loading)
    with tempfile.TemporaryDirectory(prefix="cloth_segmentation_", ignore_cleanup_errors=True) as folder:
        load_gradio(Path(folder), addresses)
        try:
            launch(build(segment, opt), opt, segment.classes)
            keep_swept(Path(folder), KEPT)
        finally:
            ignore_stops()  # until all files are gone


if __name__ == "__main__":
    run_script(main, RunError)
