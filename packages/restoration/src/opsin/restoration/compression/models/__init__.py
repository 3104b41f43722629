"""Networks of learned image codecs, one published system a folder."""

from opsin.restoration.compression.models.segpic import SegPIC

__all__ = ["SegPIC"]
