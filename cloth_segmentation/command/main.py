"""The command: the clothes of a folder of photos, or of one photo."""

import csv
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cloth_segmentation.classes import ClassSet
from cloth_segmentation.command.base_options import OptionError
from cloth_segmentation.command.flags import describe, parse
from cloth_segmentation.command.infer_options import InferOptions
from cloth_segmentation.command.outputs import CUTOUT, NAMES, NOTES, Job, mask_paths, other_endings, pictures
from cloth_segmentation.command.photo_folder import first_names, list_photos
from cloth_segmentation.command.pipeline import ahead, in_batches
from cloth_segmentation.command.problems import Problem, failure, reason, writing
from cloth_segmentation.command.processes import OneProcess, Processes
from cloth_segmentation.command.script import blame, one_line
from cloth_segmentation.command.signals import finish_before_stop
from cloth_segmentation.errors import RunError
from cloth_segmentation.files import atomic_path, check_folder, check_output
from cloth_segmentation.photos import is_address
from cloth_segmentation.pictures import has_note, is_whole, save_picture
from cloth_segmentation.segmentation import Segmentation
from cloth_segmentation.segmenter import PHOTO_ERRORS, Seen, Segmenter


def check_only(kept: Sequence[str], classes: ClassSet) -> None:
    """Raise OptionError if --only names a class that the weights do not have."""
    known = classes.names[1:] + classes.short_names[1:]
    if not set(kept) <= set(known):
        short = ",".join(classes.short_names[1:])
        raise OptionError(f"--only: expected some of {short}, with commas, found {','.join(kept)!r}")


def asked(opt: InferOptions, classes: ClassSet) -> list[int]:
    """Numbers of the classes that were asked for, in order."""
    return sorted(map(classes.number, opt.kept or classes.clothes))


class Work(NamedTuple):
    """The photos to segment, and what was found beside them."""

    jobs: list[Job]
    done: int  # number of photos whose outputs are there already
    problems: list[Problem]  # what is no photo at first sight


def list_work(opt: InferOptions, classes: ClassSet) -> Work:
    """List the photos to segment, and make the output folder.

    Args:
        opt: what was asked for.
        classes: those of the weights, after which files are called.

    Raises:
        RunError: there are no photos, photos would be overwritten, or nothing can be written.
    """
    source, output = Path(opt.input), Path(opt.output)
    if is_address(opt.input):
        raise RunError(f"--input {opt.input}: expected photos on this machine, found an address; download them first")
    if not os.path.lexists(source):
        raise RunError(f"--input {source}: expected a folder of photos or one photo, found nothing of that name")
    folder = source if source.is_dir() else source.parent
    if folder.resolve() == output.resolve():
        raise RunError(f"--output {output}: expected another folder than that of the photos, which masks would replace")
    if source.resolve() in output.resolve().parents:
        print(f"{output}: left out of the photos, since masks go there")
    files, problems, others = list_photos(source, output)
    if not files and not problems:
        found = f"none among {first_names(others)}" if others else "an empty folder"
        raise RunError(f"--input {source}: expected photos, found {found}")
    if others:
        print(f"Left out, since their names are not those of photos: {first_names(others)}")
    with blame(f"--output {output}: expected a folder that can be written", OSError):
        check_folder(output)
    if opt.report:
        with blame(f"--report {opt.report}: expected a file that can be written", OSError):
            check_output(Path(opt.report), REPORT_HEADER.encode())

    # Names depend on all photos of the folder, and on all classes, not on which are left to do.
    endings = other_endings(classes.short_names[1:])
    jobs = [Job(*paths) for paths in zip(files, mask_paths(files, folder, output, endings), strict=True)]
    if output.resolve() in folder.resolve().parents:
        check_photos_stay(jobs, others, folder, output, opt, classes)
    left = [job for job in jobs if not (opt.skip_existing and is_done(job, opt, classes))]
    return Work(left, len(jobs) - len(left), problems)


def check_photos_stay(
    jobs: Sequence[Job], others: Sequence[Path], folder: Path, output: Path, opt: InferOptions, classes: ClassSet
) -> None:
    """Raise RunError if an output would replace what is in the photos' folder, or in one below.

    Only a folder above it can lead to that.
    """
    inputs = {folder.resolve() / path.relative_to(folder) for path in (*(job.photo for job in jobs), *others)}
    whole, names = output.resolve(), [classes.short_names[number] for number in asked(opt, classes)]
    for job in jobs:
        for path in (path for name in opt.outputs for path in job.paths(name, names)):
            if whole / path.relative_to(output) in inputs:
                raise RunError(f"--output {output}: expected a folder where masks replace no photos, found {path}")


def is_done(job: Job, opt: InferOptions, classes: ClassSet) -> bool:
    """Whether all outputs of a photo are there, to their end."""
    wanted = {classes.names[number]: classes.short_names[number] for number in asked(opt, classes)}
    found = wanted
    if "cutout" in opt.outputs:  # of the classes that the photo has, which its JSON file says
        try:
            entries = json.loads(job.path("json").read_bytes())["classes"]
            pixels = {entry["name"]: entry["pixels"] for entry in entries}
            found = {name: short for name, short in wanted.items() if pixels[name]}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return False
    each = {name: found if name == "cutout" else wanted for name in opt.outputs}
    return all(is_whole(path) for name, names in each.items() for path in job.paths(name, list(names.values())))


def write(one: Segmentation, job: Job, opt: InferOptions) -> None:
    """Write what was asked for of one photo. Raises one of ``PHOTO_ERRORS``, or RunError: no more can be written."""
    one = opt.drawing.of(one)
    for output, name, picture in pictures(one, opt.outputs, opt.drawing):
        with writing(path := job.path(output, name)):
            save_picture(picture, path, NOTES.get(output, ""))
    if "cutout" in opt.outputs:
        for name in map(one.class_set.short_name, set(one.classes) - set(one.found)):
            if has_note(job.path("cutout", name), CUTOUT):  # which other weights or options have made
                with writing(path := job.path("cutout", name)):
                    path.unlink(missing_ok=True)
    if "json" in opt.outputs:  # last, since it says that the cut-outs are all there
        with writing(path := job.path("json")), atomic_path(path) as part:
            part.write_text(one.to_json())


def segment_photos(
    segment: Segmenter, jobs: Sequence[Job], opt: InferOptions, progress: "tqdm[NoReturn]", problems: list[Problem]
) -> None:
    """Read, segment and write, all at once; photos that fail are told, and added to ``problems``.

    Few photos are on their way at any time, so memory does not grow with their number. Where the run ends early, what
    is being written is finished, and nothing more begun.
    """

    def fail(photo: Path, error: Exception) -> None:
        problems.append(Problem(photo, reason(photo, error)))
        progress.write(failure(*problems[-1]), file=sys.stderr)

    def write_one(job: Job, seen: Seen, logits: NDArray[np.float32]) -> None:
        try:
            write(segment.segmentation(seen, logits), job, opt)
        except PHOTO_ERRORS as error:
            fail(job.photo, error)

    readers, writers = ThreadPoolExecutor(opt.workers), ThreadPoolExecutor(opt.workers)
    try:
        pending: deque[Future[None]] = deque()
        reading = ahead(readers, lambda job: segment.see(job.photo), jobs, opt.workers + opt.batch_size)
        for batch in in_batches(reading, opt.batch_size):
            good = []
            for job, read in batch:
                try:
                    good.append((job, read.result()))
                except PHOTO_ERRORS as error:
                    fail(job.photo, error)
                    progress.update()
            for job, seen in good:
                for note in seen.notes:
                    progress.write(one_line(f"{job.photo}: {note}"), file=sys.stderr)
            if not good:
                continue
            try:
                all_logits = segment.logits([seen.square for _, seen in good])
            except MemoryError as error:
                if segment.size is not None:  # photos that the network sees at one size would all meet it
                    raise
                for job, _ in good:
                    fail(job.photo, error)
                    progress.update()
                continue
            for (job, seen), logits in zip(good, all_logits, strict=True):
                pending.append(writers.submit(write_one, job, seen, logits))
            while len(pending) > opt.workers:
                pending.popleft().result()
                progress.update()
        for future in pending:
            future.result()
            progress.update()
    finally:
        readers.shutdown(cancel_futures=True)
        writers.shutdown(cancel_futures=True)


REPORT_HEADER = "photo,problem"


def write_report(path: Path, problems: Sequence[Problem]) -> None:
    """Write what failed, and why, as CSV, in order of the names, which keep their bytes whatever they are."""
    with (
        atomic_path(path) as part,
        part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(REPORT_HEADER.split(","))
        writer.writerows(sorted(problems))


def gather_and_report(opt: InferOptions, processes: Processes, problems: list[Problem]) -> list[Problem]:
    """The problems of all processes, which rank 0 writes as a report if one is asked for. Raises RunError."""
    lost: RunError | None = None
    if processes.world_size > 1:
        # The launcher ends all processes once one has left, and passes on the Ctrl-C that they have had already.
        finish_before_stop()
        try:
            with processes.others_expected():
                problems = [problem for share in processes.gather(problems) for problem in share]
        except RunError as error:
            lost = error  # this process's own are reported nevertheless
    if opt.report and processes.rank == 0:
        with blame(f"--report {opt.report}: expected a file that can be written", OSError):
            write_report(Path(opt.report), problems)
    if lost:
        raise lost
    return problems


def photos(count: int) -> str:
    """A number of photos, as text: 1 photo, 2 photos."""
    return f"{count} photo" + "s" * (count != 1)


def main(
    argv: Sequence[str] | None = None,
    segmenter: type[Segmenter] = Segmenter,
    join: Callable[[str], Processes] = OneProcess.start,
) -> int:
    """Do what the command line asks for.

    Args:
        argv: words of the command line; None: those of this process.
        segmenter: what segments.
        join: gives the processes that share the folder, for a device.

    Returns:
        The exit code: 0 done, 1 some photos failed.

    Raises:
        Error: the run cannot start or go on.
    """
    opt = parse(InferOptions, argv)
    processes = join(opt.device)
    rank, world_size = processes.rank, processes.world_size
    segment = segmenter.load(**opt.loading)
    check_only(opt.kept, segment.classes)
    # One process lists the folder for all: its content may change.
    work = processes.on_main(lambda: list_work(opt, segment.classes))
    share = work.jobs[rank::world_size]
    problems = list(work.problems) if rank == 0 else []
    if rank == 0:
        print(describe(opt))
        for problem in problems:
            print(failure(*problem), file=sys.stderr)
    try:
        if share:
            if rank == 0:
                print(segment.describe())
            with tqdm(total=len(share), unit="photo", dynamic_ncols=True, disable=rank > 0) as progress:
                segment_photos(segment, share, opt, progress, problems)
    except BaseException:
        try:
            gather_and_report(opt, processes, problems)
        except RunError as error:
            print(one_line(str(error)), file=sys.stderr)  # beside what ends the run
        raise
    problems = gather_and_report(opt, processes, problems)
    processes.stop()
    if rank == 0:
        *names, last = (NAMES[name] for name in opt.outputs)
        what = f"{', '.join(names)} and {last}" if names else last
        written = len(work.jobs) - (len(problems) - len(work.problems))
        print(
            f"{what[0].upper()}{what[1:]} of {photos(written)} in {opt.output}"
            + (f", {photos(work.done)} done before" if opt.skip_existing else "")
            + (f", {len(problems)} failed" if problems else "")
        )
    return 1 if problems else 0
