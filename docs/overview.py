"""Draw docs/overview.jpg: what the program makes of a photo, side by side.

python docs/overview.py
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cloth_segmentation.pictures import save_picture  # noqa: E402
from infer import Segmenter  # noqa: E402

GAP, CAPTION, SQUARE = 12, 34, 12
"""Space between pictures, height of the line below them, side of a square of the chequered ground, pixels."""


def chequered(size: tuple[int, int]) -> Image.Image:
    """What programs show where a picture is transparent; ``size`` is (width, height)."""
    rows, columns = np.mgrid[: size[1], : size[0]] // SQUARE
    return Image.fromarray(np.where((rows + columns) % 2, 205, 245).astype(np.uint8)).convert("RGB")


def main() -> None:
    one = Segmenter.load(ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth", device="cpu")(
        ROOT / "input_images" / "grace_hopper.jpg"
    )
    cutout = one.cutout("upper body")
    ground = chequered(one.size)
    ground.paste(cutout, mask=cutout)
    pictures = {"photo": one.photo, "mask": one.mask().convert("RGB"), "overlay": one.overlay(), "cut-out": ground}

    width, height = one.size
    sheet = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height + CAPTION), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(22)
    for number, (name, picture) in enumerate(pictures.items()):
        left = number * (width + GAP)
        sheet.paste(picture, (left, 0))
        draw.text((left + width / 2, height + CAPTION / 2), name, fill="black", font=font, anchor="mm")
    save_picture(
        sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS), ROOT / "docs/overview.jpg"
    )


if __name__ == "__main__":
    main()
