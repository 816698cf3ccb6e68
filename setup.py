"""The thin layer between pip and CMakeLists.txt, which is the one description of the build.

GFL_NATIVE=off leaves CMake out and gives a pure-Python package, for machines without a C++ compiler.
"""

import os
import sys

from scikit_build_core.errors import FailedLiveProcessError
from setuptools import setup

HELP = """
gfl_ops: the native core did not build ({}); the words of CMake or the compiler stand above.
Without a C++17 compiler, GFL_NATIVE=off pip install . gives a pure-Python package that runs on the reference backend.
With an nvcc that does not get on with the C++ compiler, GFL_CUDA=off pip install . builds the CPU core alone.
"""

native = os.environ.get("GFL_NATIVE", "on").lower() not in ("off", "0", "no", "false")
try:
    setup(**({"cmake_source_dir": "."} if native else {}))
except FailedLiveProcessError as error:
    sys.exit(HELP.format(error))  # in place of a traceback through setuptools
