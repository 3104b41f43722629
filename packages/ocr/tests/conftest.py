from opsin.core import compat

compat.apply()  # the tests import mmdet, which needs mmcv's ops in their places
