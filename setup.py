"""The thin layer between pip and CMakeLists.txt, which is the one description of the build.

GFL_NATIVE=off leaves CMake out and gives a pure-Python package, for machines without a C++ compiler.
"""

import os

from setuptools import setup

native = os.environ.get("GFL_NATIVE", "on").lower() not in ("off", "0", "no", "false")
setup(**({"cmake_source_dir": "."} if native else {}))
