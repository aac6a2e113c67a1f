"""A look at every photo and mask before they are needed: it takes minutes where a failure would come after days."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.command.script import blame, one_line
from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import read_sizes
from data.annotations import Annotations
from data.categories import category_id
from data.dataset import fits, same_shape
from data.faults import SHOWN, Fault, counted, summary
from data.label_files import in_threads
from data.labels import scan
from data.names import files_meant

Value = TypeVar("Value")


class Once(Protocol):
    """Runs something that takes long, for all processes of a run."""

    def __call__(self, action: Callable[[], Value]) -> Value: ...


def _here(action: Callable[[], Value]) -> Value:
    return action()


class Looked(NamedTuple):
    """What a look at the photos has found."""

    faults: list[Fault]
    renamed: dict[str, str]  # {name in the rows: name of the file that is meant}, where they differ
    upright: bool  # as in ``Annotations``
    notes: list[str]  # what people should know though it is no fault


class Checked(NamedTuple):
    """Photos with their rows, and what is wrong with either."""

    photos: Annotations  # all, also those that cannot be used
    faults: list[Fault]
    report: str  # the faults in words, for people
    notes: str  # more for people; "" for nothing
    categories: dict[str, int]  # {name of each category in the labels: number of its instances}

    @property
    def bad(self) -> set[str]:
        """Names of the photos that a fault spoils."""
        return {fault.photo for fault in self.faults if not fault.harmless}


def read_checked(
    labels: tuple[str, str],
    folder: tuple[str, str],
    classes: ClassSet = CLOTHES,
    most: int | None = None,
    *,
    ignored: int | None = None,
    rescale: bool = False,
    once: Once = _here,
) -> Checked:
    """Read labels, and look at all photos and masks.

    Args:
        labels: their path, after the flag that named it.
        folder: that of the photos, after its flag.
        classes: what the labels' categories become.
        most: read only the first photos.
        ignored: as in ``labels.scan``.
        rescale: as in ``LabelledPhotos``.
        once: reads the labels, and looks at the photos, for all processes of a run.

    Raises:
        RunError: the labels or the folder cannot be read, or no label is of these classes.
    """
    with blame(labels[0], DataError):
        photos, faults, categories, told = once(lambda: scan(Path(labels[1]), classes, most, ignored))
        told += tuple(told_of_categories(categories, classes))
    with blame(folder[0], DataError):
        looked = once(lambda: check_photos(photos, Path(folder[1]), rescale=rescale))
    photos = replace(photos.renamed(looked.renamed), upright=looked.upright)
    faults = _renamed(faults, looked.renamed) + looked.faults
    expected = f"{' '.join(labels)}: expected labels and photos without fault, found in {folder[1]}"
    notes = "\n".join(f"{' '.join(labels)}: {note}" for note in (*told, *looked.notes))
    return Checked(photos, faults, f"{expected}\n{summary(faults)}", notes, categories)


def told_of_categories(categories: Mapping[str, int], classes: ClassSet) -> list[str]:
    """Notes on categories in the labels that become background, where a set names others than those of iMaterialist.

    Args:
        categories: {name: number of instances}.
        classes: what they become.

    Raises:
        DataError: no category belongs to a class.
    """
    unknown = {name: count for name, count in categories.items() if not classes.number_of(name)}
    strange = [name for name in unknown if category_id(name) is None]
    expected = (
        f"expected some of the categories of --classes {classes.name} ({shown(list(chain(*classes.categories)))})"
    )
    if categories and len(unknown) == len(categories) and strange:
        raise DataError(
            f"{expected}, found {shown(list(unknown))}; a file of classes says which categories make a "
            "class (docs/classes.md)"
        )
    if not strange:
        return []
    counts = shown([f"{name} ({unknown[name]:,})" for name in strange])
    return [f"categories of no class in --classes {classes.name}, which become background: {counts}"]


def shown(names: Sequence[str], most: int = 8) -> str:
    """Names in a message: the first ones, whatever letters they hold."""
    return ", ".join(one_line(name) for name in names[:most]) + ", ..." * (len(names) > most)


def check_photos(annotations: Annotations, image_folder: Path, *, rescale: bool = False) -> Looked:
    """Look at the photos of an index, and at the masks of clothes.

    Of a photo only the header is read, so one that is cut off passes. Masks of other categories are not read.

    Raises:
        DataError: there is no such folder, or the index's file is gone.
    """
    if not image_folder.is_dir():
        raise DataError(f"{image_folder}: expected the folder of the photos, found none")
    found: list[Fit | Fault | None] = []
    faults: list[Fault] = []
    for number, look in enumerate(_looks(annotations, range(len(annotations)), image_folder, rescale)):
        found.append(look)
        if not annotations.masks_read:
            faults += _mask_faults(annotations, number)
    missing = [number for number, look in enumerate(found) if look is None]
    renamed: dict[str, str] = {}
    if missing:
        renamed, hints = _find(annotations, missing, image_folder)
        again = _looks(annotations.renamed(renamed), missing, image_folder, rescale)
        for number, look in zip(missing, again, strict=True):
            name = str(annotations.names[number])
            found[number] = look or Fault("photos that are not there", name, repr(name) + hints.get(name, ""))
    faults = _renamed([look for look in found if isinstance(look, Fault)] + faults, renamed)

    fits: dict[Fit, list[str]] = {fit: [] for fit in Fit}
    for name, look in zip(annotations.renamed(renamed).names.tolist(), found, strict=True):
        if isinstance(look, Fit):
            fits[look].append(name)
    upright, note = _drawn_upright(fits)
    spelled = {
        "photos whose files are called otherwise than in the labels": [
            f"{name} -> {file}"
            for name, file in renamed.items()
            if not annotations.without_endings or name != file.rpartition(".")[0]
        ]
    }
    return Looked(faults, renamed, upright, [text.strip() for text in (counted(spelled), note) if text])


def _renamed(faults: Sequence[Fault], names: Mapping[str, str]) -> list[Fault]:
    return [fault._replace(photo=names.get(fault.photo, fault.photo)) for fault in faults]


def _find(
    annotations: Annotations, missing: Sequence[int], image_folder: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """The files that are meant by photos which are missing, and hints at files where it is not plain which is meant."""
    names: list[str] = annotations.names.tolist()
    labels = _labels_among(annotations, image_folder)
    found = files_meant([names[number] for number in missing], image_folder)
    candidates = {name: [file for file in files if file not in labels] for name, files in found.items()}
    candidates = {name: files for name, files in candidates.items() if files}
    meant = Counter(names) + Counter(file for files in candidates.values() for file in files)
    renamed = {name: files[0] for name, files in candidates.items() if len(files) == 1 and meant[files[0]] == 1}
    hints = {name: f" (is it {' or '.join(files[:SHOWN])}?)" for name, files in candidates.items()}
    return renamed, hints


def _labels_among(annotations: Annotations, image_folder: Path) -> set[str]:
    """Files of labels that lie among the photos, below their folder: pictures too."""
    labels, photos = annotations.path.resolve(), image_folder.resolve()
    if not labels.is_relative_to(photos) and not photos.is_relative_to(labels):
        return set()
    return {os.path.relpath(labels / file, photos) for file in set(annotations.files.tolist())}


class Fit(Enum):
    """What the size of a photo tells of how its masks were drawn."""

    ALIKE = auto()  # EXIF does not turn it
    UPRIGHT = auto()  # on the photo as EXIF turns it
    STORED = auto()  # on the photo as it is stored
    EITHER = auto()  # EXIF turns it, and keeps its shape: by 180 degrees, as in a mirror, or since it is square


def _looks(
    annotations: Annotations, numbers: Sequence[int], image_folder: Path, rescale: bool
) -> Iterator[Fit | Fault | None]:
    """What a look at each photo tells; None for one that is not there."""
    return in_threads(lambda number: _look(annotations, number, image_folder, rescale), numbers, "check", "photo")


def _look(annotations: Annotations, number: int, image_folder: Path, rescale: bool) -> Fit | Fault | None:
    name, wanted = str(annotations.names[number]), annotations.size(number)
    path = image_folder / name
    try:
        if not path.is_file():
            return None
        stored, upright, turned = read_sizes(path, wanted)
    except (DataError, OSError, MemoryError) as error:
        return Fault("photos that cannot be opened", name, str(error))
    fits_stored, fits_upright = fits(stored, wanted, rescale), fits(upright, wanted, rescale)
    if not fits_stored and not fits_upright:
        swapped = ", Height and Width swapped" if upright == wanted[::-1] else ""
        if same_shape(wanted, upright):
            swapped = ", the same shape; --rescale scales the labels"
        text = f"{name}: expected {wanted[0]} x {wanted[1]} (Width x Height), found {upright[0]} x {upright[1]}"
        return Fault("photos of another size than the labels say", name, text + swapped)
    if not turned:
        return Fit.ALIKE
    if fits_stored and fits_upright:
        return Fit.EITHER
    return Fit.UPRIGHT if fits_upright else Fit.STORED


def _drawn_upright(fits: Mapping[Fit, Sequence[str]]) -> tuple[bool, str]:
    """Whether masks were drawn on upright photos, by those photos that tell, and a note on the others; "" for none."""
    upright, stored = len(fits[Fit.UPRIGHT]), len(fits[Fit.STORED])
    decision = upright >= stored
    if not fits[Fit.EITHER] or (upright and not stored):
        return decision, ""
    taken = "upright" if decision else "as they are stored"
    kind = f"photos taken {taken}, though EXIF turns or mirrors them at the same size, so that masks fit either way"
    told = f"Masks of {upright:,} other photos fit upright only, of {stored:,} as stored only."
    reason = told if upright or stored else "No other photo tells which is meant."
    remedy = "remove the EXIF tag (exiftool -Orientation= PHOTO)" if decision else "turn the photo's own pixels"
    return decision, f"{counted({kind: fits[Fit.EITHER]}).strip()}\n  {reason} Where that is wrong, {remedy}."


def _mask_faults(annotations: Annotations, number: int) -> Iterator[Fault]:
    name, shape = str(annotations.names[number]), annotations.size(number)[::-1]
    try:
        instances = annotations.instances(number)
    except DataError:
        raise
    except ValueError as error:
        yield Fault("masks that cannot be read", name, f"{error} ({name})")
        return
    for instance in instances:
        place = f"{instance.place} ({name})"
        try:
            masks = list(annotations.format.masks(instance.content, instance.label, shape))
        except ValueError as error:
            yield Fault("masks that cannot be read", name, f"{place}: {error}")
            continue
        if not all(len(runs) for _, runs in masks):
            yield Fault("masks that are empty", name, place)
