"""The index over labels: which photos there are, and where in the files their masks lie.

The labels of 45 thousand photos are over a gigabyte of text. The index keeps the position of each mask in its file
instead of its text: it is made in one pass, holds a few megabytes of arrays, and costs a data loading worker next to
nothing; a mask is read when its photo is. What the masks are written in is the format's matter (``Format``).
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cloth_segmentation.classes import plain
from cloth_segmentation.errors import DataError
from data.categories import category_id
from data.faults import Fault
from data.rle import Runs

LONGEST_NAME = 255
"""Bytes that the name of a file may have on most systems. The index keeps all names at the length of the longest."""


class Format(Protocol):
    """How masks are written. Small, since each data loading worker has its own, and frozen: equal ones read alike."""

    @property
    def unit(self) -> str:
        """What an instance is in a file, for people: "line"; "" where it is the whole file."""

    @property
    def drops_small(self) -> bool:
        """Whether small instances are dropped, as the original does; False where labels are drawn to the pixel."""

    @property
    def has_categories(self) -> bool:
        """Whether labels name categories; False where they hold the classes' numbers or colours."""

    def masks(self, content: bytes, label: int, shape: tuple[int, int]) -> Iterable[tuple[int, Runs]]:
        """(label, runs) of the masks in the bytes of an instance, for a photo (height, width).

        Raises:
            ValueError: they cannot be read.
        """


class Instance(NamedTuple):
    """An instance as it is stored."""

    label: int  # its class; a format may tell it from the content instead
    place: str  # where it is, for people: "line 12"
    content: bytes


class Photo(NamedTuple):
    """What the index knows of a photo."""

    name: str
    height: int  # pixels
    width: int  # pixels
    masks: list[tuple[int, Runs]]  # (label, runs), in the order of the file


@dataclass(frozen=True)
class Annotations:
    """Photos in the order in which the labels name them first. Instances are those of the classes alone.

    Instances of photo i are ``first[i]`` to ``first[i + 1]`` of ``files``, ``offsets``, ``lengths``, ``numbers`` and
    ``labels``.
    """

    path: Path  # of the labels: a file or a folder
    format: Format
    names: NDArray[np.str_]  # (P,)
    heights: NDArray[np.int32]  # (P,) pixels
    widths: NDArray[np.int32]  # (P,) pixels
    digests: NDArray[np.uint64]  # (P,) of size, masks and categories: other labels have another one
    map_digests: NDArray[np.uint64]  # (P,) of size, masks and classes, in order: other label maps have another one
    first: NDArray[np.int64]  # (P + 1,)
    files: NDArray[np.str_]  # (I,) below ``path``; "" where that is the file
    offsets: NDArray[np.int64]  # (I,) bytes from the start of the file to the instance
    lengths: NDArray[np.int64]  # (I,) bytes of the instance
    numbers: NDArray[np.int64]  # (I,) of the line, annotation or shape
    labels: NDArray[np.uint8]  # (I,) classes
    upright: bool = True
    """Masks fit photos as EXIF turns them; False: as they are stored. For photos whose size fits either way."""
    masks_read: bool = False
    """All masks were read when the index was made, so that faults of theirs are known."""
    without_endings: bool = False
    """The labels name photos without the endings of their files."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Photo:
        """Photo ``index`` with its masks, read from the files.

        Raises:
            DataError: the labels are no longer there.
            ValueError: a mask, or the photo's own file of labels, cannot be read.
        """
        shape = int(self.heights[index]), int(self.widths[index])
        masks: list[tuple[int, Runs]] = []
        for instance in self.instances(index):
            try:
                masks += self.format.masks(instance.content, instance.label, shape)
            except ValueError as error:
                raise ValueError(f"{instance.place}: {error}") from error
        return Photo(str(self.names[index]), *shape, masks)

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of photo ``index``, pixels."""
        return int(self.widths[index]), int(self.heights[index])

    def instances(self, index: int) -> list[Instance]:
        """Instances of photo ``index`` as they are stored. Raises as ``self[index]`` does."""
        found = []
        span = range(self.first[index], self.first[index + 1])
        opened: tuple[str, BinaryIO] | None = None
        try:
            for number in span:
                name = str(self.files[number])
                if opened is None or opened[0] != name:
                    if opened is not None:
                        opened[1].close()
                    opened = name, (self.path / name).open("rb")
                opened[1].seek(self.offsets[number])
                content = opened[1].read(self.lengths[number])
                found.append(Instance(int(self.labels[number]), self._place(number), content))
        except OSError as error:
            if self.path.is_dir():  # one file of many
                raise ValueError(f"{name}: expected the file that was there at the start ({error.strerror})") from error
            raise DataError(
                f"{error.filename or self.path}: expected the labels that were there at the start, found none that can "
                f"be read ({error.strerror})"
            ) from error
        finally:
            if opened is not None:
                opened[1].close()
        return found

    def _place(self, number: int) -> str:
        unit = f"{self.format.unit} {self.numbers[number]}" if self.format.unit else ""
        return ", ".join(part for part in (str(self.files[number]), unit) if part)

    def select(self, photos: NDArray[np.int64]) -> "Annotations":
        """The same index with these photos only, in this order."""
        counts = np.diff(self.first)[photos]
        first = np.concatenate(([0], np.cumsum(counts)))
        instances = np.repeat(self.first[photos] - first[:-1], counts) + np.arange(first[-1])
        return replace(
            self,
            names=self.names[photos],
            heights=self.heights[photos],
            widths=self.widths[photos],
            digests=self.digests[photos],
            map_digests=self.map_digests[photos],
            first=first,
            files=self.files[instances],
            offsets=self.offsets[instances],
            lengths=self.lengths[instances],
            numbers=self.numbers[instances],
            labels=self.labels[instances],
        )

    def renamed(self, names: Mapping[str, str]) -> "Annotations":
        """The same index, with new names in the place of some."""
        if not names:
            return self
        return replace(self, names=np.array([names.get(name, name) for name in self.names.tolist()], dtype=np.str_))

    def without(self, names: Collection[str]) -> NDArray[np.int64]:
        """Numbers of the photos but those of these names."""
        return np.flatnonzero([name not in names for name in self.names.tolist()])

    def faults_of(self, faults: Sequence[Fault]) -> list[Fault]:
        """Those that spoil these photos."""
        names = set(self.names.tolist())
        return [fault for fault in faults if fault.photo in names]

    def head(self, photos: int) -> "Annotations":
        """The same index with at most the first ``photos`` photos."""
        return self.select(np.arange(min(photos, len(self))))


class Entry(NamedTuple):
    """Where an instance is, and what it is."""

    file: str  # below the index's path
    offset: int  # bytes from the start of the file
    length: int  # bytes
    number: int  # as in ``Annotations.numbers``
    label: int
    digest: int  # of its bytes; see ``digest_of``
    category: int  # see ``category_number``


class PhotoEntry(NamedTuple):
    """A photo and its instances, in order."""

    name: str
    width: int  # pixels
    height: int  # pixels
    instances: list[Entry]


def index_of(
    path: Path,
    form: Format,
    names: Sequence[str],
    sizes: ArrayLike,
    first: NDArray[np.int64],
    *,
    files: ArrayLike | None = None,
    offsets: ArrayLike,
    lengths: ArrayLike,
    numbers: ArrayLike,
    labels: ArrayLike,
    digests: ArrayLike,
    categories: ArrayLike,
) -> Annotations:
    """The index of photos and instances, in arrays of the least size.

    Args:
        path: as in ``Annotations``.
        form: as in ``Annotations``.
        names: of P photos.
        sizes: (P, 2) their widths and heights, pixels.
        first: (P + 1,) as in ``Annotations``; what follows is (I,).
        files: as in ``Annotations``; None: all instances are in ``path``.
        offsets: as in ``Annotations``.
        lengths: as in ``Annotations``.
        numbers: as in ``Annotations``.
        labels: as in ``Annotations``.
        digests: of the instances' bytes; see ``digest_of``.
        categories: of the instances; see ``category_number``.
    """
    widths, heights = np.asarray(sizes, dtype=np.int32).reshape(-1, 2).T.copy()
    own_labels = np.asarray(labels, dtype=np.uint8)
    found = np.asarray(digests, dtype=np.uint64), np.asarray(categories, dtype=np.uint64)
    by_category, by_label = _photo_digests(heights, widths, first, *found, own_labels)
    return Annotations(
        path=path,
        format=form,
        names=np.array(names, dtype=np.str_),
        heights=heights,
        widths=widths,
        digests=by_category,
        map_digests=by_label,
        first=first,
        files=np.full(len(own_labels), "", dtype=np.str_) if files is None else np.asarray(files, dtype=np.str_),
        offsets=np.asarray(offsets, dtype=np.int64),
        lengths=np.asarray(lengths, dtype=np.int64),
        numbers=np.asarray(numbers, dtype=np.int64),
        labels=own_labels,
    )


def make_index(path: Path, form: Format, photos: Sequence[PhotoEntry]) -> Annotations:
    """The index of photos that were found one by one."""
    entries = [entry for photo in photos for entry in photo.instances]
    return index_of(
        path,
        form,
        [photo.name for photo in photos],
        [(photo.width, photo.height) for photo in photos],
        np.cumsum([0, *(len(photo.instances) for photo in photos)], dtype=np.int64),
        files=[entry.file for entry in entries],
        offsets=[entry.offset for entry in entries],
        lengths=[entry.length for entry in entries],
        numbers=[entry.number for entry in entries],
        labels=[entry.label for entry in entries],
        digests=[entry.digest for entry in entries],
        categories=[entry.category for entry in entries],
    )


class Scanned(NamedTuple):
    """What one pass over labels finds."""

    photos: Annotations
    faults: list[Fault]
    categories: dict[str, int]  # {name of each category in the labels: number of its instances}
    notes: tuple[str, ...] = ()  # what people should know though it is no fault


def digest_of(content: bytes) -> int:
    """Digest, 64 bits, of an instance as it is stored."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _photo_digests(
    heights: NDArray[np.int32],
    widths: NDArray[np.int32],
    first: NDArray[np.int64],
    digests: NDArray[np.uint64],
    categories: NDArray[np.uint64],
    labels: NDArray[np.uint8],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """``Annotations.digests``, for which the order of a photo's instances does not count, and ``map_digests``.

    Args:
        heights: (P,).
        widths: (P,).
        first: (P + 1,), as in ``Annotations``.
        digests: (I,) of the instances' masks.
        categories: (I,) numbers of their categories.
        labels: (I,) their classes.
    """
    sizes = heights.astype(np.uint64) << np.uint64(32) | widths.astype(np.uint64)
    place = np.arange(first[-1]) - np.repeat(first[:-1], np.diff(first))  # among the photo's instances

    def summed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        # Odd factors tell the numbers apart, also where two instances swap theirs. Sums go round at 2**64.
        factors = 2 * numbers + np.uint64(1)
        sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(digests * factors)))
        found: NDArray[np.uint64] = sums[first[1:]] - sums[first[:-1]] + sizes
        return found

    return summed(categories), summed((256 * place + labels).astype(np.uint64))


def category_number(name: str) -> int:
    """What stands for a category in ``Annotations.digests``: its id, or a digest of a name that iMaterialist lacks."""
    number = category_id(name)
    return digest_of(plain(name).encode()) >> 32 | 1 << 31 if number is None else number
