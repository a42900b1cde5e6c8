"""Files and folders that are either whole or absent: sealed folders, journals, arrays, and JSON of dataclasses."""
