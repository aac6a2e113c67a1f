import math

import torch

from networks import DeepSupervisionLoss


def test_weights_of_outputs_and_classes() -> None:
    # Logits of 0 give every class 1/4: each cross-entropy is log 4 whatever the class weights.
    total, fused = DeepSupervisionLoss()([torch.zeros(1, 4, 2, 2)] * 7, torch.zeros(1, 2, 2, dtype=torch.int64))
    assert math.isclose(fused, math.log(4), rel_tol=1e-6)
    assert math.isclose(total, 7.5 * math.log(4), rel_tol=1e-6)


def test_clothes_count_one_and_a_half_times() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]).T.reshape(1, 4, 1, 2)
    target = torch.tensor([[[0, 3]]])
    right, wrong = math.log(math.exp(2) + 3) - 2, math.log(4)
    _, fused = DeepSupervisionLoss()([logits] * 7, target)
    assert math.isclose(fused, (right + 1.5 * wrong) / 2.5, rel_tol=1e-6)


def test_only_the_fused_output_is_in_the_second_loss() -> None:
    target = torch.zeros(1, 2, 2, dtype=torch.int64)
    fused_logits, side = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    side[:, 1] = 5
    total, fused = DeepSupervisionLoss()([fused_logits] + [side] * 6, target)
    assert math.isclose(fused, math.log(4), rel_tol=1e-6)
    assert math.isclose(total, 1.5 * math.log(4) + 6 * math.log(math.exp(5) + 3), rel_tol=1e-6)


def test_class_weights_move_with_the_module_and_stay_out_of_gradients() -> None:
    loss = DeepSupervisionLoss((1, 2))
    assert list(loss.parameters()) == []
    assert loss.double().class_weights.dtype == torch.float64
