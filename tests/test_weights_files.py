import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cloth_segmentation.classes import CLOTHES
from cloth_segmentation.errors import RunError
from cloth_segmentation.weights_info import WeightsInfo
from networks import ARCHITECTURES, U2NET, U2NETP
from utils.weights_files import (
    digest,
    load_network,
    random_state,
    read_file,
    restore_random_state,
    save_weights,
    state_dict_of,
    transplant,
)

CLASSES = ("background", "upper body", "lower body", "full body")


def load(path: Path, **settings: str) -> tuple[torch.nn.Module, WeightsInfo]:
    return load_network(path, ARCHITECTURES, CLOTHES, **settings)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_our_files_say_what_they_are(tmp_path: Path) -> None:
    network = U2NETP(3, 4)
    info = WeightsInfo("u2netp", CLOTHES, (64, 96), 0.4, 0.3, 7, 0.5)
    save_weights(tmp_path / "new" / "w.pth", network.state_dict(), info)
    loaded, found = load(tmp_path / "new" / "w.pth")
    assert found == info
    assert type(loaded) is U2NETP
    assert digest(loaded.state_dict()) == digest(network.state_dict())
    assert not any(key.startswith("module.") for key in read_file(tmp_path / "new" / "w.pth")["state_dict"])


@pytest.mark.parametrize("arch", [U2NET, U2NETP])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_checkpoints_load_with_and_without_prefix(tmp_path: Path, arch: type[U2NET], prefix: str) -> None:
    state = arch(3, 4).state_dict()
    path = saved(tmp_path / "w.pth", {prefix + key: value for key, value in state.items()})
    network, info = load(path)
    assert type(network) is arch
    assert digest(network.state_dict()) == digest(state)
    assert (info.size, info.mean, info.std) == ((768, 768), 0.5, 0.5)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_wrappers_of_other_programs_are_opened(tmp_path: Path, wrapper: str) -> None:
    state = U2NETP(3, 4).state_dict()
    wrapped = {f"module.{key}": value for key, value in state.items()}
    path = saved(tmp_path / "w.pth", {"epoch": 3, wrapper: wrapped, "optimizer": {"param_groups": [{"lr": 0.1}]}})
    assert digest(load(path)[0].state_dict()) == digest(state)


def test_wrappers_within_wrappers_are_opened(tmp_path: Path) -> None:
    state = U2NETP(3, 4).state_dict()
    for number, content in enumerate(
        (
            {"model": {"state_dict": state}},
            {"state_dict": {}, "model_state_dict": state},
            {"format": "pt", "state_dict": state},
        )
    ):
        assert digest(load(saved(tmp_path / f"{number}.pth", content))[0].state_dict()) == digest(state)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.", "module.model."]
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_what_stands_before_all_keys_is_left_out(prefix: str, ending: str, tmp_path: Path) -> None:
    state = U2NETP(3, 4).state_dict()
    prefixed = {prefix + key: value for key, value in state.items()}
    path = tmp_path / f"w.{ending}"
    (save_file if ending == "safetensors" else torch.save)(prefixed, path)
    assert digest(load(path)[0].state_dict()) == digest(state)


@pytest.mark.parametrize("wrapper", ["net", "params", "generator", "weights"])
def test_a_wrapper_of_any_name_is_opened_where_it_is_the_only_one(wrapper: str, tmp_path: Path) -> None:
    state = U2NETP(3, 4).state_dict()
    content = {"epoch": 3, wrapper: state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    assert digest(load(saved(tmp_path / "w.pth", content))[0].state_dict()) == digest(state)


def test_strange_numbers_are_named(tmp_path: Path) -> None:
    state = U2NETP(3, 4).state_dict()
    state["outconv.bias"] = state["outconv.bias"].to(torch.complex64)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(RunError, match=r"expected numbers in 16 to 64 bits, found torch.complex64 in outconv.bias"):
        load(tmp_path / "w.safetensors")


def test_safetensors_are_read_whatever_their_name(tmp_path: Path) -> None:
    state = U2NETP(3, 4).state_dict()
    save_file(state, tmp_path / "w.pth")
    network, info = load(tmp_path / "w.pth")
    assert digest(network.state_dict()) == digest(state)
    assert info.size == (768, 768)


def test_a_prefix_is_not_cut_where_only_some_keys_have_it(tmp_path: Path) -> None:
    state = dict(U2NETP(3, 4).state_dict())
    state["module.side1.bias"] = state.pop("side1.bias")
    with pytest.raises(RunError, match=r"w.pth: expected .* u2netp: 1 tensors missing, 1 too many"):
        load(saved(tmp_path / "w.pth", state))


def test_keys_that_only_begin_like_the_prefix_stay_whole() -> None:
    # The original cut the first seven letters of every key.
    tensor = torch.zeros(1)
    assert list(state_dict_of({"modular.x": tensor, "module.y": tensor}, Path("f"))) == ["modular.x", "module.y"]
    assert list(state_dict_of({"module.module.x": tensor}, Path("f"))) == ["module.x"]


def test_missing_file_is_an_error_not_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"absent.pth: expected a weights file, found none"):
        load(tmp_path / "absent.pth")
    with pytest.raises(RunError, match="found a folder"):
        load(tmp_path)


def test_other_numbers_of_classes_and_other_networks_are_named(tmp_path: Path) -> None:
    salient = saved(tmp_path / "salient.pth", U2NETP(3, 1).state_dict())
    with pytest.raises(
        RunError,
        match=r"salient.pth: expected u2netp for 4 classes .* for 1, which .* name; original U2-Net weights",
    ):
        load(salient)
    small = saved(tmp_path / "small.pth", U2NETP(3, 4).state_dict())
    with pytest.raises(RunError, match=r"small.pth: expected u2net, found u2netp; give --arch u2netp"):
        load(small, arch="u2net")
    other = saved(tmp_path / "other.pth", torch.nn.Linear(2, 2).state_dict())
    with pytest.raises(RunError, match=r"other.pth: expected the weights of u2net or u2netp, found 2 tensors"):
        load(other)


def test_all_kinds_of_tensors_and_plain_values_come_back(tmp_path: Path) -> None:
    kinds = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    kinds += [torch.int8, torch.uint8, torch.bool]
    tensors = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    tensors |= {"parameter": torch.nn.Parameter(torch.ones(2)), "none": torch.zeros(0), "slice": torch.arange(9)[3:5]}
    content = {"tensors": tensors, "plain": [1, 2**70, -0.5, float("inf"), None, True, "text", (1, (2, {"a": []}))]}
    for name, is_zip in (("new", True), ("legacy", False)):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=is_zip)
        found = read_file(tmp_path / name)
        (tmp_path / name).write_bytes(bytes(100_000))  # what was read does not hang on the file
        assert found["plain"] == content["plain"]
        assert list(found["tensors"]) == list(tensors)
        for key, value in tensors.items():
            assert found["tensors"][key].dtype == value.dtype
            assert torch.equal(found["tensors"][key], value)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("pwned"),))


def test_nothing_but_tensors_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, write in enumerate((torch.save, lambda value, path: path.write_bytes(pickle.dumps(value)))):
        path = tmp_path / f"{number}.pth"
        write({"a": Malicious()}, path)
        with pytest.raises(RunError, match="cannot be read safely"):
            load(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"<html>over quota</html>", b"PK\x03\x04 broken", b"PK"])
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(RunError, match=r"w.pth: expected"):
        load(tmp_path / "w.pth")
    with pytest.raises(RunError, match=r"list.pth: expected a dictionary of tensors, found list"):
        load(saved(tmp_path / "list.pth", [1]))
    with pytest.raises(RunError, match=r"dict.pth: expected a state dict of tensors, found a, b"):
        load(saved(tmp_path / "dict.pth", {"a": 1, "b": 2}))


@pytest.mark.parametrize("arch", [U2NET, U2NETP])
def test_surgery_moves_784_of_798_tensors(arch: type[U2NET]) -> None:
    source, network = arch(3, 1).state_dict(), arch(3, 4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    carried, stayed = transplant(source, network, Path("u2net.pth"))
    assert (len(carried), len(stayed)) == (784, 14)
    after = network.state_dict()
    assert all(torch.equal(after[key], source[key]) for key in carried)
    assert all(torch.equal(after[key], before[key]) for key in stayed)
    assert {key.rsplit(".", 1)[0] for key in stayed} == {"outconv", *(f"side{level}" for level in range(1, 7))}


def test_surgery_leaves_nothing_unsaid() -> None:
    source = dict(U2NETP(3, 1).state_dict())
    lacking = {key: value for key, value in source.items() if key != "stage1.rebnconvin.bn_s1.bias"}
    with pytest.raises(RunError, match=r"u.pth: expected 784 .* 1 missing, 0 left over, 0 of another shape"):
        transplant(lacking, U2NETP(3, 4), Path("u.pth"))
    with pytest.raises(RunError, match=r"0 missing, 1 left over"):
        transplant(source | {"extra": torch.zeros(1)}, U2NETP(3, 4), Path("u.pth"))
    with pytest.raises(RunError, match=r"of another shape.*--arch"):
        transplant(source, U2NET(3, 4), Path("u.pth"))


def test_weights_of_a_later_format_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.pth", U2NETP(3, 4).state_dict(), WeightsInfo("u2netp", CLOTHES))
    content = read_file(tmp_path / "w.pth") | {"format": "cloth-segmentation weights 2"}
    with pytest.raises(RunError, match=r"weights 1', found 'cloth-segmentation weights 2'"):
        load(saved(tmp_path / "w.pth", content))


def test_random_state_comes_back() -> None:
    state = random_state()
    numbers = torch.rand(3)
    restore_random_state(state)
    assert torch.equal(torch.rand(3), numbers)
