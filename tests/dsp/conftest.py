"""Some tests measure, with the means of benchmarks/: put it last on the path, behind an installed mediaflow."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
