"""The exported graph, and the proof that it answers like the network that was trained."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from hilum.errors import TrainingStopped
from hilum.inference.engine import at_once
from hilum.training.graph import Graph

TOLERANCE = 1e-4
RAN_AWAY = 1e3  # a logit beyond this is no answer: a sane one is within tens
OPSET = 17


def export(graph: Graph, size: int) -> bytes:
    """The graph as ONNX: ``films`` uint8 (n, size, size) → ``logit``, ``cam``.

    Scaling and standardisation are in the graph, batch norms are folded into the convolutions,
    n is free. Made by tracing (``dynamo=False``), which needs no package beside ``onnx``.
    """
    graph.eval()
    axes = {name: {0: "n"} for name in ("films", *graph.outputs)}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its successor
        torch.onnx.export(
            graph,
            (torch.zeros(2, size, size, dtype=torch.uint8),),
            stream,  # type: ignore[arg-type]  # the tracing exporter writes to streams too
            input_names=["films"],
            output_names=list(graph.outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return stream.getvalue()


def parity(graph: Graph, model: bytes, films: NDArray[np.uint8]) -> float:
    """The largest difference of any output between ONNX and torch in float32.

    Compared on real films (32 at most, and best) in batches of 1, 3 and 16, or of as many large
    films as an engine takes at once; a class activation map is compared place by place.

    Raises
    ------
    TrainingStopped
        The difference exceeds 1e-4 (relative to 1 or the output's size, whichever is larger), or
        an output is not finite: such a graph must never be shipped.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph.eval()
    worst = 0.0
    for batch, most in ((1, 2), (3, 6), (min(16, at_once(films.shape[-1])), 32)):
        for start in range(0, max(1, min(len(films), most)), batch):
            pixels = np.resize(films[start : start + batch], (batch, *films.shape[1:]))
            with torch.inference_mode():
                answer = graph(torch.from_numpy(pixels))
            expected = answer if isinstance(answer, tuple) else (answer,)
            for ours, theirs in zip(expected, session.run(None, {"films": pixels}), strict=True):
                own = ours.numpy()
                if own.shape != theirs.shape:
                    raise _unlike(f"shape {theirs.shape} for {own.shape}", batch)
                gap = np.abs(own - theirs) / np.maximum(1, np.abs(own))
                worst = max(worst, float(gap.max()) if np.isfinite(gap).all() else np.inf)
                if not worst < TOLERANCE:
                    raise _ran_away(own) or _unlike(f"difference {worst:.2g}", batch)
    return worst


def _ran_away(outputs: NDArray[np.float32]) -> TrainingStopped | None:
    """Why graph and network differ, where it is that the training diverged; else None."""
    largest = float(np.abs(outputs).max())
    if largest < RAN_AWAY:  # false for NaN too
        return None
    how = f"reach {largest:.2g}" if np.isfinite(largest) else "are not finite"
    return TrainingStopped(
        f"the training has diverged: the network's outputs on real films {how}. Lower "
        "optimiser.lr and train anew."
    )


def _unlike(what: str, batch: int) -> TrainingStopped:
    return TrainingStopped(
        f"the exported graph does not answer like the trained network: {what} in a batch of "
        f"{batch}, allowed is {TOLERANCE:g}. The weights are kept in the run's checkpoint; update "
        "torch and onnxruntime and go on with --resume."
    )
