"""Find the clothes in photos that come over HTTP, one at a time: JSON, masks, overlays, cut-outs.

python serve.py
curl --data-binary @photo.jpg http://127.0.0.1:8000/v1/segment

It is the command of the library, cloth_segmentation/serve/, with PyTorch as a second engine, and the page of app.py if
--page asks for it. It needs FastAPI: pip install -r requirements-serve.txt
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cloth_segmentation
from cloth_segmentation import Error
from cloth_segmentation.command.script import run_script
from cloth_segmentation.serve.main import main as serve
from cloth_segmentation.serve.options import ServeOptions
from infer import Segmenter

if TYPE_CHECKING:
    from fastapi import FastAPI


def mount_page(app: "FastAPI", segment: cloth_segmentation.Segmenter, opt: ServeOptions) -> None:
    """Add the page at /page. Raises RunError if Gradio is not there."""
    from app import mount

    mount(app, segment, opt)


def main(argv: Sequence[str] | None = None) -> int:
    return serve(argv, Segmenter, mount_page)


if __name__ == "__main__":
    run_script(main, Error)
