"""What is here, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
from dataclasses import dataclass

from hilum import __version__, heap, machine

# Extra → distributions that it brings.
EXTRAS = {
    "answers": ("numpy", "pillow", "simplejpeg", "pydicom", "onnxruntime"),
    "report": ("scipy", "scikit-learn", "matplotlib"),
    "train": ("torch", "onnx"),
}


@dataclass(frozen=True)
class Finding:
    """One line: what, how it is, whether that is well, and what to do if not.

    ``well`` is None for what may be absent.
    """

    section: str
    item: str
    value: str
    well: bool | None = True
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at the machine, the installs, the codecs, the places, the model and the cache."""
    return [*_here(), *_installs(), *_codecs(), *_places(), *_model(), *_cache()]


def _here() -> list[Finding]:
    gib = machine.memory_bytes() / 2**30
    bf16 = "in hardware" if machine.has_bfloat16() else "emulated, slow"
    return [
        Finding("machine", "hilum", __version__),
        Finding("machine", "Python", f"{platform.python_version()} on {platform.system()}"),
        Finding("machine", "processor", machine.processor()),
        Finding(
            "machine",
            "cores",
            f"{machine.cores()} granted, {machine.free_cores():.1f} idle now",
        ),
        Finding("machine", "memory", f"{gib:.1f} GiB"),
        *_pages(),
        Finding("machine", "bfloat16", bf16),
    ]


def _pages() -> list[Finding]:
    given = {"always": "given to all", "madvise": "given to who asks"}
    setting = heap.huge_pages()
    if setting is None:
        return []
    if setting in given:
        return [Finding("machine", "huge pages", given[setting])]
    remedy = f"as root: echo madvise > {heap.HUGE_PAGES}"
    said = "switched off; without them a training can take a quarter longer"
    return [Finding("machine", "huge pages", said, None, remedy)]


def _installs() -> list[Finding]:
    findings = []
    for extra, names in EXTRAS.items():
        for name in names:
            try:
                version = importlib.metadata.version(name)
                findings.append(Finding("installed", f"{name} ({extra})", version))
            except importlib.metadata.PackageNotFoundError:
                remedy = (
                    f'pip install "hilum[{extra}]"' if extra != "answers" else "pip install hilum"
                )
                findings.append(Finding("installed", f"{name} ({extra})", "missing", False, remedy))
    return findings


def _codecs() -> list[Finding]:
    """Each transfer syntax with a sample that was decoded here and now."""
    from hilum.films.samples import decoded

    return [
        Finding(
            "DICOM syntaxes",
            sample.name,
            f"decodes ({sample.decoder}, {sample.milliseconds:.1f} ms)"
            if sample.well
            else sample.why,
            sample.well,
            "" if sample.well else "pip install --force-reinstall hilum",
        )
        for sample in decoded()
    ]


def _places() -> list[Finding]:
    findings = [
        Finding("places", "cpu", f"{machine.cores()} threads"),
        Finding("places", "reference", "one thread, NumPy"),
    ]
    if importlib.util.find_spec("torch") is None:
        return findings
    import torch

    findings += _gpus()
    if torch.backends.mps.is_available():
        findings.append(Finding("places", "mps", "Apple GPU"))
    from hilum.networks import kernels

    findings.append(Finding("places", "own CPU kernels", kernels.status(), kernels.available()))
    return findings


def _gpus() -> list[Finding]:
    """The GPUs that torch sees, what they run on, and what hilum can do with them."""
    import torch

    from hilum.networks.kernels import gpu

    driver = _driver()
    if not torch.cuda.is_available():
        if driver is None:
            return [Finding("places", "cuda", "no GPU seen by torch", None)]
        why = "was built without CUDA" if torch.version.cuda is None else "sees none of them"
        text = f"the driver ({driver}) is there, but torch {torch.__version__} {why}"
        remedy = "install a torch for CUDA: https://pytorch.org/get-started/locally"
        return [Finding("places", "cuda", text, False, remedy)]
    findings = []
    for k in range(torch.cuda.device_count()):
        here = torch.cuda.get_device_properties(k)
        text = f"{here.name}, compute capability {here.major}.{here.minor}"
        whole = f"{here.total_memory / 2**30:.1f} GiB"
        try:
            free = f"{torch.cuda.mem_get_info(k)[0] / 2**30:.1f} of {whole} free"
            findings.append(Finding("places", f"cuda {k}", f"{text}, {free}"))
        except RuntimeError as error:
            said = f"{text}, {whole}: {str(error).splitlines()[0]}"
            findings.append(Finding("places", f"cuda {k}", said, False, "look at nvidia-smi"))
    versions = f"driver {driver or 'unknown'}, torch for CUDA {torch.version.cuda}"
    findings.append(
        Finding("places", "CUDA", f"{versions}, cuDNN {torch.backends.cudnn.version()}")
    )
    findings.append(Finding("places", "own GPU kernels", gpu.status(), gpu.available()))
    return findings


def _driver() -> str | None:
    """The NVIDIA driver's version as nvidia-smi tells it, or None."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.split()[0] if said.stdout.split() else None


def _model() -> list[Finding]:
    from hilum.errors import BundleRefused
    from hilum.inference.model import load

    try:
        bundle = load().bundle
    except BundleRefused as error:
        return [Finding("model", "shipped", str(error), False, "make model DATA=folder")]
    return [
        Finding("model", "shipped", f"{bundle.name}, digest {bundle.digest[:16]}"),
        Finding("model", "answers", ", ".join(bundle.operating_points)),
    ]


def _cache() -> list[Finding]:
    from hilum.datasets.cache import usage

    folder, size = usage()
    return [Finding("cache", str(folder), f"{size / 1e6:,.0f} MB (empty it: hilum doctor --clear)")]
