"""Where an installed package lies, without `pkg_resources`.

Needed by: mmengine up to 0.10.7 with setuptools 82 or newer (or none), which no longer carries
`pkg_resources`. mmengine asks it for the folder of a package whenever a config inherits from another package
(`_base_ = 'mmdet::…'`, `mmengine.hub.get_config`), and for whether a package is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path


def needed() -> bool:
    """Whether `pkg_resources` is missing here."""
    return find_spec("pkg_resources") is None


def apply() -> None:
    """Puts the functions below in the place of mmengine's, wherever OpenMMLab has already imported those."""
    from mmengine.utils import package_utils

    _replace(package_utils.is_installed, is_installed)
    _replace(package_utils.get_installed_path, get_installed_path)
    _replace(package_utils.package2module, package2module)


def is_installed(package: str) -> bool:
    """Whether `package`, the name of a distribution or of a module, can be imported."""
    try:
        distribution(package)
    except PackageNotFoundError:
        spec = find_spec(package)
        return spec is not None and spec.origin is not None
    return True


def get_installed_path(package: str) -> str:
    """The folder of `package`, the name of a distribution or of a module.

    Raises:
        PackageNotFoundError: when there is no such package.
        RuntimeError: when it is a namespace package, which has many folders.
    """
    spec = find_spec(package) or find_spec(package2module(package))
    if spec is None:
        raise PackageNotFoundError(package)
    if spec.origin is None:
        raise RuntimeError(f"{package} is a namespace package, which has no single folder")
    return str(Path(spec.origin).parent)


def package2module(package: str) -> str:
    """The module that the distribution `package` installs; of several the first by name, public ones first.

    Raises:
        PackageNotFoundError: when there is no such distribution.
        ValueError: when it installs no module.
    """
    name = distribution(package).metadata["Name"]
    modules = [module for module, owners in packages_distributions().items() if name in owners]
    if not modules:
        raise ValueError(f"the distribution {package} installs no module")
    return min(modules, key=lambda module: (module.startswith("_"), module))


def _replace(old: object, new: Callable[[str], object]) -> None:
    """Puts `new` wherever a loaded module of OpenMMLab holds the function `old`."""
    for name, module in list(sys.modules.items()):
        if module is not None and name.split(".")[0] in {"mmengine", "mmcv", "mmdet", "mmseg"}:
            for attribute, value in list(vars(module).items()):
                if value is old:
                    setattr(module, attribute, new)
