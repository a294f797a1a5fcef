"""The exported graph, run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import machine
from hilum.bundle import Bundle
from hilum.errors import BundleRefused

BATCH = 32  # films at most


def at_once(size: int) -> int:
    """Films of so many pixels a side to run in one batch: a layer's outputs are what takes memory,
    and those of a few large films are the sooner still in the processor's caches."""
    return max(1, min(BATCH, BATCH * 128**2 // size**2))


class Engine:
    """Runs a bundle's graph.

    Parameters
    ----------
    bundle : the model
    threads : threads of ONNX Runtime; all granted cores where None. (ONNX Runtime itself would
        take the host's, not the cgroup's.)

    Attributes
    ----------
    batch : films that are run at once
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or machine.cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin between batches would take cores from the decoding workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has its own exceptions
            raise BundleRefused(
                f"the model's graph cannot be run: {bundle.name} ({type(error).__name__}). "
                "Make the model anew, or upgrade onnxruntime."
            ) from error
        self.size = bundle.preprocessing.size
        self.batch = at_once(self.size)
        self.has_cam = "cam" in {output.name for output in self._session.get_outputs()}

    def run(
        self, films: NDArray[np.uint8], *, cam: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Logits, and class activation maps if asked for and the network has them.

        Parameters
        ----------
        films : (n, s, s) uint8 as ``preprocess`` makes them; any n, run in batches

        Returns
        -------
        logits : (n,) float32
        cams : (n, h, w) float32 in units of the logit, or None
        """
        if films.dtype != np.uint8 or films.ndim != 3 or films.shape[1:] != (self.size,) * 2:
            raise ValueError(
                f"the graph takes uint8 (n, {self.size}, {self.size}) from preprocess(), "
                f"not {films.dtype} {films.shape}"
            )
        names = ["logit", "cam"] if cam and self.has_cam else ["logit"]
        pieces: list[list[Any]] = [
            self._session.run(names, {"films": np.ascontiguousarray(films[i : i + self.batch])})
            for i in range(0, len(films), self.batch)
        ]
        if not pieces:
            return np.zeros(0, np.float32), None
        logits = np.concatenate([piece[0] for piece in pieces])
        cams = np.concatenate([piece[1] for piece in pieces]) if len(names) == 2 else None
        return logits, cams
