"""A run that begins from another run with larger or other tables: its options, its encoders, and which row comes from which. No torch."""

from bigembed.growth.check import check_growth
from bigembed.growth.configuration import begin_from
from bigembed.growth.encoders import learn, learn_scale_of
from bigembed.growth.rows import Segment, sources
from bigembed.growth.tables import rows_of
from bigembed.growth.told import Told

__all__ = ["Segment", "Told", "begin_from", "check_growth", "learn", "learn_scale_of", "rows_of", "sources"]
