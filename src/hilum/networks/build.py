"""Networks by name."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from inspect import signature
from math import prod
from typing import TYPE_CHECKING, Any

from hilum.errors import UsageError, missing_extra, nearest
from hilum.networks import arithmetic
from hilum.networks.arithmetic import Layer

if TYPE_CHECKING:
    from torch import nn

NETWORKS = {
    "paper2021": "hilum.networks.paper2021:Paper2021",
    "compact": "hilum.networks.compact:Compact",
}
"""Where the class of each network is; loaded when it is first built."""


def build(name: str, size: int, **options: Any) -> nn.Module:
    """A network for films of ``size`` × ``size`` pixels, initialised from seed 0.

    Parameters
    ----------
    name : one of :data:`NETWORKS`
    options : the network's own keyword arguments

    Raises
    ------
    UsageError
        No such network or option, no such value of one, or the films are too small.
    MissingExtra
        torch is not installed.
    """
    network = named(name)
    parameters = signature(network).parameters
    known = set(parameters)
    for option, value in options.items():
        if option not in known - {"size"}:
            raise UsageError(
                f"network {name} has no option {option}. {nearest(option, known - {'size'})}"
            )
        if not _fits(value, default := parameters[option].default):
            raise UsageError(
                f"no value of network {name}'s option {option}: {value!r}. Its default is "
                f"{default}."
            )
    # Only dense layers tie a network to one size; a network that pools takes any.
    try:
        return network(**({"size": size} if "size" in known else {}), **options)
    except ValueError as error:
        raise UsageError(f"network {name} cannot be built: {error}.") from None


def _fits(value: Any, default: Any) -> bool:
    """Whether an option's value is of its default's kind; whole numbers count something."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(_fits(one, 1) for one in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int) and value > 0
    return isinstance(value, int | float)


def named(name: str) -> Any:
    """The class of a network; raises as :func:`build` does."""
    if name not in NETWORKS:
        raise UsageError(f"no such network: {name}. {nearest(name, NETWORKS)}")
    module, _, made = NETWORKS[name].partition(":")
    try:
        return getattr(import_module(module), made)
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from error


def layer_table(network: nn.Module, size: int) -> list[Layer]:
    """The layer table of a network for films of ``size`` × ``size`` pixels.

    A network that has a description is calculated (:func:`arithmetic.layer_table`); any other
    is watched while one black film runs through it: each layer that has parameters or changes
    the shape.
    """
    import torch
    from torch import nn

    if hasattr(network, "description"):
        return arithmetic.layer_table(network.description, size)  # type: ignore[arg-type]
    table = [Layer("films", "input", (1, size, size), 0, 0)]

    def watch(name: str, module: nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> None:
        parameters = sum(p.numel() for p in module.parameters(recurse=False))
        shape = tuple(out.shape[1:])
        if parameters or shape != given[0].shape[1:]:
            work = 0
            if isinstance(module, nn.Conv2d | nn.Linear):
                work = prod(shape) * prod(module.weight.shape[1:])
            table.append(Layer(name, _kind(module), shape, parameters, work))

    leaves = [(name, m) for name, m in network.named_modules() if not list(m.children())]
    handles = [m.register_forward_hook(partial(watch, name)) for name, m in leaves]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 1, size, size))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return table


def _kind(module: nn.Module) -> str:
    """What a layer is, in words."""
    from torch import nn

    if isinstance(module, nn.Conv2d):
        step = f", step {module.stride[0]}" if module.stride[0] > 1 else ""
        return f"convolution {module.kernel_size[0]}×{module.kernel_size[1]}{step}"
    names: dict[type[nn.Module], str] = {
        nn.Linear: "dense",
        nn.BatchNorm2d: "batch normalisation",
        nn.PixelUnshuffle: "pixels into channels",
        nn.AvgPool2d: "mean pooling",
    }
    words = (words for kind, words in names.items() if isinstance(module, kind))
    return next(words, type(module).__name__)
