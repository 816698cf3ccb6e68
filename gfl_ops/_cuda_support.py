"""Whether the compiled kernels run on a GPU: what they were compiled for, and what its driver can load."""

from __future__ import annotations

import re


def cuda_support_problem(architectures: str, capability: tuple[int, int], driver: int, runtime: int) -> str:
    """Why they do not run; empty where they do.

    Args:
        architectures: what the core was built for, "sm_80 sm_90 compute_80".
        capability: of the GPU, (9, 0) for an H200.
        driver: the newest CUDA that the driver knows, 12040 for 12.4; 0 where there is none to ask.
        runtime: the CUDA that the core was built with. It runs on any driver of its major version.
    """
    if 0 < driver < runtime // 1000 * 1000:
        return f"the driver is for CUDA {_words(driver)}, and the native core was built with CUDA {_words(runtime)}"
    usable = [name for name in architectures.split() if _runs(name, capability)]
    if any(name.startswith("sm_") for name in usable):
        return ""
    major, minor = capability
    built = f"this GPU is sm_{major}{minor}, and the native core was built for {architectures}"
    if not usable:
        return built
    if 0 < driver < runtime:  # an older driver of the same major version loads machine code, and compiles nothing
        return f"{built}; a driver for CUDA {_words(driver)} cannot compile what CUDA {_words(runtime)} made"
    return ""


def _runs(name: str, capability: tuple[int, int]) -> bool:
    """Machine code (sm_90) runs within its major version, what is compiled when it is loaded (compute_90) on all that
    came later; with an "f" behind either stays within its major version, with an "a" on that one GPU."""
    match = re.fullmatch(r"(sm|compute)_(\d+)([af]?)", name)
    if match is None:
        return False
    kind, number, suffix = match.groups()
    least = divmod(int(number), 10)
    if suffix == "a":
        return capability == least
    same_major = capability[0] == least[0]
    return capability >= least and (same_major or (kind == "compute" and not suffix))


def _words(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
