from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, python

import setup_model_weights
from cloth_segmentation.classes import CLOTHES
from cloth_segmentation.errors import RunError
from cloth_segmentation.weights_info import WeightsInfo
from data.categories import SHIPPED
from networks import ARCHITECTURES, U2NET, U2NETP
from utils.downloads import ORIGINAL_WEIGHTS
from utils.weights_files import load_network, read_file, save_weights

REAL = ROOT.parent / "shared" / "weights" / "u2netp.pth"


@pytest.mark.parametrize("arch", [U2NET, U2NETP])
def test_surgery_from_a_file(arch: type[U2NET], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = arch.__name__.lower()
    source, output = tmp_path / "source.pth", tmp_path / "new" / "out.pth"
    torch.save(arch(3, 1).state_dict(), source)
    flags = [f"--arch={name}", f"--source={source}", f"--output={output}"]
    assert setup_model_weights.main(flags) == 0
    assert "784 of 798 tensors carried over" in capsys.readouterr().out
    network, info = load_network(output, ARCHITECTURES, CLOTHES)
    assert info.arch == name
    before, after = read_file(source), network.state_dict()
    assert sum(torch.equal(before[key], after[key]) for key in after if before[key].shape == after[key].shape) == 784

    assert setup_model_weights.main([*flags, "--list_tensors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("carried over ") for line in lines) == 784
    assert sum(line.startswith("random ") for line in lines) == 14
    assert "random        outconv.bias" in lines


def test_the_wrong_architecture_is_said(tmp_path: Path) -> None:
    torch.save(U2NETP(3, 1).state_dict(), tmp_path / "u2netp.pth")
    output = tmp_path / "out.pth"
    done = python("setup_model_weights.py", f"--source={tmp_path / 'u2netp.pth'}", f"--output={output}")
    assert done.returncode == 1
    assert "is it the other architecture (--arch)?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_weights_are_not_replaced_by_what_is_made_of_them(weights: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pth"
    mine.write_bytes(weights.read_bytes())
    for more in (["--arch=u2netp", f"--source={mine}"], [f"--average={weights},{mine}"]):
        with pytest.raises(RunError, match=r"--output .*mine.pth: expected another file than .*mine.pth"):
            setup_model_weights.main([*more, f"--output={mine}"])
    assert mine.read_bytes() == weights.read_bytes()


def test_a_missing_source_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a weights file, found none"):
        setup_model_weights.main([f"--source={tmp_path / 'none.pth'}", f"--output={tmp_path / 'out.pth'}"])


@pytest.mark.skipif(not REAL.exists(), reason="the original U2NETP weights are not beside the project")
def test_the_original_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup_model_weights.main(["--arch=u2netp", f"--source={REAL}", f"--output={tmp_path / 'out.pth'}"]) == 0
    assert "784 of 798" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--arch=u2netp"], ["--released"], ["--average=a.pth,b.pth"]])
def test_an_output_that_is_a_folder_is_said_first(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--output .*: expected the name of a file to write, found a folder"):
        setup_model_weights.main([*flags, f"--output={tmp_path}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [["--arch=u2netp"], ["--released"]])
def test_an_output_that_cannot_be_written_is_said_before_the_download(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"expected room and leave to write it, found none .* \(--output FILE\)$"):
        setup_model_weights.main([*flags, "--address=nowhere", f"--output={tmp_path / 'file' / 'out.pth'}"])
    assert "Downloading" not in capsys.readouterr().out


def test_an_output_that_cannot_be_written_leaves_nothing_half_written(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "file").touch()
    flags = ["--arch=u2netp", f"--source={weights}"]
    for output in (tmp_path / "file" / "out.pth", tmp_path / ("o" * 300)):
        with pytest.raises((RunError, OSError), match=r"could not be written \(File exists\)|File name too long"):
            setup_model_weights.main([*flags, f"--output={output}"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_flags_that_help_where_no_address_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ORIGINAL_WEIGHTS, "u2netp", replace(ORIGINAL_WEIGHTS["u2netp"], addresses=()))
    with pytest.raises(RunError) as error:
        setup_model_weights.main(["--arch=u2netp", "--address=nowhere", f"--output={tmp_path / 'out.pth'}"])
    assert "\n  nowhere\n    Invalid URL 'nowhere'" in str(error.value)
    assert f"save the file as {tmp_path / 'u2netp.pth'} (4,683,258 bytes" in str(error.value)
    assert str(error.value).endswith("--source FILE takes one that is elsewhere, --address URL tries another address.")
    assert list(tmp_path.iterdir()) == []


def test_weights_can_be_averaged(tmp_path: Path) -> None:
    states = []
    for number, arch in enumerate([U2NETP, U2NETP, U2NETP, U2NET]):
        torch.manual_seed(number)
        state = arch(3, 4).state_dict()
        state["stage1.rebnconvin.bn_s1.num_batches_tracked"].fill_(10 * number)
        states.append(state)
        info = WeightsInfo(arch.__name__.lower(), CLOTHES, (64 + number, 64), step=number, mean_iou_clothes=0.5)
        save_weights(tmp_path / f"{number}.pth", state, info)
    files = [str(tmp_path / f"{number}.pth") for number in range(4)]
    output = tmp_path / "new" / "mean.pth"
    assert setup_model_weights.main([f"--average={','.join(files[:3])}", f"--output={output}"]) == 0
    network, info = load_network(output, ARCHITECTURES, CLOTHES)
    assert (info.size, info.step, info.mean_iou_clothes) == ((66, 64), 2, None)
    for key, found in network.state_dict().items():
        if found.is_floating_point():
            torch.testing.assert_close(found, sum(state[key] for state in states[:3]) / 3)
    assert network.state_dict()["stage1.rebnconvin.bn_s1.num_batches_tracked"] == 20

    with pytest.raises(RunError, match=r"--average: expected weights of one architecture .* \(u2net,"):
        setup_model_weights.main([f"--average={files[0]}, {files[3]}", f"--output={tmp_path / 'other.pth'}"])
    assert not (tmp_path / "other.pth").exists()


def head_of(path: Path) -> dict[str, torch.Tensor]:
    return {key: value for key, value in read_file(path)["state_dict"].items() if key.startswith(("side", "outconv"))}


def test_channels_of_classes_of_the_same_name_are_kept(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text(
        '[[class]]\nname = "hat"\n[[class]]\nname = "full body"\n[[class]]\nname = "x"\n'
    )
    output = tmp_path / "mine.pth"
    flags = [
        "--arch=u2netp",
        f"--classes={tmp_path / 'mine.toml'}",
        f"--source={weights}",
        f"--output={output}",
        "--seed=1",
    ]
    assert setup_model_weights.main(flags) == 0
    said = capsys.readouterr().out
    assert "784 of 798 tensors carried over" in said
    assert "of the head the channels of background, full body\n" in said
    assert said.endswith("Classes that start from random numbers: hat, x\n")
    info = load_network(output, ARCHITECTURES)[1]
    assert info.classes.names == ("background", "hat", "full body", "x")
    before, after = head_of(weights), head_of(output)
    for key in before:
        if key == "outconv.weight":
            sides, new = before[key].view(4, 6, 4), after[key].view(4, 6, 4)
            for here, there in ((0, 0), (2, 3)):
                for with_here, with_there in ((0, 0), (2, 3)):
                    assert torch.equal(new[here, :, with_here], sides[there, :, with_there])
            assert not torch.equal(new[1], sides[1])
        else:
            assert torch.equal(after[key][[0, 2]], before[key][[0, 3]])
            assert not torch.equal(after[key][1], before[key][1])


def test_the_same_classes_keep_the_whole_head(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "same.pth"
    assert setup_model_weights.main(["--arch=u2netp", f"--source={weights}", f"--output={output}"]) == 0
    assert "No class starts from random numbers" in capsys.readouterr().out
    before, after = head_of(weights), head_of(output)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("classes", ["clothes", "garments"])
def test_photos_are_seen_as_the_source_sees_them(classes: str, tmp_path: Path) -> None:
    source, output = tmp_path / "source.pth", tmp_path / "out.pth"
    info = WeightsInfo("u2netp", CLOTHES, (96, 128), mean=0.4, std=0.25, step=3, mean_iou_clothes=0.7)
    save_weights(source, U2NETP(3, 4).state_dict(), info)
    flags = ["--arch=u2netp", f"--source={source}", f"--classes={classes}", f"--output={output}"]
    assert setup_model_weights.main(flags) == 0
    found = load_network(output, ARCHITECTURES)[1]
    assert (found.size, found.mean, found.std, found.mean_iou_clothes) == ((96, 128), 0.4, 0.25, None)
    assert found.step == (None if classes == "clothes" else 0)


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        ("garmnts", "--classes: expected clothes, garments, .*, found 'garmnts', which is neither; did you mean"),
        ("{tmp}/none.toml", "--classes: expected clothes, .*or a TOML file that lists classes, found "),
    ],
)
def test_class_sets_that_are_not_there_are_said(classes: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=complaint):
        setup_model_weights.main([f"--classes={classes.format(tmp=tmp_path)}", f"--output={tmp_path / 'out.pth'}",
                                  f"--source={tmp_path / 'none.pth'}"])  # fmt: skip


def test_the_head_may_tell_garments_apart(tmp_path: Path, weights: Path) -> None:
    output, back = tmp_path / "garments.pth", tmp_path / "classes.pth"
    flags = ["--arch=u2netp", f"--source={weights}", f"--output={output}"]
    assert setup_model_weights.main([*flags, "--labels=garments"]) == 0
    garments = SHIPPED["garments"]
    network, info = load_network(output, ARCHITECTURES, garments)
    assert (info.classes, network.out_ch) == (garments, 14)
    with pytest.raises(RunError, match=r"expected u2netp for 4 classes .* found it for 14"):
        load_network(output, ARCHITECTURES, CLOTHES)
    assert setup_model_weights.main(["--arch=u2netp", f"--source={output}", f"--output={back}"]) == 0
    assert load_network(back, ARCHITECTURES, CLOTHES)[1].classes == CLOTHES
