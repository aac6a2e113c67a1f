import zlib

import numpy as np
import pytest
import torch
from conftest import ROOT

from networks import ARCHITECTURES, U2NET, U2NETP

FACTS = ROOT / "tests" / "facts"


def draw_weights(network: torch.nn.Module, seed: int) -> None:
    """The weights for which the outputs in facts/ were computed."""
    for key, value in network.state_dict().items():
        draw = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
        shape = tuple(value.shape)
        if key.endswith("num_batches_tracked"):
            numbers = np.zeros(shape)
        elif len(shape) == 4:
            numbers = draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif ".bn_" in key and key.endswith(("weight", "running_var")):
            numbers = draw.uniform(0.5, 1.5, shape)
        else:
            numbers = draw.uniform(-0.1, 0.1, shape)
        value.copy_(torch.from_numpy(np.asarray(numbers, dtype=np.float32)))


@pytest.mark.parametrize(
    ("arch", "seed", "size"), [("u2net", 1, (64, 64)), ("u2net", 2, (97, 65)), ("u2netp", 3, (64, 96))]
)
def test_seven_outputs_are_the_original_ones(arch: str, seed: int, size: tuple[int, int]) -> None:
    network = ARCHITECTURES[arch](3, 4).eval()
    draw_weights(network, seed)
    photo = np.random.RandomState(seed).uniform(-1, 1, (1, 3, *size)).astype(np.float32)
    with torch.no_grad():
        outputs = network(torch.from_numpy(photo))
    assert len(outputs) == 7
    with np.load(FACTS / "u2net_outputs.npz") as facts:
        for number, output in enumerate(outputs):
            expected = facts[f"{arch}_seed{seed}_{size[0]}x{size[1]}/{number}"]
            assert output.shape == expected.shape
            # These weights give outputs up to 1,465, where float32 itself rounds to 1e-4 and the sum over thousands
            # of products to 1e-3; so the distance is measured on the scale of the map.
            scale = np.abs(expected).max()
            np.testing.assert_allclose(output.numpy() / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("arch", ["u2net", "u2netp"])
def test_state_dict_has_the_original_keys_shapes_and_order(arch: str) -> None:
    found = [
        f"{key} {'x'.join(map(str, value.shape)) or 'scalar'}"
        for key, value in ARCHITECTURES[arch](3, 4).state_dict().items()
    ]
    assert found == (FACTS / f"{arch}_state_dict.txt").read_text().splitlines()


def test_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in U2NET(3, 4).parameters()) == 44_051_452
    assert sum(parameter.numel() for parameter in U2NETP(3, 4).parameters()) == 1_141_660


@pytest.mark.parametrize("size", [(33, 70), (1, 1), (64, 5)])
def test_any_size_comes_out_as_it_went_in(size: tuple[int, int]) -> None:
    with torch.no_grad():
        outputs = U2NETP(3, 2).eval()(torch.zeros(2, 3, *size))
    assert [tuple(output.shape) for output in outputs] == [(2, 2, *size)] * 7


def test_every_parameter_gets_a_gradient() -> None:
    network = U2NETP(3, 4)
    sum(output.square().mean() for output in network(torch.randn(2, 3, 64, 64))).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
