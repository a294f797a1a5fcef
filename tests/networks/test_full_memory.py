"""Kernels in a process that is granted too little memory: an error that Python can tell."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hilum.networks import kernels

# Many small films, whose scratch memory is far larger than what torch holds of them: 75 MB and 5.
SCRIPT = """
import resource, sys
import torch
from hilum.networks import kernels

dtype = getattr(torch, sys.argv[1])
weight = torch.randn(64, 64, 3, 3) / 24
bias = torch.zeros(64)
torch.set_num_threads(2)

def step(films):
    torch.manual_seed(1)
    x = torch.randn(films, 64, 6, 6).to(dtype, memory_format=torch.channels_last)
    x.requires_grad_()
    loss = kernels.conv_relu_pool(x, weight, bias).float().sum()
    return x, loss

def gradient(films):
    x, loss = step(films)
    loss.backward()
    return x.grad

before = gradient(3)
_, loss = step(512)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (32 << 20), resource.RLIM_INFINITY))
try:
    loss.backward()
except MemoryError:
    print("memory full")
assert torch.equal(gradient(3), before)
print("whole")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_backward_pass_without_memory_is_an_error_and_the_next_is_right(dtype: str) -> None:
    if not kernels.available("blocks"):
        pytest.skip(kernels.status("blocks"))
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, dtype], capture_output=True, text=True, timeout=120
    )
    assert (told.returncode, told.stdout) == (0, "memory full\nwhole\n"), told.stderr
