import subprocess
import sys
from importlib import import_module

import pytest

from opsin.core import compat


@pytest.mark.parametrize("name", compat.MENDS)
def test_each_mend_says_why_and_is_needed_with_the_tested_versions(name: str) -> None:
    mend = import_module(f"opsin.core.compat.{name}")
    assert "Needed by:" in mend.__doc__
    assert mend.needed()


def test_applying_all_imports_nothing_heavy() -> None:
    code = (
        "import sys; from opsin.core import compat; compat.apply();"
        "print({'torch', 'mmcv', 'mmdet', 'mmseg', 'cv2'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
