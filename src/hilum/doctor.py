"""What is here, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass

from hilum import __version__, machine

# Extra → distributions that it brings.
EXTRAS = {
    "answers": ("numpy", "pillow", "simplejpeg", "pydicom", "onnxruntime"),
    "report": ("scipy", "scikit-learn", "matplotlib"),
    "train": ("torch", "onnx"),
}


@dataclass(frozen=True)
class Finding:
    """One line: what, how it is, whether that is well, and what to do if not."""

    section: str
    item: str
    value: str
    well: bool = True
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
        Finding("machine", "bfloat16", bf16),
    ]


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

    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            findings.append(Finding("places", f"cuda {k}", torch.cuda.get_device_name(k)))
    else:
        findings.append(Finding("places", "cuda", "no GPU seen by torch"))
    if torch.backends.mps.is_available():
        findings.append(Finding("places", "mps", "Apple GPU"))
    from hilum.networks import kernels

    findings.append(Finding("places", "own CPU kernels", kernels.status(), kernels.available()))
    return findings


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
