"""Speed and memory. The programs lie in this folder, what they are made of in harness/, the eager formulas in eager/.

What is measured is the installed package: `python -m`, and a program that is started as a file, put the clone first on
the path, where it would hide that one; here it goes to the end.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if Path(sys.path[0]).resolve() == ROOT:
    del sys.path[0]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
