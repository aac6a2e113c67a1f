import math

import torch

from networks import DeepSupervisionLoss
from networks.losses import lovasz_softmax


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
    loss = DeepSupervisionLoss(3)
    assert loss.class_weights.tolist() == [1, 1.5, 1.5]
    assert list(loss.parameters()) == []
    assert loss.double().class_weights.dtype == torch.float64


def one_hot_logits(labels: torch.Tensor, certainty: float = 100.0) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2) * certainty


def test_lovasz_softmax_of_certain_predictions_is_one_minus_mean_iou() -> None:
    draw = torch.Generator().manual_seed(0)
    truth, called = torch.randint(0, 4, (2, 3, 16, 12), generator=draw)
    ious = [
        ((truth == value) & (called == value)).sum() / ((truth == value) | (called == value)).sum()
        for value in range(4)
    ]
    assert math.isclose(lovasz_softmax(one_hot_logits(called), truth), 1 - sum(ious) / 4, rel_tol=1e-5)
    assert lovasz_softmax(one_hot_logits(truth), truth) < 1e-6


def test_lovasz_softmax_leaves_absent_classes_out() -> None:
    truth = torch.zeros(1, 4, 4, dtype=torch.int64)
    truth[:, 2:] = 2
    called = truth.clone()
    called[:, 0] = 2  # background 1/2, class 2 2/3
    assert math.isclose(lovasz_softmax(one_hot_logits(called), truth), 1 - (1 / 2 + 2 / 3) / 2, rel_tol=1e-5)


def test_lovasz_softmax_teaches() -> None:
    truth = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    logits = torch.zeros(2, 4, 8, 8, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=100)
    for _ in range(50):
        optimizer.zero_grad()
        lovasz_softmax(logits, truth).backward()
        optimizer.step()
    assert (logits.argmax(1) == truth).float().mean() > 0.95


def test_the_region_loss_is_added_by_its_weight() -> None:
    outputs = list(torch.randn(7, 2, 4, 8, 8, generator=torch.Generator().manual_seed(2)))
    target = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(3))
    plain, fused = DeepSupervisionLoss()(outputs, target)
    total, same = DeepSupervisionLoss(region_weight=2.5)(outputs, target)
    assert math.isclose(total, plain + 2.5 * lovasz_softmax(outputs[0], target), rel_tol=1e-6)
    assert same == fused


def test_certain_probabilities_count_as_labels_do() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 6, 5), generator=draw)
    certain = torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    outputs = torch.randn((7, 2, 4, 6, 5), generator=draw).unbind()
    for loss in (DeepSupervisionLoss(), DeepSupervisionLoss(region_weight=2.0)):
        torch.testing.assert_close(loss(outputs, certain), loss(outputs, labels))


def test_the_best_logits_are_those_of_the_probabilities() -> None:
    wanted = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 4, 1, 1)
    logits = torch.zeros(1, 4, 1, 1, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=1)
    for _ in range(300):
        optimizer.zero_grad()
        # Every class with one weight: a weight draws the prediction towards its class, with labels as with these.
        DeepSupervisionLoss(clothes_weight=1.0)([logits] * 7, wanted)[1].backward()
        optimizer.step()
    torch.testing.assert_close(logits.softmax(1), wanted, rtol=0, atol=1e-3)
