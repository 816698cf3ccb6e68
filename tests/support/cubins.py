"""What nvcc makes of csrc/cuda/: registers, spills and stack frames from ptxas, and the machine code itself."""

from __future__ import annotations

import hashlib
import heapq
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests import ROOT

ARCHITECTURES = (80, 90)
FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-I", str(ROOT / "csrc")]  # as in CMakeLists.txt


@dataclass(frozen=True)
class Kernel:
    name: str  # without namespaces and parameters: distribution_focal_loss_kernel<float, 17, true>
    symbol: str
    source: str
    architecture: int
    registers: int
    stack: int
    spilled: int
    shared: int

    @property
    def is_double(self) -> bool:
        return "<double" in self.name


@dataclass(frozen=True)
class Loop:
    """The shortest way once around a loop: what its usual pass takes, and no pass does without."""

    instructions: tuple[str, ...]

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, text)) for text in self.instructions)


def _nvcc() -> str:
    places = [os.environ.get("CUDACXX", "nvcc")]
    places += [f"{os.environ[name]}/bin/nvcc" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    for place in [*places, "/usr/local/cuda/bin/nvcc"]:
        if found := shutil.which(place):
            return found
    pytest.skip("nvcc is not there to compile the CUDA kernels")


def _disassembler() -> str:
    """cuobjdump of the toolkit, or the one that Triton's package carries."""
    places = ["cuobjdump", str(Path(_nvcc()).parent / "cuobjdump")]
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        places.append(str(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"))
    for place in places:
        if found := shutil.which(place):
            return found
    pytest.skip("no cuobjdump: neither in the CUDA toolkit nor in a Triton package")


def _demangled(symbols: list[str]) -> list[str]:
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None:
        pytest.skip("no c++filt to read the kernels' names")
    return subprocess.run([tool], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )


def _short(name: str) -> str:
    name = re.sub(r"gfl::(cuda::)?|\(anonymous namespace\)::|^void ", "", name)
    return name[: name.index(">(") + 1] if ">(" in name else name.split("(")[0]


def _compile(nvcc: str, source: Path, architecture: int, cubin: Path) -> None:
    """A cubin, and beside it what ptxas said."""
    command = [nvcc, *FLAGS, f"-arch=sm_{architecture}", "-Xptxas", "-v", "-cubin", str(source), "-o", str(cubin)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    cubin.with_suffix(".log").write_text(done.stdout + done.stderr)


@cache
def folder() -> Path:
    """Every .cu of csrc/cuda/ compiled for every architecture; kept for as long as the sources stay the same."""
    nvcc = _nvcc()
    digest = hashlib.sha256("\0".join([nvcc, *FLAGS]).encode())
    core = ROOT / "csrc"
    for path in sorted([*core.glob("*.h"), *core.glob("math/*.h"), *core.glob("cuda/*")]):
        digest.update(path.read_bytes())
    target = ROOT / "build" / "cubins" / digest.hexdigest()[:16]
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        scratch = Path(name) / "cubins"
        scratch.mkdir()
        with ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(_compile, nvcc, source, architecture, scratch / f"{source.stem}.{architecture}.cubin")
                for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
                for architecture in ARCHITECTURES
            ]
            for job in jobs:
                job.result()
        if not target.exists():
            os.rename(scratch, target)
    return target


@cache
def kernels() -> tuple[Kernel, ...]:
    found = []
    entry = re.compile(
        r"Compiling entry function '(\S+)' for 'sm_(\d+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)",
        re.S,
    )
    for log in sorted(folder().glob("*.log")):
        matches = entry.findall(log.read_text())
        names = _demangled([match[0] for match in matches])
        for name, (symbol, architecture, stack, stores, loads, registers, rest) in zip(names, matches, strict=False):
            shared = re.search(r"(\d+) bytes smem", rest)
            found.append(
                Kernel(
                    _short(name),
                    symbol,
                    log.name.split(".")[0],
                    int(architecture),
                    int(registers),
                    int(stack),
                    int(stores) + int(loads),
                    int(shared.group(1)) if shared else 0,
                )
            )
    return tuple(found)


@cache
def _code_of(source: str, architecture: int) -> dict[str, list[tuple[int, str]]]:
    """symbol -> [(address, instruction)]"""
    command = [_disassembler(), "--dump-sass", str(folder() / f"{source}.{architecture}.cubin")]
    functions: dict[str, list[tuple[int, str]]] = {}
    body: list[tuple[int, str]] = []
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n"):
        if "Function :" in line:
            body = functions.setdefault(line.split()[-1], [])
        elif ";" in line and (match := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", line)):
            body.append((int(match.group(1), 16), match.group(2)))
    return functions


def code(kernel: Kernel) -> list[str]:
    return [text for _, text in _code_of(kernel.source, kernel.architecture)[kernel.symbol]]


def _successors(body: list[tuple[int, str]]) -> list[list[int]]:
    index = {address: i for i, (address, _) in enumerate(body)}
    following = []
    for i, (_, text) in enumerate(body):
        match = re.match(r"(@!?U?P\d+ )?(BRA|EXIT|RET)\b(.*)", text)
        if match is None:
            following.append([i + 1])
            continue
        guard, _, operands = match.groups()
        target = re.search(r"0x([0-9a-f]+)", operands)
        ways = [index[int(target.group(1), 16)]] if target else []
        if guard or re.search(r"U?P\d", operands):
            ways.append(i + 1)
        following.append(ways)
    return [[j for j in ways if j < len(body)] for ways in following]


def _densest_block(body: list[tuple[int, str]], following: list[list[int]], places: list[int]) -> list[int]:
    """Of the places those in the stretch without a branch, into it or out of it, that has most of them."""
    entered = {j for i, ways in enumerate(following) for j in ways if len(ways) > 1 or j != i + 1}
    blocks: list[list[int]] = [[]]
    for i in range(len(body)):
        if i in entered:
            blocks.append([])
        if i in places:
            blocks[-1].append(i)
    return max(blocks, key=len)


def loop_through(kernel: Kernel, pattern: str, densest: bool = False) -> Loop:
    """The shortest cycle in the kernel's control flow that passes an instruction which matches the pattern; or one of
    the stretch that has most of them."""
    body = _code_of(kernel.source, kernel.architecture)[kernel.symbol]
    following = _successors(body)
    starts = [i for i, (_, text) in enumerate(body) if re.search(pattern, text)]
    best: list[int] = []
    for start in _densest_block(body, following, starts) if densest else starts:
        distance, before, heap = {start: 0}, {}, [(0, start)]
        while heap:
            cost, i = heapq.heappop(heap)
            if cost > distance[i]:
                continue
            if start in following[i]:
                if not best or cost + 1 < len(best):
                    best = [i]
                    while best[-1] != start:
                        best.append(before[best[-1]])
                break
            for j in following[i]:
                if cost + 1 < distance.get(j, len(body)):
                    distance[j], before[j] = cost + 1, i
                    heapq.heappush(heap, (cost + 1, j))
    assert best, f"{kernel.name} has no loop through {pattern}"
    return Loop(tuple(body[i][1] for i in reversed(best)))
