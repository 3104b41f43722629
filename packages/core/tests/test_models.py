"""Models by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from opsin.core import create_backbone, create_model, list_models
from opsin.core.errors import UserError, as_user_error, nearest


def test_names_are_listed_by_pattern() -> None:
    assert {"convnext_tiny", "convnext_base"} <= set(list_models("convnext_*"))
    assert list_models("no-such-*") == []


def test_unknown_model_comes_with_the_nearest_names() -> None:
    with pytest.raises(UserError, match="unknown model 'convnext_tinny'; did you mean convnext_tiny"):
        create_model("convnext_tinny")


def test_arguments_change_the_variant() -> None:
    with torch.device("meta"):
        model = create_model("convnext_tiny", num_classes=7)
        backbone = create_backbone("convnext_tiny", out_indices=(1, 3))
    assert model(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 7)
    shapes = [m.shape[1] for m in backbone(torch.empty(1, 3, 64, 64, device="meta"))]
    assert shapes == [info.channels for info in backbone.feature_info] == [192, 768]


def test_isotropic_network_has_no_feature_extractor() -> None:
    with pytest.raises(UserError, match="convnext_iso_small has no feature extractor"):
        create_backbone("convnext_iso_small")


def test_listing_models_imports_no_torch() -> None:
    code = "import sys; from opsin.core.systems import systems; systems(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nearest_names_ignore_case() -> None:
    assert nearest("ConvNext_Tiny", ["convnext_tiny", "vim_tiny"])[0] == "convnext_tiny"


def test_user_error_is_found_behind_what_wraps_it() -> None:
    original = UserError("image a.png is empty")
    wrapped = UserError(f"CocoDetection in opsin/detection: {original}")  # as mmengine's registries do
    wrapped.__context__ = original
    assert as_user_error(wrapped) is original
    assert as_user_error(ValueError("a bug")) is None
