"""`gfl train` for several processes: ``torchrun --nproc-per-node N -m gfl_ops.detector.train OPTIONS``."""

import sys

from ..cli.train import main

if __name__ == "__main__":
    sys.exit(main())
