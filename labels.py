"""Look at labels before training, in any format that train.py reads: count them, draw some, write them as CSV.

python labels.py --df_path LABELS --image_folder PHOTOS
python labels.py --df_path LABELS --image_folder PHOTOS --classes my_classes.toml --look 24
python labels.py --df_path LABELS --image_folder PHOTOS --csv train.csv
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cloth_segmentation.classes import BACKGROUND, ClassSet, plain
from cloth_segmentation.command.script import blame, run_script
from cloth_segmentation.errors import DataError, RunError
from cloth_segmentation.files import atomic_path, check_output
from cloth_segmentation.pictures import save_picture
from data import BadSampleError
from data.annotations import Annotations
from data.checks import Checked, read_checked, shown
from data.class_sets import find_class_set
from data.csv_labels import COLUMNS, Written, class_id, write_csv
from data.dataset import LabelledPhotos
from data.faults import Fault, summary
from data.label_counts import SIDE, LabelCounts, count_labels
from data.label_map import IGNORED
from options import LabelsOptions, parse
from utils.label_sheet import LabelSheet, small_size

BEGINS = {".jpg": b"\xff\xd8", ".png": b"\x89PNG", ".csv": ",".join(COLUMNS).encode()}
"""First bytes of what is written, by the ending of its name."""

MOST_CATEGORIES = IGNORED - 1
"""That are written as CSV: each takes a value of a label map, and background and pixels that are ignored one more."""

NOTHING = "expected labels with instances, found none"


def check_outputs(opt: LabelsOptions) -> None:
    """See that what is asked for can be written, and takes the place of no photo and no labels. Raises RunError."""
    outputs = [("--output", opt.output)] * bool(opt.look) + [("--csv", opt.csv)] * bool(opt.csv)
    for flag, name in outputs:
        path = Path(name)
        with blame(f"{flag} {name}: expected a file that can be written", OSError):
            check_output(path, BEGINS[path.suffix])
            there = path.exists()
            is_labels = there and Path(opt.df_path).exists() and path.samefile(opt.df_path)
            is_photo = flag == "--output" and there and path.resolve().is_relative_to(Path(opt.image_folder).resolve())
        if is_labels or is_photo:
            found = f"--df_path {opt.df_path}" if is_labels else "one of the photos"
            raise RunError(f"{flag} {name}: expected another file than {found}, which it would replace")


def read_photos(
    opt: LabelsOptions, classes: ClassSet, told: Collection[Fault] | None = None
) -> tuple[Checked, Annotations]:
    """What is found, and the photos that are good. Notes and faults are told.

    Args:
        opt: of the script.
        classes: what categories become.
        told: faults that were told before, as were the notes; None: nothing was.

    Raises:
        RunError: no photo is good.
    """
    found = read_checked(
        ("--df_path", opt.df_path),
        ("--image_folder", opt.image_folder),
        classes,
        ignored=opt.ignore_index,
        rescale=opt.rescale,
    )
    if found.notes and told is None:
        print(found.notes, file=sys.stderr)
    good = found.photos.select(found.photos.without(found.bad))
    if not len(good):
        raise RunError(f"{found.report}\nNo photo is left.")
    if set(found.faults) - set(told or ()):
        print(f"{found.report}\nGoing on with {len(good):,} of {len(found.photos):,} photos.", file=sys.stderr)
    return found, good


def table(counts: LabelCounts, classes: ClassSet, categories: Mapping[str, int]) -> str:
    """A row for each class: how often it is there, its share of the pixels, and its categories in the labels."""
    own: list[list[str]] = [[] for _ in classes.names]
    for name, count in sorted(categories.items(), key=lambda pair: -pair[1]):
        own[classes.number_of(name)].append(f"{name} ({count:,})")
    rows = [
        (
            str(number),
            name,
            f"{counts.instances[number]:,}",
            f"{counts.photos[number]:,}",
            f"{share:.3%}",
            shown(own[number], 6),
        )
        for number, (name, share) in enumerate(zip(classes.names, counts.shares, strict=False))
    ]
    rows[0] = (*rows[0][:2], "", "", *rows[0][4:])  # of background, instances are not read
    if ignored := counts.shares[len(classes) :].sum():
        rows.append(("", "ignored", "", f"{counts.photos[len(classes) :].sum():,}", f"{ignored:.3%}", ""))
    rows.insert(0, ("", "class", "instances", "photos", "pixels", "categories in the labels"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = (">", "<", ">", ">", ">", "<")
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)).rstrip()
        for row in rows
    )


def report(found: Checked, counts: LabelCounts, classes: ClassSet) -> str:
    """What the labels hold, in words for people."""
    good = len(counts.labelled)
    lines = [
        f"{len(found.photos):,} photos, {len(found.photos) - good:,} with faults. Labels of the other {good:,}:",
        table(counts, classes, found.categories if found.photos.format.has_categories else {}),
        f"Pixels: share of a photo's label map, on average, counted at {SIDE} x {SIDE}. Categories: with the number of "
        "their instances, also of photos with faults.",
    ]
    if absent := [name for name, photos in zip(classes.names[1:], counts.photos[1:], strict=False) if not photos]:
        lines.append(f"Classes that no photo has: {', '.join(absent)}.")
    if unlabelled := int((~counts.labelled).sum()):
        lines.append(f"Photos that have none of the classes: {unlabelled:,}.")
    if counts.small:
        lines.append(f"Instances that training leaves out, narrower or lower than 20 pixels of 768: {counts.small:,}.")
    return "\n".join(lines)


def draw(opt: LabelsOptions, photos: Annotations, labelled: NDArray[np.bool_], classes: ClassSet) -> str:
    """Draw photos that have labels, taken at random; give the sheet's title. Those that break are told.

    Raises:
        RunError: there are none.
    """
    pairs = LabelledPhotos(photos, Path(opt.image_folder), rescale=opt.rescale)
    sheet = LabelSheet(classes)
    for number in np.random.default_rng(opt.seed).permutation(np.flatnonzero(labelled)).tolist():
        if len(sheet.cells) == opt.look:
            break
        try:
            pixels, labels = pairs.squashed(number, small_size(photos.size(number)))
        except BadSampleError as error:
            print(f"Left out: {error}", file=sys.stderr)
            continue
        sheet.add(str(photos.names[number]), Image.fromarray(pixels), labels)
    if not sheet.cells:
        raise RunError(f"--look {opt.look}: expected photos with labels of --classes {opt.classes}, found none")
    title = f"{len(sheet.cells):,} of {labelled.sum():,} labelled photos, --classes {classes.name}, --seed {opt.seed}"
    save_picture(sheet.draw(title), Path(opt.output))
    return title


def class_of_each(categories: Sequence[str]) -> ClassSet:
    """A set in which each category is a class, whatever it is called. Raises RunError for none and for too many."""
    if not categories:
        raise RunError(NOTHING)
    if len(categories) > MOST_CATEGORIES:
        raise RunError(
            f"expected at most {MOST_CATEGORIES} categories in the labels, found {len(categories):,}; leave out those "
            "that are not needed"
        )
    numbered = ClassSet.of_names([BACKGROUND, *(f"category {number}" for number in range(len(categories)))])
    return replace(numbered, name="categories", categories=((), *((name,) for name in categories)))


def category_of(number: int, classes: ClassSet) -> str:
    """A category that belongs to a class: of its name, if that does. Raises RunError if there is none."""
    for name in (classes.names[number], *classes.categories[number]):
        if classes.number_of(name) == number:
            return name
    raise RunError(f"expected categories of all classes, found none of {classes.names[number]!r}; add one to --classes")


def convert(opt: LabelsOptions, found: Checked, good: Annotations, classes: ClassSet) -> str:
    """Write the labels of good photos as CSV, and tell what came of it. It keeps categories where there are any.

    Raises:
        RunError: that cannot be, or there is nothing to write.
    """
    with blame(f"--csv {opt.csv}", RunError, ValueError):
        if good.format.has_categories:
            names = [name for name in found.categories if classes.number_of(name) or plain(name) != BACKGROUND]
            every = class_of_each(list({plain(name): name for name in names}.values()))
            good = read_photos(opt, every, found.faults)[1]
            categories = [group[0] for group in every.categories[1:]]
        else:
            categories = [category_of(number, classes) for number in range(1, len(classes))]
        ids = {number: class_id(name, classes) for number, name in enumerate(categories, start=1)}
        with atomic_path(Path(opt.csv)) as part:
            written = write_csv(part, good, ids)
            if not written.rows:
                raise RunError(NOTHING)
    return told_of(opt, written, len(found.photos))


def told_of(opt: LabelsOptions, written: Written, photos: int) -> str:
    """What became of ``photos`` photos' labels in a CSV, in words for people."""
    if written.faults:
        print(f"--csv {opt.csv}: expected photos without fault, found\n{summary(written.faults)}", file=sys.stderr)
    lines = [f"{opt.csv}: {written.rows:,} rows for {written.photos:,} photos"]
    for count, what in (
        (photos - written.photos - written.without, "photos with faults, which are left out"),
        (written.without, "photos without instances, which have no row, so that they are lost"),
        (written.small, "instances narrower or lower than 20 pixels of 768, which are left out where the CSV is read"),
        (written.ignored, "photos with pixels that are ignored, which are background where the CSV is read"),
    ):
        lines += [f"  {count:,} {what}"] * bool(count)
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    opt = parse(LabelsOptions, argv)
    with blame("--classes", DataError):
        classes = find_class_set(opt.classes)
    check_outputs(opt)
    found, photos = read_photos(opt, classes)
    counts = count_labels(photos, len(classes))
    print(report(found, counts, classes), flush=True)
    if opt.look:
        print(f"{opt.output}: {draw(opt, photos, counts.labelled, classes)}")
    if opt.csv:
        print(convert(opt, found, photos, classes))
    return 0


if __name__ == "__main__":
    run_script(main, RunError, DataError)
