"""Linear layers by oneDNN's products compute what `nn.Linear` computes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from inbatch.device import cpu_products
from inbatch.encoder import linear
from inbatch.encoder.linear import Linear, is_linear, use_fast_products


@pytest.fixture(autouse=True)
def _faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the processor, and for small products too."""
    for module in (cpu_products, linear):
        monkeypatch.setattr(module, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(cpu_products, "_SMALLEST", 1)


def layers(*, bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(48, 40, bias=bias)
    fast = copy.deepcopy(plain)
    use_fast_products(nn.Sequential(fast))
    assert type(fast) is Linear
    return plain, fast


def results(layer: nn.Linear, inputs: Tensor) -> list[Tensor]:
    mine = inputs.clone().requires_grad_()
    output = layer(mine)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    return [output.detach(), *torch.autograd.grad(output.cos().sum(), [mine, *parameters])]


@pytest.mark.parametrize("shape", [(70, 48), (3, 25, 48), (48,), (0, 48)])
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_those_of_the_plain_layer(
    shape: tuple[int, ...], bias: bool
) -> None:
    plain, fast = layers(bias=bias)
    inputs = torch.randn(shape)
    for found, wanted in zip(results(fast, inputs), results(plain, inputs), strict=True):
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_products_are_onednns(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    product = linear.onednn_product

    def counted(*args: Tensor) -> Tensor:
        calls.append(args[0].shape)
        return product(*args)

    monkeypatch.setattr(linear, "onednn_product", counted)
    plain, fast = layers()
    results(fast, torch.randn(70, 48))
    assert calls == [(70, 48), (70, 40), (40, 70)]
    fast.weight.requires_grad_(False)
    results(fast, torch.randn(70, 48))
    assert len(calls) == 5
    results(plain, torch.randn(70, 48))
    assert len(calls) == 5


def test_other_precisions_are_left_alone() -> None:
    plain, fast = layers()
    inputs = torch.randn(70, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for found, wanted in zip(results(fast, inputs), results(plain, inputs), strict=True):
            assert torch.equal(found, wanted)
    for found, wanted in zip(
        results(fast.double(), inputs.double()), results(plain.double(), inputs.double())
    ):
        assert torch.equal(found, wanted)


class Own(nn.Linear):
    """May use its weights otherwise."""


def test_only_plain_layers_are_changed_and_they_can_be_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 3), Own(3, 3))
    use_fast_products(model)
    assert [is_linear(layer) for layer in model] == [True, False]
    again = pickle.loads(pickle.dumps(model))
    assert [type(layer) for layer in again] == [Linear, Own]
    assert list(again.state_dict()) == list(model.state_dict())


def test_products_into_a_buffer() -> None:
    left, right = torch.randn(30, 20), torch.randn(20, 25)
    out = torch.empty(30, 32)[:, :25]
    out = cpu_products.product_in(out, left, right, alpha=3.0)
    torch.testing.assert_close(out, 3 * (left @ right), rtol=1e-5, atol=1e-5)
    cpu_products.add_product(out, left, right)
    torch.testing.assert_close(out, 4 * (left @ right), rtol=1e-5, atol=1e-5)
