"""Photos whose squares are kept on disk once they are made: later epochs and runs read them back."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import Size
from data.annotations import Annotations
from data.dataset import LabelledPhotos, Square, unopened

RULES = 3
"""Version of all that decides what a square looks like; a change of it makes new squares."""

Writer = Callable[[Path], AbstractContextManager[Path]]
"""Gives a temporary path that takes the name asked for only once the file is whole."""


class PreparedPhotos(LabelledPhotos):
    """Photos as ``LabelledPhotos`` has them, and their squares from ``folder`` where they are there.

    A square is one file, ``.npy``, (H, W, 4) uint8: RGB and label. Its name is a hash of all that it is made of: of
    the photo its name, size in bytes and time of change, its masks with their classes (by a digest), whether they were
    drawn upright, the square's size, the rules. So what has changed is made anew, and processes that make the same
    square at the same time write the same.

    Args:
        annotations: as in ``LabelledPhotos``.
        image_folder: as in ``LabelledPhotos``.
        folder: of the squares; one will do for several runs, sizes and class sets.
        writer: opens a file there, and makes the folder if need be.
        rescale: as in ``LabelledPhotos``.
    """

    def __init__(
        self,
        annotations: Annotations,
        image_folder: Path,
        *,
        folder: Path,
        writer: Writer,
        rescale: bool = False,
    ) -> None:
        super().__init__(annotations, image_folder, rescale=rescale)
        self.folder = folder
        self.writer = writer

    def squashed(self, index: int, size: Size) -> Square:
        path = self._path(index, size)
        square = _read(path, (size[1], size[0], 4))
        if square is None:
            square = np.dstack(super().squashed(index, size))
            try:
                with self.writer(path) as part, part.open("wb") as file:
                    np.save(file, square)
            except OSError as error:
                raise DataError(
                    f"{self.folder}: expected a folder that prepared squares can be written to, "
                    f"found none ({error.strerror or error}); make room or name another"
                ) from error
        return square[..., :3], square[..., 3]

    def _path(self, index: int, size: Size) -> Path:
        index_of, path = self.annotations, self.path(index)
        try:
            stored = path.stat()
        except OSError as error:
            raise unopened(path, error) from error
        photo = str(index_of.names[index]), stored.st_size, stored.st_mtime_ns
        masks = index_of.size(index), index_of.format, int(index_of.map_digests[index])
        parts = (RULES, size, *photo, *masks, index_of.upright)
        name = hashlib.sha256(repr(parts).encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.npy"


def _read(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8] | None:
    """The square in a file; None if there is none that is whole."""
    try:
        with path.open("rb") as file:
            square = np.lib.format.read_array(file, allow_pickle=False)
    except Exception:  # NumPy raises whatever a broken header provokes: ValueError, SyntaxError, MemoryError, ...
        return None
    return square if square.shape == shape and square.dtype == np.uint8 else None
