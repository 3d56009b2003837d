"""Reading and writing dose maps and structures: the only rooms that know file formats."""
