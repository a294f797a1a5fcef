"""From uint8 pixels to a logit: the scaling that every network shares, and the exported graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Spread, in grey values of 255, that keeps a nearly constant film from being blown up to noise.
LEAST_SPREAD = 0.255


def scale(films: Tensor, how: str) -> Tensor:
    """Grey values 0 to 255 as a network takes them.

    Parameters
    ----------
    films : (n, 1, s, s) float
    how : ``unit``, x / 255; ``standardise``, each film by its own mean and spread
    """
    if how == "unit":
        return films / 255
    if how != "standardise":
        raise ValueError(f"no such scaling: {how}")
    centred = films - films.mean((2, 3), keepdim=True)
    spread = (centred * centred).mean((2, 3), keepdim=True).sqrt()
    return centred / (spread + LEAST_SPREAD)


class Graph(nn.Module):
    """A network with its scaling before it and its answers named: what is exported.

    ``forward`` takes uint8 (n, s, s) and returns ``logit`` (n,), and ``cam`` (n, h, w) where the
    network ends in global average pooling and one linear layer: the class activation map in
    units of the logit, whose mean is the logit (Zhou 2016).

    Parameters
    ----------
    mirror : answer with the mean of what the network says of a film and of its mirror image
    """

    def __init__(self, network: Any, mirror: bool = False) -> None:
        super().__init__()
        self.network, self.mirror = network, mirror
        self.outputs = ("logit", "cam") if network.cam else ("logit",)

    def forward(self, films: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = scale(films.unsqueeze(1).float(), self.network.input_scaling)
        if self.mirror:
            x = torch.cat([x, x.flip(3)])
        if not self.network.cam:
            return self._both(self.network(x).flatten())
        features = self.network.features(x)
        head = self.network.classifier
        cam = nn.functional.conv2d(features, head.weight[:, :, None, None], head.bias).squeeze(1)
        return self._both(head(features.mean((2, 3))).flatten()), self._both(cam)

    def _both(self, found: Tensor) -> Tensor:
        """The mean of films and mirror images (2 n, ...); maps are turned back."""
        if not self.mirror:
            return found
        plain, mirrored = found.reshape(2, -1, *found.shape[1:])
        return (plain + (mirrored.flip(2) if mirrored.dim() == 3 else mirrored)) / 2
