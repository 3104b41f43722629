"""What holds for every test of the repository."""

import gc

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def no_scope_of_an_earlier_test():
    """A runner leaves its registry scope to the process: names would then be looked up in mmdet, say.

    Without this, a test would depend on which others its worker ran before it.
    """
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True, scope="module")
def imported_modules_are_no_garbage():
    """mmengine collects garbage for each data set it builds: a second each time, if all modules are searched."""
    gc.collect()
    gc.freeze()
