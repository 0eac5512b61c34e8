"""The machine that runs are made on: the device, the settings of the process, and what a record says of both."""

import contextlib
import ctypes
import datetime
import os
import platform
import subprocess
from pathlib import Path

import torch

from ..common import ROOT, UramError, check
from . import DEVICES

RUNS_ON = ("uram_lib", "requirements.lock")  # what a run depends on


def prepare_process(device: torch.device | str = "cpu", threads: int = 0) -> None:
    """Set, once per process, what training needs of it: the number of threads (0: as it is), an allocator that keeps
    freed memory, float32 products as wide as the processor can, and the same bits for the same inputs (on an
    accelerator as far as PyTorch can, with a warning where not)."""
    device = torch.device(device)
    if threads:
        torch.set_num_threads(threads)
    with contextlib.suppress(OSError, AttributeError):  # glibc alone
        mallopt = ctypes.CDLL("libc.so.6").mallopt  # give a step the memory that the last one freed
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-2, 64 * 2**20)  # M_TOP_PAD
    # MKL keeps to narrow instructions on AMD's processors; oneDNN does not. PyTorch offers that route under the name of
    # a lower precision, which oneDNN takes only on processors with AMX. AMD has none: it computes in float32.
    cpus = Path("/proc/cpuinfo")
    if cpus.exists() and "AuthenticAMD" in cpus.read_text() and torch.backends.cpu.get_cpu_capability() == "AVX512":
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads memory before writing it
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "ieee"


def devices_here() -> list[str]:
    """The kinds of device on this machine, the fastest first."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [kind for kind, here in present.items() if here]


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, else MPS, else CPU. Raises UramError for an unknown device or one that is not here."""
    check("device", name, DEVICES)
    here = devices_here()
    if name not in ("auto", *here):
        raise UramError(f"device {name!r} is not available on this machine; here: {', '.join(here)}")
    return torch.device(here[0] if name == "auto" else name)


def session(device: str, epoch: int) -> dict:
    """Which code is at a run from now on, from which epoch, when, and on what machine."""
    return {
        **git_state(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
        "processor": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "from_epoch": epoch,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def git_state(*folders: str) -> dict:
    """The commit that the code stands at, and whether tracked files differ from it: in `folders`, by default those that
    a run depends on. `URAM_COMMIT` names the commit for a copy of the code without its repository."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *(folders or RUNS_ON))
        return {"git_commit": git("rev-parse", "HEAD").strip(), "dirty": bool(changed.strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": os.environ.get("URAM_COMMIT", "unknown"), "dirty": False}


def cpu_name() -> str:
    """The processor's model name, and the widest vector instructions that PyTorch uses on it."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
