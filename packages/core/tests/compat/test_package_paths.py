from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import mmengine
import pytest
from mmengine.utils import get_installed_path, is_installed


def test_unmended_mmengine_asks_for_pkg_resources(unmended: Callable[[str], str]) -> None:
    error = unmended("from mmengine.utils import get_installed_path; get_installed_path('mmengine')")
    assert "No module named 'pkg_resources'" in error


@pytest.mark.parametrize(
    ("package", "module"), [("mmengine", "mmengine"), ("mmcv-lite", "mmcv"), ("pyyaml", "yaml")]
)
def test_the_folder_is_found_by_module_and_by_distribution(package: str, module: str) -> None:
    path = Path(get_installed_path(package))
    assert path == Path(mmengine.__file__).parents[1] / module and path.is_dir()


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(PackageNotFoundError, match="no-such-package"):
        get_installed_path("no-such-package")
    with pytest.raises(RuntimeError, match="opsin is a namespace package"):
        get_installed_path("opsin")


def test_installed_means_a_distribution_or_a_module() -> None:
    assert is_installed("mmcv-lite") and is_installed("mmcv") and is_installed("json")
    assert not is_installed("no-such-package")
