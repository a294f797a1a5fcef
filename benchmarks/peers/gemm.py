"""One product of two square matrices by torch: what the processor reaches at best.

python gemm.py float32|bfloat16
"""

from __future__ import annotations

import sys

import torch
from protocol import serve

SIDE = 2048


def main(dtype: str) -> None:
    a, b, out = (torch.randn(SIDE, SIDE).to(getattr(torch, dtype)) for _ in range(3))
    serve({"torch": torch.__version__, "gflop": 2 * SIDE**3 / 1e9}, lambda: torch.mm(a, b, out=out))


if __name__ == "__main__":
    main(*sys.argv[1:])
