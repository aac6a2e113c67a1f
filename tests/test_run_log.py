import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cloth_segmentation.errors import RunError
from utils.distributed import Processes
from utils.metrics import summarise
from utils.run_log import RunLog

CPU = torch.device("cpu")


def note(log: RunLog, step: int, loss: float) -> None:
    value = torch.tensor(loss)
    log.step(step, total=value, fused=value / 2, grad_norm=value * 2, lr=0.1, photos=4)


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def text_of(events: EventAccumulator, name: str) -> str:
    return events.Tensors(f"{name}/text_summary")[-1].tensor_proto.string_val[0].decode()


def test_an_entry_is_the_mean_since_the_last_one(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Processes(CPU), start=0, steps=4, print_freq=2)
    for step, loss in enumerate((1.0, 3.0, 5.0, 9.0), start=1):
        note(log, step, loss)
    log.close()
    events = read(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("loss/total")] == [(2, 2.0), (4, 7.0)]
    assert [event.value for event in events.Scalars("loss/fused")] == [1.0, 3.5]
    assert [event.value for event in events.Scalars("optimizer/gradient_norm")] == [4.0, 14.0]
    assert all(event.value > 0 for event in events.Scalars("speed/photos_per_second"))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_the_first_loss_that_is_not_finite_is_named(tmp_path: Path, loss: float) -> None:
    log = RunLog(tmp_path, Processes(CPU), start=0, steps=9, print_freq=100)
    for step, value in enumerate((1.0, loss, math.nan), start=1):
        note(log, step, value)
    with pytest.raises(RunError, match=f"step 2: expected a finite loss and gradient, found total {loss}"):
        log.flush()
    log.close()


def test_a_gradient_that_is_not_finite_counts_too(tmp_path: Path) -> None:
    one, gradient = torch.tensor(1.0), torch.tensor(math.nan)
    for scaled in (False, True):
        log = RunLog(tmp_path, Processes(CPU), start=0, steps=9, print_freq=100, scaled=scaled)
        log.step(1, total=one, fused=one, grad_norm=gradient, lr=0.1, photos=4)
        if scaled:  # a gradient scaler has left that step out
            log.flush()
        else:
            with pytest.raises(RunError, match="gradient norm nan"):
                log.flush()
        log.close()


def test_a_resumed_run_hides_what_came_after_its_start(tmp_path: Path) -> None:
    for start, losses in ((0, (1.0, 2.0, 3.0)), (1, (7.0, 8.0))):
        log = RunLog(tmp_path, Processes(CPU), start=start, steps=3, print_freq=1)
        for step, loss in enumerate(losses, start=start + 1):
            note(log, step, loss)
        log.close()
    assert [(event.step, event.value) for event in read(tmp_path).Scalars("loss/total")] == [
        (1, 1.0),
        (2, 7.0),
        (3, 8.0),
    ]


def test_validation_leaves_absent_classes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path, Processes(CPU), start=0, steps=1, print_freq=1)
    log.validation(
        1,
        summarise(
            torch.tensor([[8, 1], [1, 0]]).new_zeros(4, 4) + torch.diag(torch.tensor([8, 2, 0, 0])),
            ("background", "upper body", "lower body", "full body"),
        ),
    )
    log.close()
    assert "upper body 1.000, lower body -" in capsys.readouterr().out
    tags = read(tmp_path).Tags()["scalars"]
    assert "validation/iou_upper_body" in tags
    assert "validation/iou_lower_body" not in tags


def test_pictures_and_texts_come_back(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Processes(CPU), start=0, steps=1, print_freq=1)
    log.picture(3, "training", torch.full((3, 5, 7), 128, dtype=torch.uint8))
    log.text("options", "lr 0.1")
    log.close()
    events = read(tmp_path)
    picture = events.Images("training")[0]
    assert (picture.step, picture.width, picture.height) == (3, 7, 5)
    assert text_of(events, "options") == "```\nlr 0.1\n```"  # TensorBoard takes it for Markdown


def test_the_end_of_a_run_is_said_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path, Processes(CPU), start=2, steps=4, print_freq=1)
    note(log, 3, 1.0)
    log.validation(3, summarise(torch.diag(torch.tensor([8, 2])), ("background", "upper body")))
    note(log, 4, 3.0)
    log.skip("a.jpg")
    capsys.readouterr()
    log.conclude("Done.", 4, 16, {"weights": "w.pth"})
    log.close()
    said = capsys.readouterr().out
    assert re.sub(r"0:00:0\d", "0:00:0X", said).splitlines() == [
        "Done.",
        "  photos seen     16",
        "  since step 2    2 steps in 0:00:0X; photos were skipped 1 times",
        "  smoothed loss   1.100",
        "  validation IoU  background 1.000, upper body 1.000; clothes 1.000, at step 3",
        "  weights         w.pth",
    ]
    assert text_of(read(tmp_path), "summary") == f"```\n{said}```"


def test_what_a_run_has_not_done_is_not_concluded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path, Processes(CPU), start=4, steps=4, print_freq=1)
    log.conclude("Done.", 4, 16, {})
    log.close()
    assert capsys.readouterr().out.splitlines()[1:] == ["  photos seen     16", "  since step 4    0 steps in 0:00:00"]


def test_other_ranks_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path / "logs", Processes(CPU, rank=1, world_size=1), start=0, steps=2, print_freq=1)
    note(log, 1, np.pi)
    log.say("hello")
    log.conclude("Done.", 1, 4, {})
    log.close()
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "logs").exists()
