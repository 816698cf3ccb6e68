"""The package as it is installed, and (slow) as it is built: from a clean environment, without torch."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import gfl_ops
from gfl_ops import _native
from tests import ROOT
from tests.support import c_abi, host_cuda

CSRC = ROOT / "csrc"
OUR_VARIABLES = ("GFL_NATIVE", "GFL_CUDA", "GFL_CUDA_ARCHS", "GFL_OPS_BACKEND", "PYTHONPATH")

# Whatever is not the C library's or the compiler's own run time has no place among what the module needs.
ALLOWED_LIBRARIES = {"linux-vdso", "ld-linux", "libc", "libm", "libdl", "librt", "libpthread", "libstdc++", "libgcc_s"}

RUN_AN_OP = """
import torch
import gfl_ops
from gfl_ops import _native

torch.manual_seed(0)
logits = torch.randn(6, 3, requires_grad=True)
target = torch.tensor([0, 1, 2, 3, 3, 0]), torch.rand(6)
(gradient,) = torch.autograd.grad(gfl_ops.quality_focal_loss(logits, target), logits)
with gfl_ops.use_backend("reference"):
    (expected,) = torch.autograd.grad(gfl_ops.quality_focal_loss(logits, target), logits)
torch.testing.assert_close(gradient, expected)
print(gfl_ops.__file__, "native" if _native.core() is not None else "pure")
"""


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs it outside the source tree and without this process's own settings; a failure shows what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in OUR_VARIABLES} | variables
    done = subprocess.run(
        [str(part) for part in command], env=environment, cwd=ROOT.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} on this machine")
    return path


def needed_libraries(module: Path) -> set[str]:
    """What ldd finds, without versions and paths."""
    lines = run(tool("ldd"), module).stdout.splitlines()
    return {re.sub(r"(\.so.*|-x86-64.*|-aarch64.*)$", "", Path(line.split()[0]).name) for line in lines}


def exported_symbols(module: Path) -> set[str]:
    lines = run(tool("nm"), "-D", "--defined-only", module).stdout.splitlines()
    return {line.split()[-1] for line in lines}


def check_module(module: Path) -> None:
    assert needed_libraries(module) <= ALLOWED_LIBRARIES
    symbols = exported_symbols(module)
    assert "PyInit__core" in symbols
    assert {name for name in symbols if not name.startswith("gfl_")} == {"PyInit__core"}


def check_files(names: Iterable[str]) -> None:
    """Only the package and its metadata: no sources of the core, no tests."""
    for name in names:
        assert re.match(r"gfl_ops(-[^/]*\.dist-info)?/", name) or Path(name).parts[-2:] == ("bin", "gfl"), name
        assert not name.endswith((".cpp", ".h", ".cu", ".cuh", ".o", ".a")), name


# First the installed package.


@pytest.fixture(scope="module")
def distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("gfl_ops")
    except importlib.metadata.PackageNotFoundError:
        assert _native.core() is not None, "gfl_ops is not installed; this is the source tree, without its core"
        pytest.skip("gfl_ops is not installed; its core was built into the source tree")


@pytest.fixture(scope="module")
def module_path() -> Path:
    core = _native.core()
    if core is None:
        pytest.skip("gfl_ops is installed without its native core")
    return Path(str(core.__file__))


def is_editable(distribution: importlib.metadata.Distribution) -> bool:
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def test_what_is_tested_is_what_is_installed(distribution: importlib.metadata.Distribution) -> None:
    """A source tree that shadows the installed package would be tested without its core, silently."""
    if not is_editable(distribution):
        assert Path(gfl_ops.__file__) == Path(str(distribution.locate_file("gfl_ops/__init__.py")))
    assert gfl_ops.__version__ == distribution.version
    is_pure = "Root-Is-Purelib: true" in (distribution.read_text("WHEEL") or "")
    if not is_pure:
        assert _native.core() is not None, _native.load_error


def test_installed_files(distribution: importlib.metadata.Distribution) -> None:
    if is_editable(distribution):
        pytest.skip("an editable install")
    check_files(str(path) for path in distribution.files or [])


def test_torch_and_numpy_are_all_it_requires(distribution: importlib.metadata.Distribution) -> None:
    requirements = [line for line in distribution.requires or [] if "extra ==" not in line]
    assert requirements == ["torch>=2.6", "numpy>=1.26"]


def test_torch_is_not_required_to_build() -> None:
    build_system = (ROOT / "pyproject.toml").read_text().split("[project]")[0]
    requires = re.search(r"^requires = (.*)$", build_system, re.MULTILINE)
    assert requires is not None and "torch" not in requires[1]


@pytest.mark.skipif(platform.system() != "Linux", reason="ELF")
def test_module_stands_alone(module_path: Path) -> None:
    """No libcudart, libtorch or libgomp is needed, and nothing but the C ABI shows."""
    check_module(module_path)


def test_core_imports_without_torch(module_path: Path) -> None:
    script = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('_core', {str(module_path)!r})\n"
        "core = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(core)\n"
        "print(core.cpu_isa(), 'torch' in sys.modules)\n"
    )
    assert run(sys.executable, "-c", script).stdout.split() == [_native.cpu_isa(), "False"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_cuda_call_without_a_gpu_says_so(module_path: Path) -> None:
    library = ctypes.CDLL(str(module_path))
    library.gfl_last_error.restype = ctypes.c_char_p
    data = ctypes.addressof(ctypes.c_float(1.0))
    status = c_abi.scale_gradient(library, c_abi.Device(c_abi.CUDA, 0, None), data, 1, data)
    error, unsupported = 3, 2
    assert status == (error if _native.has_cuda() else unsupported)
    words = library.gfl_last_error().decode()
    assert ("CUDA device 0" if _native.has_cuda() else "no CUDA kernels") in words


def test_info_names_every_op_and_backend() -> None:
    """Run as users do, with the source tree in the way."""
    report = subprocess.run(
        [sys.executable, "-m", "gfl_ops.info"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for word in (gfl_ops.__version__, torch.__version__, "quality_focal_loss", "distribution_box_loss", "cuda"):
        assert word in report
    if _native.core() is not None:
        assert f"{_native.cpu_isa()}, {_native.cpu_threads()} threads" in report


# From here on what is built from nothing.


@dataclass(frozen=True)
class Wheel:
    path: Path
    log: str
    build_dir: Path

    @property
    def names(self) -> list[str]:
        with zipfile.ZipFile(self.path) as archive:
            return archive.namelist()

    def unpack(self, where: Path) -> Path:
        with zipfile.ZipFile(self.path) as archive:
            archive.extractall(where)
        return where


def new_environment(where: Path) -> Path:
    """A fresh virtual environment's python."""
    venv.create(where, with_pip=True)
    return where / "bin" / "python"


def lend_torch(python: Path) -> None:
    """Shows the environment this one's torch and what it needs: installing them anew takes minutes."""
    (site_packages,) = (python.parents[1] / "lib").glob("python*/site-packages")
    # Directories of a .pth file come after site-packages, so a gfl_ops installed there wins.
    (site_packages / "torch_from_elsewhere.pth").write_text(str(Path(torch.__file__).parents[1]))


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = new_environment(tmp_path_factory.mktemp("builder") / "venv")
    assert run(python, "-c", "import importlib.util as u; print(u.find_spec('torch'))").stdout.strip() == "None"
    return python


def build_wheel(python: Path, work: Path, **variables: str) -> Wheel:
    # In a copy: the source tree may hold an earlier build, and another test may be building.
    source = work / "source"
    leave = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__", "build", "dist", "*.egg-info", "*.so")
    shutil.copytree(ROOT, source, ignore=leave)
    done = run(python, "-m", "pip", "wheel", "-v", "--no-deps", "-w", work / "dist", source, **variables)
    (path,) = (work / "dist").glob("*.whl")
    return Wheel(path, done.stdout + done.stderr, source / "build")


@pytest.fixture(scope="module")
def default_wheel(clean_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return build_wheel(clean_python, tmp_path_factory.mktemp("default"))


def install_and_run(wheel: Wheel, where: Path) -> str:
    """Installs the wheel beside torch in a fresh environment; returns "native" or "pure"."""
    python = new_environment(where / "venv")
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel.path)
    lend_torch(python)
    imported, kind = run(python, "-c", RUN_AN_OP).stdout.split()
    assert Path(imported).is_relative_to(where)
    return kind


def said(wheel: Wheel) -> list[str]:
    return [line.split("gfl_ops: ", 1)[1] for line in wheel.log.splitlines() if "-- gfl_ops: " in line]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(platform.system() != "Linux", reason="ELF")
def test_default_wheel(default_wheel: Wheel, tmp_path: Path) -> None:
    check_files(default_wheel.names)
    (line,) = said(default_wheel)
    assert line.startswith("core with CUDA kernels for " if shutil.which("nvcc") else "CPU-only core (")
    assert re.search(r"\[-W|warning #", default_wheel.log) is None  # how gcc and nvcc write a warning
    (module,) = (default_wheel.unpack(tmp_path / "unpacked") / "gfl_ops").glob("_core*.so")
    check_module(module)
    assert install_and_run(default_wheel, tmp_path) == "native"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="one instruction set only")
def test_instruction_sets_share_no_code(default_wheel: Wheel) -> None:
    """The linker keeps one of several inline functions of one name: it must not keep one for AVX-512."""
    for isa in ("avx2", "avx512"):
        objects = list(default_wheel.build_dir.glob(f"**/gfl_kernels_{isa}.dir/**/*.o"))
        assert objects
        lines = run(tool("nm"), "--defined-only", "--demangle", *objects).stdout.splitlines()
        symbols = [line.split(maxsplit=2) for line in lines if re.match(r"[0-9a-f]+ \S ", line)]
        shared = {name for _, kind, name in symbols if kind.isupper() or kind in "uvw"}
        assert {name for name in shared if isa not in name} == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wheel_without_cuda(clean_python: Path, tmp_path: Path) -> None:
    wheel = build_wheel(clean_python, tmp_path, GFL_CUDA="off")
    assert said(wheel) == ["CPU-only core (GFL_CUDA=off)"]
    assert install_and_run(wheel, tmp_path) == "native"


@pytest.mark.slow
def test_wheel_without_a_compiler(clean_python: Path, tmp_path: Path) -> None:
    nothing = str(tmp_path / "no-such-compiler")
    wheel = build_wheel(clean_python, tmp_path, GFL_NATIVE="off", CC=nothing, CXX=nothing, CUDACXX=nothing)
    assert wheel.path.name.endswith("-py3-none-any.whl")
    check_files(wheel.names)
    assert install_and_run(wheel, tmp_path) == "pure"


@pytest.mark.slow
def test_bad_option_is_refused(clean_python: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as failure:
        build_wheel(clean_python, tmp_path, GFL_CUDA="maybe")
    assert "GFL_CUDA must be auto, on or off, got 'maybe'" in str(failure.value)
    assert "GFL_NATIVE=off pip install ." in str(failure.value)


@pytest.mark.parametrize(
    "order, compiles", [("vec.h formulas.h", True), ("formulas.h vec.h", True), ("iou.h vec.h", False)]
)
def test_vectors_come_before_the_formulas(order: str, compiles: bool, tmp_path: Path) -> None:
    """A formula would not find what is defined for vectors after it."""
    folders = {"vec.h": "cpu/simd", "formulas.h": "cpu/simd", "iou.h": "math"}
    source = tmp_path / "order.cpp"
    source.write_text("".join(f'#include "{folders[name]}/{name}"\n' for name in order.split()))
    command = [host_cuda.compiler(), "-std=c++17", "-fsyntax-only", f"-I{CSRC}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == compiles, done.stderr
    assert compiles or "include cpu/simd/formulas.h" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "source", [*CSRC.glob("cpu/*.cpp"), *CSRC.glob("cpu/*/*.cpp"), CSRC / "core.cpp"], ids=lambda path: path.name
)
def test_core_compiles_for_aarch64(source: Path) -> None:
    compiler = tool("aarch64-linux-gnu-g++")
    flags = ["-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall"]
    defines = ["-Wextra", "-Werror", "-DGFL_BUILD=1", '-DGFL_VERSION="0"', "-DGFL_ISA=baseline", f"-I{CSRC}"]
    run(compiler, *flags, *defines, "-c", source, "-o", os.devnull)
