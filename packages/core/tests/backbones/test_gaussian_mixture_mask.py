import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core import create_backbone, create_model
from opsin.core.backbones.gaussian_mixture_mask import (
    GaussianMixtureMask,
    LearnedMask,
    MaskedAttention,
    MaskedCaiTClassifier,
    MaskedPiT,
    MaskedPiTClassifier,
    MaskedSwin,
    MaskedSwinClassifier,
    MaskedT2T,
    MaskedT2TClassifier,
    MaskedViT,
    MaskedViTClassifier,
)
from opsin.core.backbones.gaussian_mixture_mask.cait import layer_scale_init
from opsin.core.backbones.gaussian_mixture_mask.t2t import sinusoids, soft_split
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published, place
from opsin.core.systems import get_system
from opsin.registry import MODELS

VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "head_dim": 4, "mlp_ratio": 2.0}
SWIN = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window_size": 4, "mlp_ratio": 2.0}
CAIT = {"embed_dim": 16, "depth": 2, "cls_depth": 2, "num_heads": 3, "head_dim": 4, "hidden_dim": 24}
PIT = {"embed_dim": 12, "depths": (1, 2, 1), "num_heads": (1, 2, 2), "head_dim": 6, "mlp_ratio": 2.0}
T2T = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "token_dim": 8}
HOSTS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "vit": (MaskedViTClassifier, VIT),
    "swin": (MaskedSwinClassifier, SWIN),
    "cait": (MaskedCaiTClassifier, CAIT),
    "pit": (MaskedPiTClassifier, PIT),
    "t2t": (MaskedT2TClassifier, T2T),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def squared_distances(height: int, width: int) -> Tensor:
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).float()
    return (places[:, None] - places).square().sum(-1)


def softly_masked(model: nn.Module) -> nn.Module:
    """The model with mixtures in which several Gaussians matter, and learned masks away from 0."""
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, GaussianMixtureMask):
            nn.init.normal_(module.sigma, 2.5, 0.8, generator)
            nn.init.normal_(module.alpha, 0.6, 0.8, generator)
        if isinstance(module, LearnedMask):
            nn.init.normal_(module.mask, 1.0, 1.0, generator)
    return model


# parity and counts


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("plain_vit_32", 10, 2_692_426),
        ("gmm_vit_32", 10, 2_693_122),
        ("elm_vit_32", 10, 2_728_906),
        ("gmm_vit_64", 200, 2_757_440),
        ("plain_swin_32", 10, 7_073_188),
        ("gmm_swin_32", 10, 7_074_088),
        ("plain_cait_tiny_32", 10, 5_078_834),
        ("gmm_cait_tiny_32", 10, 5_079_794),
        ("plain_cait_small_32", 10, 9_020_618),
        ("gmm_cait_small_32", 10, 9_021_578),
        ("plain_pit_32", 10, 6_972_586),
        ("gmm_pit_32", 10, 6_973_186),
        ("plain_t2t_32", 10, 6_486_080),
        ("gmm_t2t_32", 10, 6_486_570),
    ],
)
def test_classifiers_have_the_published_number_of_trainable_parameters(name, classes, parameters):
    with torch.device("meta"):
        assert count(create_model(name, num_classes=classes)) == parameters


def test_every_listed_model_is_built_with_its_backbone():
    for name in get_system("gaussian-mixture-mask").models:
        with torch.device("meta"):
            assert create_backbone(name).feature_info and create_model(name, num_classes=3).num_classes == 3


# the weights


@pytest.mark.parametrize("size", [(7, 7), (3, 8)])
@pytest.mark.parametrize("published_underflow", [False, True])
def test_weights_are_the_mixture_of_powers_of_one_gaussian(size, published_underflow):
    mask = softly_masked(GaussianMixtureMask(3, 4, published_underflow=published_underflow))
    base = torch.exp(-squared_distances(*size) / 2)
    want = (mask.alpha * base ** (1 / (mask.sigma**2 + 1e-5))).sum(0)
    assert torch.allclose(mask(size), want, atol=1e-5)


def test_weights_depend_on_rows_and_columns_apart_alone_and_each_head_has_a_curve():
    mask = softly_masked(GaussianMixtureMask(4))
    weights = mask((5, 6))
    curves = mask.curves((5, 6))
    assert torch.equal(weights, weights.transpose(1, 2))
    assert torch.allclose(weights.diagonal(dim1=1, dim2=2), mask.alpha.sum(0).view(4, 1).expand(-1, 30))
    grid = weights.view(4, 5, 6, 5, 6)
    assert torch.equal(grid[:, 1, 4, 3, 1], curves[:, 2, 3])
    assert torch.equal(grid[:, 3, 2, 1, 5], curves[:, 2, 3])
    assert len({tuple(curve.flatten().tolist()) for curve in curves}) == 4


def test_one_wide_gaussian_is_plain_attention_but_for_the_published_underflow():
    attention = MaskedAttention(16, 2, 8, GaussianMixtureMask(2, 1))
    nn.init.constant_(attention.mask.sigma, 1e4)
    nn.init.ones_(attention.mask.alpha)
    plain = MaskedAttention(16, 2, 8)
    plain.load_state_dict({n: t for n, t in attention.state_dict().items() if not n.startswith("mask.")})
    x, size = image(2, 256, 16), (16, 16)
    assert torch.allclose(attention(x, size), plain(x, size), atol=1e-5)
    attention.mask.published_underflow = True
    far = squared_distances(16, 16) >= 208
    assert far.any()
    assert torch.equal(attention.mask(size)[0] == 0, far)


def test_a_narrow_mask_leaves_far_pairs_a_uniform_background():
    mask = GaussianMixtureMask(1, 1)
    nn.init.constant_(mask.sigma, 0.1)
    nn.init.ones_(mask.alpha)
    logits = 3 * image(1, 16, 16)
    attention = (mask((4, 4)) * logits).softmax(-1)[0]
    own = logits[0].diagonal().exp()
    for row in range(16):
        others = attention[row][torch.arange(16) != row]
        assert torch.allclose(others, 1 / (own[row] + 15), rtol=1e-5)


@pytest.mark.parametrize("published_underflow", [False, True])
@pytest.mark.parametrize("width", [0.0, 1e-3, -3.0, 1e4])
def test_gradients_are_finite_where_the_mask_is_0(published_underflow, width):
    mask = GaussianMixtureMask(2, published_underflow=published_underflow)
    nn.init.constant_(mask.sigma, width)
    weights = mask((16, 17))
    (weights * image(*weights.shape)).sum().backward()
    assert (weights[:, 0, -1] == 0).all() or not published_underflow
    assert mask.sigma.grad.isfinite().all() and mask.alpha.grad.abs().min() > 0
    assert width != -3.0 or mask.sigma.grad.abs().min() > 0


def test_a_negative_sigma_counts_by_its_square_and_half_precision_is_safe():
    mask = softly_masked(GaussianMixtureMask(2))
    nn.init.constant_(mask.sigma, -2.0)
    negative = mask((4, 4))
    nn.init.constant_(mask.sigma, 2.0)
    assert torch.equal(negative, mask((4, 4)))
    nn.init.zeros_(mask.sigma)
    assert mask.half()((16, 16)).isfinite().all()


def test_a_learned_mask_begins_at_0_and_belongs_to_one_grid():
    mask = LearnedMask((3, 4))
    assert torch.equal(mask((3, 4)), torch.zeros(12, 12))
    with pytest.raises(UserError, match="3 x 4 tokens was given 4 x 4"):
        mask((4, 4))


# one switch in every host


@pytest.mark.parametrize("host", HOSTS)
def test_the_mixture_adds_two_numbers_a_kernel_and_head_to_every_layer(host):
    build, arch = HOSTS[host]
    plain, masked = build(arch, mask="none"), build(arch, mask="gmm", num_kernels=3)
    heads = [m.sigma.shape[1] for m in masked.modules() if isinstance(m, GaussianMixtureMask)]
    fewer = 16 + 16 if host == "vit" else 0  # the class token and its position
    assert count(masked) - count(plain) == 2 * 3 * sum(heads) - fewer
    depths = {"vit": [2, 2], "swin": [1, 1, 2, 2], "cait": [3, 3], "pit": [1, 2, 2, 2], "t2t": [1, 2, 2]}
    assert heads == depths[host]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("mask", ["gmm", "elm", "none"])
def test_one_switch_changes_the_mask_of_every_host(host, mask):
    build, arch = HOSTS[host]
    config = {"type": f"opsin.{build.__name__}", "arch": arch, "mask": mask, "num_classes": 4}
    model = softly_masked(MODELS.build(config)).train()
    kinds = {"gmm": GaussianMixtureMask, "elm": LearnedMask, "none": type(None)}
    found = {type(m.mask) for m in model.modules() if hasattr(m, "mask") and hasattr(m, "proj")}
    assert found == ({kinds[mask], type(None)} if host == "cait" else {kinds[mask]})
    model(image(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("host", ["vit", "cait", "pit", "t2t"])
def test_learned_masks_refuse_other_image_sizes(host):
    build, arch = HOSTS[host]
    with pytest.raises(UserError, match="learned mask for"):
        build(arch, mask="elm")(image(1, 3, 48, 48))


@torch.no_grad()
def test_a_vit_reads_its_class_token_only_without_a_mask():
    masked, plain = (MaskedViTClassifier(VIT, mask=mask).eval() for mask in ("gmm", "none"))
    assert masked.cls_token is None and plain.cls_token is not None
    assert (masked.pos_embed.shape[1], plain.pos_embed.shape[1]) == (64, 65)
    x = image(2, 3, 32, 32)
    *_, (tokens, _) = plain.walk(x)
    assert torch.equal(plain.forward_features(x), plain.norm(tokens[:, 0]))
    *_, (tokens, _) = masked.walk(x)
    assert torch.equal(masked.forward_features(x), masked.norm(tokens.mean(1)))


@torch.no_grad()
def test_class_tokens_are_outside_the_mask():
    attention = MaskedAttention(8, 2, 4, GaussianMixtureMask(2))
    x = image(1, 10, 8)
    before = attention(x, (3, 3))
    nn.init.zeros_(attention.mask.alpha)
    after = attention(x, (3, 3))
    assert torch.equal(before[:, 0], after[:, 0])
    assert (before[:, 1:] - after[:, 1:]).abs().amin() > 0


@torch.no_grad()
def test_swin_adds_position_bias_to_masked_logits():
    model = softly_masked(MaskedSwinClassifier({**SWIN, "depths": (1, 1)}))
    attn = model.layers[1].blocks[0].attn
    nn.init.normal_(attn.relative_position_bias_table)
    x = image(3, 16, 16)
    q, k, v = attn.qkv(x).view(3, 16, 3, 2, 8).permute(2, 0, 3, 1, 4)
    logits = (q * 8**-0.5 @ k.transpose(2, 3)) * attn.mask((4, 4)) + attn.position_bias()
    want = attn.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(attn(x), want, atol=1e-6)


def test_swin_shifts_no_windows_where_the_map_is_one():
    attn = MaskedSwin(SWIN).layers[0].blocks[1].attn
    x = image(1, 16, 8)
    assert attn.shift == 2
    assert torch.allclose(attn.attend(x, (4, 4)), attn(x), atol=1e-6)


def test_windows_of_a_classifier_are_no_larger_than_its_maps():
    model = MaskedSwinClassifier(SWIN, img_size=8, patch_size=4)
    assert [stage.blocks[0].attn.window for stage in model.layers] == [(2, 2), (1, 1)]


def test_layer_scale_falls_with_depth_and_begins_anew_in_the_class_blocks():
    assert [layer_scale_init(number) for number in (1, 18, 19, 24, 25)] == [0.1, 0.1, 1e-5, 1e-5, 1e-6]
    model = MaskedCaiTClassifier({**CAIT, "depth": 19})
    assert [float(block.scale1[0].detach()) for block in model.blocks][17:] == pytest.approx([0.1, 1e-5])
    assert [float(block.scale2[0].detach()) for block in model.cls_blocks] == pytest.approx([0.1, 0.1])


def test_drop_path_is_even_in_vit_cait_and_pit_and_grows_in_swin_and_t2t():
    rates = {
        host: [m.drop_path.rate for m in build(arch, drop_path_rate=0.3).modules() if hasattr(m, "drop_path")]
        for host, (build, arch) in HOSTS.items()
    }
    assert {rate for host in ("vit", "cait", "pit") for rate in rates[host]} == {0.3}
    assert rates["t2t"] == pytest.approx([0, 0.3]) and rates["swin"] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_published_unused_tensors_of_t2t_are_there_on_request_alone():
    with_them, without = (MaskedT2TClassifier(T2T, unused_parameters=unused) for unused in (True, False))
    assert count(with_them) - count(without) == 16 + 2 * 72
    without.load_state_dict(without.from_published(with_them.state_dict()))


def test_splits_of_t2t_follow_the_image_size():
    assert [MaskedT2T(T2T, img_size=size).tokens_to_token.patch_size for size in (32, 64, 128)] == [4, 8, 16]
    tokens, size = soft_split(image(1, 3, 33, 18))
    assert tokens.shape == (1, 17 * 9, 27) and size == (17, 9)


def test_sinusoids_have_sines_in_even_channels():
    table = sinusoids(5, 6, device=torch.device("cpu"))
    want = [f(3 / 10000 ** (2 * pair / 6)) for pair in range(3) for f in (math.sin, math.cos)]
    assert table[3].tolist() == pytest.approx(want, abs=1e-6)


# hosts without a public case, against the formulas written out, in the authors' names


def tensors_of(shapes: dict[str, tuple[int, ...]], seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def mixture(p: Callable[[str], Tensor], side: int) -> Tensor:
    base = torch.exp(-squared_distances(side, side) / 2)
    return (p("mask.alpha") * base ** (1 / (p("mask.sigma") ** 2 + 1e-5))).sum(0)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, edit: Callable[[Tensor], Tensor]) -> Tensor:
    q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return (edit(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5) @ v).transpose(1, 2).flatten(2)


def norm(x: Tensor, p: Callable[[str], Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p(f"{name}.weight"), p(f"{name}.bias"))


def linear(x: Tensor, p: Callable[[str], Tensor], name: str) -> Tensor:
    return F.linear(x, p(f"{name}.weight"), p(f"{name}.bias"))


def mlp_shapes(prefix: str, dim: int, hidden: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.net.0.weight": (hidden, dim),
        f"{prefix}.net.0.bias": (hidden,),
        f"{prefix}.net.3.weight": (dim, hidden),
        f"{prefix}.net.3.bias": (dim,),
    }


def norm_shapes(prefix: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (dim,), f"{prefix}.bias": (dim,)}


def cait_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embedding": (1, 16, 10),
        "cls_token": (1, 1, 10),
        "to_patch_embedding.1.weight": (10, 48),
        "to_patch_embedding.1.bias": (10,),
    }
    for part, depth in (("patch_transformer", 2), ("cls_transformer", 1)):
        for layer in range(depth):
            for branch in (0, 1):
                prefix = f"{part}.layers.{layer}.{branch}"
                shapes |= {f"{prefix}.scale": (1, 1, 10), **norm_shapes(f"{prefix}.fn.norm", 10)}
            prefix = f"{part}.layers.{layer}.0.fn.fn"
            shapes |= {
                f"{prefix}.to_q.weight": (12, 10),
                f"{prefix}.to_kv.weight": (24, 10),
                f"{prefix}.mix_heads_pre_attn": (3, 3),
                f"{prefix}.mix_heads_post_attn": (3, 3),
                f"{prefix}.to_out.0.weight": (10, 12),
                f"{prefix}.to_out.0.bias": (10,),
            }
            if part == "patch_transformer":
                shapes |= {f"{prefix}.mask.sigma": (2, 3, 1, 1), f"{prefix}.mask.alpha": (2, 3, 1, 1)}
            shapes |= mlp_shapes(f"{part}.layers.{layer}.1.fn.fn", 10, 14)
    return shapes | norm_shapes("mlp_head.0", 10) | {"mlp_head.1.weight": (5, 10), "mlp_head.1.bias": (5,)}


def cait_written_out(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    def block(prefix: str, x: Tensor, context: Tensor | None) -> Tensor:
        def p(name: str) -> Tensor:
            return tensors[f"{prefix}.{name}"]

        def a(name: str) -> Tensor:
            return p(f"0.fn.fn.{name}")

        def edit(logits: Tensor) -> Tensor:
            logits = logits * mixture(a, 4) if context is None else logits
            mixed = torch.einsum("bhij,hg->bgij", logits, a("mix_heads_pre_attn"))
            return torch.einsum("bhij,hg->bgij", mixed.softmax(-1), a("mix_heads_post_attn"))

        n = norm(x, p, "0.fn.norm")
        k, v = F.linear(n if context is None else context, a("to_kv.weight")).chunk(2, -1)
        y = attend(F.linear(n, a("to_q.weight")), k, v, 3, edit)
        x = x + p("0.scale") * linear(y, a, "to_out.0")
        y = linear(F.gelu(linear(norm(x, p, "1.fn.norm"), p, "1.fn.fn.net.0")), p, "1.fn.fn.net.3")
        return x + p("1.scale") * y

    patches = x.view(-1, 3, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 48)
    x = linear(patches, tensors.__getitem__, "to_patch_embedding.1") + tensors["pos_embedding"]
    for layer in range(2):
        x = block(f"patch_transformer.layers.{layer}", x, None)
    token = block("cls_transformer.layers.0", tensors["cls_token"].expand(len(x), -1, -1), x)
    return linear(norm(token[:, 0], tensors.__getitem__, "mlp_head.0"), tensors.__getitem__, "mlp_head.1")


def pit_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embedding": (1, 65, 8),
        "cls_token": (1, 1, 8),
        "to_patch_embedding.0.weight": (8, 3, 2, 2),
        "to_patch_embedding.0.bias": (8,),
    }
    for stage, dim in ((0, 8), (1, 16)):
        prefix = f"layers.{2 * stage}.layers.0"
        shapes |= norm_shapes(f"{prefix}.0.norm", dim) | norm_shapes(f"{prefix}.1.norm", dim)
        shapes |= {
            f"{prefix}.0.fn.to_qkv.weight": (6 * 2 * (stage + 1), dim),
            f"{prefix}.0.fn.to_out.0.weight": (dim, 4 * (stage + 1)),
            f"{prefix}.0.fn.to_out.0.bias": (dim,),
            f"{prefix}.0.fn.mask.sigma": (2, stage + 1, 1, 1),
            f"{prefix}.0.fn.mask.alpha": (2, stage + 1, 1, 1),
            **mlp_shapes(f"{prefix}.1.fn", dim, 2 * dim),
        }
    shapes |= {
        "layers.1.downsample.net.0.weight": (16, 1, 3, 3),
        "layers.1.downsample.net.0.bias": (16,),
        "layers.1.downsample.net.1.weight": (16, 16, 1, 1),
        "layers.1.downsample.net.1.bias": (16,),
        "layers.1.cls_ff.weight": (16, 8),
        "layers.1.cls_ff.bias": (16,),
    }
    return shapes | norm_shapes("mlp_head.0", 16) | {"mlp_head.1.weight": (5, 16), "mlp_head.1.bias": (5,)}


def pit_written_out(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    def block(prefix: str, x: Tensor, heads: int, side: int) -> Tensor:
        def p(name: str) -> Tensor:
            return tensors[f"{prefix}.{name}"]

        def edit(logits: Tensor) -> Tensor:
            inner = logits[:, :, 1:, 1:] * mixture(lambda name: p(f"0.fn.{name}"), side)
            lower = torch.cat((logits[:, :, 1:, :1], inner), 3)
            return torch.cat((logits[:, :, :1], lower), 2).softmax(-1)

        y = attend(*F.linear(norm(x, p, "0.norm"), p("0.fn.to_qkv.weight")).chunk(3, -1), heads, edit)
        x = x + linear(y, p, "0.fn.to_out.0")
        return x + linear(F.gelu(linear(norm(x, p, "1.norm"), p, "1.fn.net.0")), p, "1.fn.net.3")

    t = tensors.__getitem__
    x = F.conv2d(x, t("to_patch_embedding.0.weight"), t("to_patch_embedding.0.bias"), stride=2)
    x = torch.cat((t("cls_token").expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)), 1)
    x = block("layers.0.layers.0", x + t("pos_embedding"), 1, 8)
    pool = "layers.1.downsample.net"
    y = x[:, 1:].transpose(1, 2).unflatten(2, (8, 8))
    y = F.conv2d(y, t(f"{pool}.0.weight"), t(f"{pool}.0.bias"), stride=2, padding=1, groups=8)
    y = F.conv2d(y, t(f"{pool}.1.weight"), t(f"{pool}.1.bias"))
    x = torch.cat((linear(x[:, :1], t, "layers.1.cls_ff"), y.flatten(2).transpose(1, 2)), 1)
    x = block("layers.2.layers.0", x, 2, 4)
    return linear(norm(x[:, 0], t, "mlp_head.0"), t, "mlp_head.1")


def t2t_written_out(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    def mlp(x: Tensor, p: Callable[[str], Tensor]) -> Tensor:
        return x + linear(F.gelu(linear(norm(x, p, "norm2"), p, "mlp.fc1")), p, "mlp.fc2")

    def under(prefix: str) -> Callable[[str], Tensor]:
        return lambda name: tensors[f"{prefix}.{name}"]

    x = F.unfold(x, 3, stride=2, padding=1).transpose(1, 2)
    for number, side in ((1, 16), (2, 8)):
        p = under(f"tokens_to_token.attention{number}")
        q, k, v = F.linear(norm(x, p, "norm1"), p("attn.qkv.weight")).chunk(3, -1)
        weights = mixture(under(f"tokens_to_token.attention{number}.attn"), side)
        y = (weights * (q @ k.transpose(1, 2) * x.shape[2] ** -0.5)).softmax(-1) @ v
        x = mlp(v + linear(y, p, "attn.proj"), p)
        x = F.unfold(x.transpose(1, 2).unflatten(2, (side, side)), 3, stride=2, padding=1).transpose(1, 2)
    x = linear(x, tensors.__getitem__, "tokens_to_token.project")
    x = x + sinusoids(16, x.shape[2], device=x.device)
    for layer in range(2):
        p = under(f"blocks.{layer}")
        n = norm(x, p, "norm1")
        weights = mixture(under(f"blocks.{layer}.attn"), 4)
        qkv = F.linear(n, p("attn.qkv.weight")).chunk(3, -1)
        y = attend(*qkv, 2, lambda logits, weights=weights: (logits * weights).softmax(-1))
        x = mlp(x + n + linear(y, p, "attn.proj"), p)
    return linear(norm(x, tensors.__getitem__, "norm").mean(1), tensors.__getitem__, "head")


def case_of(source: str, shapes: dict[str, tuple[int, ...]], size: int, **built_with: Any) -> Case:
    """A case as another run of the authors' code would give it, without numbers."""
    meta = {
        "system": "gaussian-mixture-mask",
        "case": "other",
        "source": f"CatworldLee/Gaussian-Mixture-Mask-Attention@b06b199 {source}",
        "built_with": built_with,
        "overrides": [
            {"match": "sigma$", "mean": 2.5, "std": 0.8},
            {"match": "alpha$", "mean": 0.6, "std": 0.8},
        ],
        "tensors": [[name, list(shape)] for name, shape in shapes.items()],
        "inputs": {"x": {"seed": 1, "shape": [2, 3, size, size]}},
        "outputs": {"logits": {"shape": [2, 5]}},
    }
    return Case(meta, {})


@torch.no_grad()
@pytest.mark.parametrize(
    ("source", "shapes", "size", "written_out"),
    [
        ('models/cait.py CaiT (create_model "cait", 32x32)', cait_shapes(), 16, cait_written_out),
        ('models/pit.py PiT (create_model "pit", 32x32)', pit_shapes(), 16, pit_written_out),
    ],
)
def test_cait_and_pit_cases_give_what_the_formulas_give(source, shapes, size, written_out):
    case = case_of(source, shapes, size, img_size=size, heads=4, dim_head=64)
    got, want = find_adapter(case)(case)["logits"], written_out(case.state_dict(), case.inputs()["x"])
    assert torch.allclose(got, want, atol=1e-4 * want.abs().max().item())


@torch.no_grad()
def test_t2t_cases_give_what_the_formulas_give():
    model = MaskedT2TClassifier(T2T, num_classes=5, img_size=32, splits=3, unused_parameters=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes |= {"pos_embed": (1, 16, 16)}
    case = case_of("models/t2t.py T2T_ViT", shapes, 32, img_size=32)
    got, want = find_adapter(case)(case)["logits"], t2t_written_out(case.state_dict(), case.inputs()["x"])
    assert torch.allclose(got, want, atol=1e-4 * want.abs().max().item())


def to_authors(name: str) -> str:
    """The authors' name of a tensor of our ViT."""
    for own, theirs in (
        ("patch_embed.proj.", "to_patch_embedding.1."),
        ("pos_embed", "pos_embedding"),
        (".norm1.", ".0.norm."),
        (".norm2.", ".1.norm."),
        (".attn.qkv.", ".0.fn.to_qkv."),
        (".attn.proj.", ".0.fn.to_out.0."),
        (".attn.mask.", ".0.fn.mask."),
        (".mlp.fc1.", ".1.fn.net.0."),
        (".mlp.fc2.", ".1.fn.net.3."),
    ):
        name = name.replace(own, theirs)
    if name.startswith("blocks."):
        return name.replace("blocks.", "transformer.layers.", 1)
    parts = {"norm.": "mlp_head.0.", "head.": "mlp_head.1."}
    return next((theirs + name[len(own) :] for own, theirs in parts.items() if name.startswith(own)), name)


def authors_file(model: MaskedViTClassifier) -> dict[str, Tensor]:
    """The tensors of our ViT as the authors save them, frozen tables included."""
    tensors = {to_authors(name): tensor for name, tensor in model.state_dict().items()}
    patches = "to_patch_embedding.1.weight"
    tensors[patches] = tensors[patches].permute(0, 2, 3, 1).flatten(1)
    base = torch.zeros(1, 1, 64, 64)
    tensors["mask"] = base
    if model.mask.kind == "gmm":
        tensors |= {f"transformer.layers.{layer}.0.fn.mask.mask": base for layer in range(2)}
    return tensors


@torch.no_grad()
@pytest.mark.parametrize("mask", ["gmm", "elm", "none"])
@pytest.mark.parametrize("size", [32, 64])
def test_vit_cases_with_every_mask_and_size_run(mask, size):
    model = softly_masked(MaskedViTClassifier(VIT, num_classes=5, mask=mask, img_size=size))
    shapes = {n: tuple(t.shape) for n, t in authors_file(model).items() if not n.endswith("mask.mask")}
    shapes.pop("mask")
    if mask == "elm":
        shapes |= {f"transformer.layers.{layer}.0.fn.mask.mask": (64, 64) for layer in range(2)}
    arguments = {"img_size": size, "heads": 2, "is_GMM": mask == "gmm", "is_SLM": mask == "elm"}
    case = case_of("models/vit.py ViT", shapes, size, **arguments)
    place(model.eval(), case.state_dict())
    assert torch.equal(find_adapter(case)(case)["logits"], model(case.inputs()["x"]))


@torch.no_grad()
@pytest.mark.parametrize("mask", ["gmm", "elm", "none"])
def test_other_swin_cases_run(mask):
    model = MaskedSwinClassifier(SWIN, num_classes=5, mask=mask, patch_size=4)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    case = case_of("models/swin.py SwinTransformer", shapes, 32, img_size=32)
    place(model.eval(), case.state_dict())
    assert torch.equal(find_adapter(case)(case)["logits"], model(case.inputs()["x"]))


def test_learned_mask_cases_run():
    case = case_of("models/gmm.py SLM", {"mask.mask": (16, 16)}, 16)
    case.meta["inputs"] = {"scores": {"seed": 1, "shape": [1, 2, 16, 16]}}
    masked = find_adapter(case)(case)["masked_scores"]
    assert torch.equal(masked, case.state_dict()["mask.mask"] * case.inputs()["scores"])


# the authors' files


@torch.no_grad()
@pytest.mark.parametrize("mask", ["gmm", "elm", "none"])
def test_the_authors_training_file_loads_into_classifier_and_backbone(tmp_path, mask):
    source = softly_masked(MaskedViTClassifier(VIT, mask=mask)).eval()
    content = {"model_state_dict": authors_file(source), "epoch": 3, "optimizer_state_dict": {}}
    torch.save(content, tmp_path / "best.pth")
    target = load_published(MaskedViTClassifier(VIT, mask=mask), tmp_path / "best.pth").eval()
    x = image(2, 3, 32, 32)
    assert torch.allclose(target(x), source(x), atol=1e-6)
    backbone = load_published(MaskedViT(VIT, mask=mask, out_indices=(0,)), tmp_path / "best.pth")
    assert torch.equal(backbone.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    assert len(backbone.blocks) == 1


@pytest.mark.parametrize("host", ["vit", "swin", "cait", "pit"])
def test_positions_of_a_file_fit_another_image_size(tmp_path, host):
    build, arch = HOSTS[host]
    torch.save(build(arch, patch_size=4).state_dict(), tmp_path / "small.pth")
    larger = load_published(build(arch, patch_size=4, img_size=48), tmp_path / "small.pth")
    assert larger(image(1, 3, 48, 48)).shape == (1, 10)


def test_index_tables_of_a_swin_file_are_dropped(tmp_path):
    source = MaskedSwinClassifier(SWIN)
    computed = {
        "layers.0.blocks.1.attn.relative_position_index": torch.zeros(16, 16),
        "layers.0.blocks.1.attn_mask": torch.zeros(16, 16, 16),
        "layers.0.blocks.0.attn.mask.mask": torch.zeros(1, 1, 16, 16),
    }
    torch.save({"model": source.state_dict() | computed}, tmp_path / "swin.pth")
    backbone = load_published(MaskedSwin(SWIN, out_indices=(0,)), tmp_path / "swin.pth")
    assert torch.equal(
        backbone.layers[0].blocks[1].attn.mask.alpha, source.layers[0].blocks[1].attn.mask.alpha
    )


def test_a_four_stage_swin_has_the_usual_strides():
    arch = {**SWIN, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 2)}
    backbone = MaskedSwin(arch, img_size=224, patch_size=4, out_indices=(0, 2, 3))
    assert [(info.channels, info.stride) for info in backbone.feature_info] == [(8, 4), (32, 16), (64, 32)]
    assert [tuple(m.shape[2:]) for m in backbone(image(1, 3, 70, 50))] == [(18, 13), (5, 4), (3, 2)]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MaskedViT("tinny"), "tinny.*tiny"),
        (lambda: MaskedViT(VIT, mask="gm"), "mask 'gm'.*gmm"),
        (lambda: MaskedViT(VIT, out_indices=(0, 2)), r"out_indices \(0, 2\)"),
        (lambda: MaskedViT({**VIT, "depth": 6}, out_indices=range(5)), "four levels"),
        (lambda: GaussianMixtureMask(2, 0), "num_kernels=0"),
        (lambda: MaskedSwin({**SWIN, "num_heads": (1,)}), "must have 2 entries"),
        (lambda: MaskedSwin({**SWIN, "num_heads": (3, 3)}), "3 heads do not divide"),
        (lambda: MaskedPiT({**PIT, "num_heads": (1,)}), "must have 3 entries"),
        (lambda: MaskedPiT(PIT, out_indices=(3,)), "out_indices"),
        (lambda: MaskedViT(VIT, patch_size=16)(image(1, 3, 12, 40)), "12 x 40 pixels is smaller"),
        (lambda: MaskedViT(VIT, pach_size=4), "patch_size"),
        (lambda: MaskedT2TClassifier(T2T, patch_size=4), "'patch_size'"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
