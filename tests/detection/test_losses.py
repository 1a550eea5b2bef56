from __future__ import annotations

import torch
import torch.nn.functional as F

from paperbench.detection.losses import fast_rcnn_loss, objectness_nll, rpn_loss, smooth_l1


def test_smooth_l1_with_sigma_3_gives_the_published_values() -> None:
    x = torch.tensor([0.05, 0.1, 1 / 9, 0.2, 0.5, 1, 2])
    expected = torch.tensor([0.01125, 0.045, 0.055556, 0.144444, 0.444444, 0.944444, 1.944444])
    torch.testing.assert_close(smooth_l1(x, 3.0), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(smooth_l1(-x, 3.0), expected, atol=1e-6, rtol=0)


def test_two_way_softmax_and_logistic_objectness_are_log_losses() -> None:
    logits = torch.randn(5, 2)
    positive = torch.tensor([True, False, True, False, False])
    torch.testing.assert_close(
        objectness_nll(logits, positive), F.cross_entropy(logits, positive.long(), reduction="none")
    )
    margin = logits[:, 1:] - logits[:, :1]
    torch.testing.assert_close(objectness_nll(margin, positive), objectness_nll(logits, positive))


def rpn_inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    positive = torch.zeros(2, 8, dtype=torch.bool)
    positive[0, :3] = True
    valid = torch.ones(2, 8, dtype=torch.bool)
    valid[1, 6:] = False
    return {
        "logits": torch.randn(2, 8, 1),
        "deltas": torch.randn(2, 8, 4),
        "targets": torch.randn(2, 8, 4),
        "positive": positive,
        "valid": valid,
    }


def test_both_normalisations_of_the_rpn_loss() -> None:
    inputs = rpn_inputs()
    locations = torch.tensor([100.0, 50.0])
    common = {"sampled": 8, "locations": locations, "sigma": 3.0}
    paper = rpn_loss(**inputs, normalisation="paper", weight=10.0, **common)  # pyright: ignore[reportArgumentType]
    code = rpn_loss(**inputs, normalisation="sampled", weight=1.0, **common)  # pyright: ignore[reportArgumentType]
    nll = objectness_nll(inputs["logits"], inputs["positive"])[inputs["valid"]].sum()
    distance = smooth_l1(inputs["deltas"] - inputs["targets"], 3.0)[inputs["positive"]].sum()
    torch.testing.assert_close(paper[0], nll / 16)
    torch.testing.assert_close(paper[1], 10 * distance / 100 / 2)  # all positives are of the first image
    torch.testing.assert_close(code[0], nll / 14)
    torch.testing.assert_close(code[1], distance / 14)


def test_padding_changes_no_loss_and_gets_no_gradient() -> None:
    inputs = rpn_inputs()
    inputs["deltas"].requires_grad_()
    loss = sum(rpn_loss(**inputs, normalisation="sampled", sampled=8, locations=torch.ones(2), weight=1.0, sigma=1.0))  # pyright: ignore[reportArgumentType]
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert inputs["deltas"].grad is not None
    assert (inputs["deltas"].grad[~inputs["positive"]] == 0).all()


def test_fast_rcnn_loss_trains_the_box_of_the_regions_own_class() -> None:
    logits = torch.zeros(3, 4)
    deltas = torch.zeros(3, 4, 4, requires_grad=True)
    labels = torch.tensor([2, 0, 1])
    valid = torch.tensor([True, True, False])
    classification, box = fast_rcnn_loss(logits, deltas, torch.ones(3, 4), labels, valid, sigma=1.0)
    torch.testing.assert_close(classification, torch.tensor(4.0).log())
    torch.testing.assert_close(box, torch.tensor(4 * 0.5 / 2))
    box.backward()
    touched = deltas.grad.abs().sum(-1) > 0  # pyright: ignore[reportOptionalMemberAccess]
    assert touched.nonzero().tolist() == [[0, 2]]
