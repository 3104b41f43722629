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
    """Each data set that mmengine builds collects garbage: seconds, if all modules are searched."""
    gc.collect()
    gc.freeze()
