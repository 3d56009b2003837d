"""Reading and writing dose maps and structures: the only modules that know file formats."""

from dosemover.io.describe import describe
from dosemover.io.read import read_dose, read_map, read_structures
from dosemover.io.write import write_dose, write_map

__all__ = ["describe", "read_dose", "read_map", "read_structures", "write_dose", "write_map"]
