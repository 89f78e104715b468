"""What every fusion keeps to: modules by name, and kinds of the whole network."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from fedfuse_ray.config import FusionKind
from fedfuse_ray.config.settings.model import CNN_STAGES, EncoderConfig
from fedfuse_ray.models.encoders.cnn import first_stages, grid_after, last_stages, small_cnn
from fedfuse_ray.models.fusion import FUSIONS
from fedfuse_ray.models.initial import initial_blocks
from fedfuse_ray.models.net import CrossModalNet
from fedfuse_ray.models.spec import FUSION, WITHOUT_FUSION_BLOCK
from tests.support.federations import spec_of

DIM, SLOTS, BATCH = 6, 3, 7
MODALITIES = ("ct", "mri")
KINDS = get_args(FusionKind)


@pytest.fixture(params=FUSIONS)
def fusion(request):
    torch.manual_seed(1)
    module = FUSIONS[request.param](DIM, SLOTS)
    for parameter in module.parameters():  # Also what begins at zero must obey.
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(BATCH, SLOTS, DIM, generator=generator)
    mask = torch.rand(BATCH, SLOTS, generator=generator) < 0.6
    mask[:, 0] |= ~mask.any(dim=1)
    return embeddings, mask


def test_every_kind_has_a_module_or_needs_none():
    assert set(KINDS) == set(FUSIONS) | WITHOUT_FUSION_BLOCK


def test_one_vector_a_specimen_and_weights_of_the_present(fusion):
    embeddings, mask = inputs()
    fused, weights = fusion(embeddings, mask)
    assert fused.shape == (BATCH, DIM)
    assert weights.shape == (BATCH, SLOTS)
    assert (weights >= 0).all()
    assert not weights[~mask].any()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(BATCH))


@pytest.mark.parametrize("content", [0.0, 5.0, -1e4])
def test_what_is_absent_has_no_influence(fusion, content):
    embeddings, mask = inputs()
    embeddings.requires_grad_()
    fused, weights = fusion(embeddings, mask)
    fused.sum().backward()
    assert not embeddings.grad[~mask].any()
    assert embeddings.grad[mask].abs().sum() > 0
    other = torch.where(mask[..., None], embeddings.detach(), torch.tensor(content))
    fused_other, weights_other = fusion(other, mask)
    torch.testing.assert_close(fused_other, fused)
    torch.testing.assert_close(weights_other, weights)


def test_what_is_present_has_influence(fusion):
    embeddings, mask = inputs()
    other = embeddings.clone()
    other[mask] += 1
    assert not torch.allclose(fusion(embeddings, mask)[0], fusion(other, mask)[0], atol=1e-3)


def test_a_specimen_does_not_feel_its_batch(fusion):
    embeddings, mask = inputs()
    fused, weights = fusion(embeddings, mask)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(0))
    again, weights_again = fusion(embeddings[order], mask[order])
    torch.testing.assert_close(again, fused[order])
    torch.testing.assert_close(weights_again, weights[order])


def test_nothing_present_gives_finite_numbers_and_no_weight(fusion):
    embeddings, mask = inputs()
    fused, weights = fusion(embeddings, torch.zeros_like(mask))
    assert torch.isfinite(fused).all()
    assert not weights.any()


def test_fewer_modalities_than_slots_are_taken(fusion):
    embeddings, mask = inputs()
    mask[:, -1] = False
    mask[:, 0] = True
    narrow, _ = fusion(embeddings[:, :-1], mask[:, :-1])
    torch.testing.assert_close(narrow, fusion(embeddings, mask)[0])


@pytest.mark.parametrize("kind", ["attention", "mean", "hybrid"])
def test_the_order_of_modalities_does_not_matter(kind):
    torch.manual_seed(1)
    module = FUSIONS[kind](DIM, SLOTS)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    embeddings, mask = inputs()
    order = torch.tensor([2, 0, 1])
    fused, weights = module(embeddings, mask)
    permuted, weights_permuted = module(embeddings[:, order], mask[:, order])
    torch.testing.assert_close(permuted, fused)
    torch.testing.assert_close(weights_permuted, weights[:, order])


def test_attention_favours_what_it_scores_higher():
    torch.manual_seed(0)
    module = FUSIONS["attention"](DIM, SLOTS)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    embeddings, _ = inputs()
    _, weights = module(embeddings, torch.ones(BATCH, SLOTS, dtype=torch.bool))
    assert (weights - 1 / SLOTS).abs().max() > 0.05


# The whole network, whatever its fusion.


def net_of(kind, modalities=MODALITIES, seed=0):
    spec = spec_of(kind, seed=seed)
    net = CrossModalNet(spec, "medical", modalities)
    net.set_blocks(initial_blocks(spec))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        net.flat.add_(0.05 * torch.randn(len(net.flat), generator=generator))
    return net


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.rand(BATCH, 1, 16, 16, generator=generator) for m in MODALITIES}


@pytest.mark.parametrize("kind", KINDS)
def test_a_networks_logits_do_not_depend_on_what_is_not_shown(kind):
    net = net_of(kind)
    mask = torch.tensor([[True, False]]).expand(BATCH, -1)
    shown, other = images(0), images(1)
    mixed = {"ct": shown["ct"], "mri": other["mri"]}
    with torch.no_grad():
        logits, weights = net.classify(net.embed(shown), mask)
        same, _ = net.classify(net.embed(mixed), mask)
        different, _ = net.classify(net.embed(other), mask)
    assert logits.shape == (BATCH, 3)
    torch.testing.assert_close(logits, same)
    assert not torch.allclose(logits, different, atol=1e-3)
    torch.testing.assert_close(weights, mask.float())


@pytest.mark.parametrize("kind", KINDS)
def test_an_owner_of_less_computes_what_an_owner_of_all_is_shown(kind):
    """A participant without a modality, and one that has it hidden, are the same network."""
    wide = net_of(kind)
    narrow = CrossModalNet(wide.spec, "medical", ("mri",))
    narrow.set_blocks(wide.get_blocks())
    batch = images()
    with torch.no_grad():
        wide_logits, _ = wide.classify(
            wide.embed(batch), torch.tensor([[False, True]]).expand(BATCH, -1)
        )
        narrow_logits, _ = narrow.classify(
            narrow.embed({"mri": batch["mri"]}), torch.ones(BATCH, 1, dtype=torch.bool)
        )
    torch.testing.assert_close(
        torch.log_softmax(narrow_logits, 1), torch.log_softmax(wide_logits, 1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind):
    from fedfuse_ray.federation.institution.training import training_loss

    net = net_of(kind)
    present = torch.ones(BATCH, 2, dtype=torch.bool)
    labels = torch.arange(BATCH) % 3
    training_loss(net, images(), present, present, labels).sum().backward()
    for name, (start, stop) in net.offsets.items():
        assert net.gradient[start:stop].abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_fusion_block_is_there_where_it_has_parameters(kind):
    names = net_of(kind).names
    assert (FUSION in names) is (kind not in WITHOUT_FUSION_BLOCK)


@pytest.mark.parametrize("kind", ["late", "none"])
def test_late_fusion_averages_probabilities(kind):
    net, batch = net_of(kind), images()
    with torch.no_grad():
        embedded = net.embed(batch)
        both, _ = net.classify(embedded, torch.ones(BATCH, 2, dtype=torch.bool))
        each = [
            torch.softmax(net.classify(embedded, m[None].expand(BATCH, -1))[0], dim=1)
            for m in torch.eye(2, dtype=torch.bool)
        ]
    torch.testing.assert_close(torch.softmax(both, dim=1), (each[0] + each[1]) / 2)


def test_hybrid_fusion_averages_a_joint_and_a_late_prediction():
    net, batch = net_of("hybrid"), images()
    mask = torch.tensor([[True, True], [True, False], [False, True]]).repeat(3, 1)[:BATCH]
    parts = []
    for kind in ("attention", "late"):
        part = CrossModalNet(spec_of(kind), "medical", MODALITIES)
        part.set_blocks(net.get_blocks())
        with torch.no_grad():
            parts.append(part.classify(part.embed(batch), mask))
    with torch.no_grad():
        logits, weights = net.classify(net.embed(batch), mask)
    wanted = sum(torch.softmax(logits, dim=1) for logits, _ in parts) / 2
    torch.testing.assert_close(torch.exp(logits), wanted)
    torch.testing.assert_close(weights, parts[0][1])


@pytest.mark.parametrize("depth", range(1, CNN_STAGES + 1))
def test_intermediate_fusion_averages_the_maps_of_what_is_shown(depth):
    """By hand: each modality's stages, the mean on one grid, the shared stages."""
    spec = spec_of("intermediate", depth=depth)
    net = CrossModalNet(spec, "materials", ("rgb", "line"))
    net.set_blocks(initial_blocks(spec))
    batch = {"rgb": torch.rand(2, 3, 16, 16), "line": torch.rand(2, 1, 64)}
    with torch.no_grad():
        image = net.blocks["encoder/rgb"](batch["rgb"])
        signal = net.blocks["encoder/line"](batch["line"])
        side = image.shape[-1]
        assert side == (8, 4, 4)[depth - 1]
        folded = torch.nn.functional.interpolate(signal, size=side * side, mode="linear")
        both = (image + folded.view(image.shape)) / 2
        shared, head = net.blocks["encoder/shared/materials"], net.blocks["head/materials"]
        embedded = net.embed(batch)
        logits, _ = net.classify(embedded, torch.ones(2, 2, dtype=torch.bool))
        alone, _ = net.classify(embedded, torch.tensor([[True, False]]).expand(2, -1))
        torch.testing.assert_close(logits, head(shared(both)))
        torch.testing.assert_close(alone, head(shared(image)))


def test_the_stages_before_and_after_the_depth_are_those_of_one_cnn():
    cnn = small_cnn(EncoderConfig(width=4), (1, 16, 16))
    assert len(cnn.convolutions) == CNN_STAGES
    whole = sum(p.numel() for p in cnn.parameters())
    for depth in range(1, CNN_STAGES + 1):
        first = first_stages(EncoderConfig(width=4), (1, 16, 16), depth)
        last = last_stages(EncoderConfig(width=4), depth)
        assert sum(p.numel() for part in (first, last) for p in part.parameters()) == whole
        assert last(first(torch.rand(2, 1, 16, 16))).shape == (2, cnn.features)
        assert first(torch.rand(1, 1, 18, 14)).shape[2:] == grid_after((18, 14), depth)


def test_at_depth_zero_intermediate_fusion_is_early_fusion():
    early, zero = spec_of("early"), spec_of("intermediate", depth=0)
    first, other = initial_blocks(early), initial_blocks(zero)
    assert list(first) == list(other)
    assert all((first[name] == other[name]).all() for name in first)
    batch, mask = images(), torch.tensor([[True, False]]).expand(BATCH, -1)
    results = []
    for spec in (early, zero):
        net = CrossModalNet(spec, "medical", MODALITIES)
        net.set_blocks(first)
        with torch.no_grad():
            results.append(net.classify(net.embed(batch), mask)[0])
    torch.testing.assert_close(results[0], results[1])


def test_early_fusion_folds_signals_onto_the_images_grid():
    spec = spec_of("early")
    net = CrossModalNet(spec, "materials", ("rgb", "line"))
    net.set_blocks(initial_blocks(spec))
    batch = {"rgb": torch.rand(2, 3, 16, 16), "line": torch.rand(2, 1, 64)}
    stacked = net.embed(batch)
    assert stacked.shape == (2, 4, 16, 16)
    logits, _ = net.classify(stacked, torch.ones(2, 2, dtype=torch.bool))
    assert logits.shape == (2, 4)


def test_a_product_of_experts_adds_up_the_logits_of_what_is_present():
    net, batch = net_of("product"), images()
    mask = torch.tensor([[True, True], [True, False], [False, True]]).repeat(3, 1)[:BATCH]
    with torch.no_grad():
        embedded = net.embed(batch)
        logits, weights = net.classify(embedded, mask)
        heads = net.blocks["head/medical"]
        each = torch.einsum("bmd,mkd->bmk", embedded, heads.weight) + heads.bias
    torch.testing.assert_close(logits, (each * mask[..., None]).sum(dim=1))
    spread = (each - each.mean(dim=2, keepdim=True)).abs().sum(dim=2) * mask
    torch.testing.assert_close(weights, spread / spread.sum(dim=1, keepdim=True))


def test_a_product_does_not_feel_the_order_of_modalities():
    spec, batch = spec_of("product"), images()
    mask = torch.tensor([[True, True], [True, False], [False, True]]).repeat(3, 1)[:BATCH]
    results = []
    for order in (MODALITIES, MODALITIES[::-1]):
        net = CrossModalNet(spec, "medical", order)
        generator = np.random.default_rng(3)
        drawn = {n: generator.normal(size=v.size) for n, v in sorted(net.get_blocks().items())}
        net.set_blocks({n: v.astype(np.float32) for n, v in drawn.items()})
        shown = mask if order == MODALITIES else mask.flip(1)
        with torch.no_grad():
            logits, weights = net.classify(net.embed(batch), shown)
        results.append((logits, weights if order == MODALITIES else weights.flip(1)))
    torch.testing.assert_close(results[0], results[1])


def test_a_products_heads_are_one_block_of_all_of_a_domain():
    both, one = net_of("product"), net_of("product", MODALITIES[1:])
    assert both.offsets["head/medical"][1] - both.offsets["head/medical"][0] == 2 * 3 * (8 + 1)
    assert one.names == ("encoder/mri", "head/medical")
    one.set_blocks({name: both.get_blocks()[name] for name in one.names})
    batch = images()
    with torch.no_grad():
        alone = one.classify(one.embed(batch), torch.ones(BATCH, 1, dtype=torch.bool))[0]
        shown = torch.tensor([[False, True]]).expand(BATCH, -1)
        torch.testing.assert_close(alone, both.classify(both.embed(batch), shown)[0])


def test_a_products_heads_begin_with_no_evidence():
    spec = spec_of("product")
    net = CrossModalNet(spec, "medical", MODALITIES)
    net.set_blocks(initial_blocks(spec))
    logits, weights = net.classify(net.embed(images()), torch.ones(BATCH, 2, dtype=torch.bool))
    assert not logits.any()
    assert (weights == 0.5).all()
