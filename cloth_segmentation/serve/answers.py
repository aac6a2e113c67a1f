"""What is asked for, and the answer in its form."""

import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cloth_segmentation.classes import ClassSet
from cloth_segmentation.command.infer_options import CLEAR, FURTHEST, read_color, words
from cloth_segmentation.command.outputs import OUTPUTS, Drawing, Job, encoded, pictures
from cloth_segmentation.segmentation import Segmentation

KINDS = {
    "json": "application/json",
    "mask": "image/png",
    "overlay": "image/jpeg",
    "cutout": "image/png",
    "zip": "application/zip",
}
"""Forms of an answer, and their media types. Of two with one type, the first is meant where the type alone is named."""

ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg"}


class SegmentQuery(BaseModel):
    """What a request asks for: the parameters after the question mark."""

    model_config = ConfigDict(extra="forbid")

    output: Literal["json", "mask", "overlay", "cutout", "zip"] | None = Field(
        None, description="The form of the answer. Without it, the Accept header chooses; without that, it is json."
    )
    garment: str = Field(
        "", alias="class", description="The class of a cut-out by its first word, such as upper; for output=cutout."
    )
    only: str = Field("", description="Classes to find, separated by commas; others are background.")
    grow: int = Field(0, ge=0, le=FURTHEST, description="Pixels by which clothes reach further into the background.")
    shrink: int = Field(0, ge=0, le=FURTHEST, description="Pixels by which each class reaches less far.")
    crop: bool = Field(False, description="Crop cut-outs to what is not transparent.")
    background: str = Field(CLEAR, description="What is behind cut-outs: transparent, or a colour as #rrggbb.")

    def drawing(self, classes: ClassSet, output: str) -> Drawing:
        """How to draw.

        Args:
            classes: those that the weights tell apart.
            output: the form of the answer.

        Raises:
            ValueError: what is wanted does not fit together, or there is no such class.
        """
        known, short = {*classes.clothes, *classes.short_names[1:]}, ",".join(classes.short_names[1:])
        kept = words(self.only) if self.only else ()
        if not known.issuperset(kept):
            raise ValueError(f"only: expected some of {short}, with commas, found {self.only!r}")
        if output == "cutout" and self.garment not in known:
            raise ValueError(f"class: expected one of {short} for output=cutout, found {self.garment!r}")
        if output == "cutout" and kept and classes.number(self.garment) not in map(classes.number, kept):
            raise ValueError(f"class: expected one of only={self.only}, found {self.garment!r}")
        if output != "cutout" and self.garment:
            raise ValueError(f"class: expected output=cutout, found output={output}; only=... names classes to find")
        cuts = output in ("cutout", "zip")
        for name, given in (("crop", self.crop), ("background", self.background != CLEAR)):
            if given and not cuts:
                raise ValueError(f"{name}: expected output=cutout or output=zip, found output={output}")
        if self.grow and self.shrink:
            raise ValueError(f"grow: expected it without shrink, found grow={self.grow} and shrink={self.shrink}")
        try:
            color = read_color(self.background)
        except ValueError as error:
            raise ValueError(f"background: {error}; in an address, # is written %23") from error
        return Drawing(kept, self.grow, self.shrink, self.crop, color)


def output_for(accept: str) -> str | None:
    """The form of an answer that an Accept header asks for (RFC 9110, section 12.5.1); None: we have none of these."""
    weights = dict[str, float]()  # media range -> how much it is wanted
    for part in accept.lower().split(","):
        media, *parameters = (word.strip() for word in part.split(";"))
        given = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        weights.setdefault(media, float(given) if re.fullmatch(r"[01](\.\d{0,3})?", given) else 1.0)

    def weight(kind: str) -> float:
        """That of the narrowest range in which a media type lies."""
        return next((weights[each] for each in (kind, f"{kind.partition('/')[0]}/*", "*/*") if each in weights), 0.0)

    # Of forms that are wanted as much, the one that is named first, and then JSON.
    order = list(weights)
    named = {output: order.index(kind) if kind in weights else len(order) for output, kind in KINDS.items()}
    best = max(KINDS, key=lambda output: (weight(KINDS[output]), -named[output]))
    return best if weight(KINDS[best]) > 0 else None


def render(one: Segmentation, output: str, garment: str, drawing: Drawing) -> bytes:
    """The answer.

    Args:
        one: what the photo shows, all classes.
        output: one of ``KINDS``.
        garment: the class, for a cut-out.
        drawing: how to draw.
    """
    one = drawing.of(one)
    if output == "json":
        return one.to_json().encode()
    if output == "zip":
        return _zipped(one, drawing)
    if output == "cutout":
        picture = one.cutout(garment, crop=drawing.crop, background=drawing.background)
    else:
        picture = one.mask() if output == "mask" else one.overlay()
    return encoded(picture, output, ENDINGS[KINDS[output]])


def _zipped(one: Segmentation, drawing: Drawing) -> bytes:
    """All that infer.py can write for a photo, called as it would call that of photo.jpg."""
    job, file = Job(Path("photo.jpg"), Path("photo.png")), BytesIO()
    contents = {job.path("json").name: one.to_json().encode()}
    for output, name, picture in pictures(one, OUTPUTS, drawing):
        path = job.path(output, name)
        contents[path.name] = encoded(picture, output, path.suffix)
    with zipfile.ZipFile(file, "w") as archive:  # pictures do not get smaller
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name), contents[name])
    return file.getvalue()
