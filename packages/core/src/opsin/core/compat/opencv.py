"""`opencv-python` and `opencv-python-headless` in one environment.

Needed by: mmcv-lite (asks for the first) together with albumentations (asks for the second). Both unpack a
folder `cv2`, so the one installed last overwrites the other: two different versions leave a mixture that
crashes, and removing one of the two leaves an empty `cv2`. Nothing can be mended at run time, so this is no
mend but a check: `problem` says what is wrong, for `opsin doctor`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

DISTRIBUTIONS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def installed() -> dict[str, str]:
    """The installed distributions that carry `cv2`, with their versions."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def problem() -> str | None:
    """What is wrong with OpenCV here and how to mend it, in one line; None when nothing is."""
    found = installed()
    if not found:
        return "OpenCV is not installed; pip install opencv-python opencv-python-headless"
    newest = max(found.values(), key=lambda text: [int(part) for part in text.split(".") if part.isdigit()])
    mend = "pip install --force-reinstall --no-deps " + " ".join(f"{name}=={newest}" for name in found)
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {number}" for name, number in found.items())
        return f"{listed} overwrite each other's files and must have one version; {mend}"
    spec = find_spec("cv2")
    if spec is None or spec.origin is None:
        return f"the folder cv2 is empty (one of {', '.join(DISTRIBUTIONS[:2])} was removed); {mend}"
    return None
