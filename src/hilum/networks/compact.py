"""The network of recipe ``fast``: a small residual network with an exact class activation map.

    films (n, 1, s, s) → stem, s/4 → residual stages, each half as large and twice as wide
                       → (n, c, h, w) → mean over places → one linear layer → logit (n, 1)

The films come in standardised, each by its own mean and spread. The stem first folds 2 × 2 pixels
into four channels, so that no convolution runs at the films' full size. Because only a mean and a
linear layer follow the last features, the logit is the mean over places of ``classifier`` applied
to each place: that map is the class activation map, and it is exact (Zhou 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from hilum.networks import kernels


def watched(network: nn.Module) -> bool:
    """Whether somebody wants to see the layers of a network one by one."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


class Conv(nn.Conv2d):
    """A convolution without bias that keeps the size, less its stride."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int) -> None:
        super().__init__(n_in, n_out, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (3, 3) and self.stride == (1, 1):
            return kernels.framed_conv(x, self.weight)
        return super().forward(x)


class Fold(nn.PixelUnshuffle):
    """2 × 2 pixels of a film become four channels."""

    def forward(self, x: Tensor) -> Tensor:
        known = x.dtype == torch.float32 and not x.requires_grad
        if torch.jit.is_tracing() or not known or x.shape[1] > 1 or not x.is_contiguous():
            return super().forward(x)
        n, _, h, w = x.shape
        # Two neighbours move as one number, and channels come out last as convolutions want them.
        # Torch's own way takes four times as long, and the convolution behind it 1.5 times.
        pairs = x.view(n, h, w).view(torch.int64).view(n, h // 2, 2, w // 2)
        folded = pairs.transpose(2, 3).contiguous().view(torch.float32)
        return folded.view(n, h // 2, w // 2, 4).permute(0, 3, 1, 2)


class Norm(nn.Sequential):
    """A convolution without bias, batch normalisation, and what follows: a sum, a ReLU."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, relu: bool = True
    ) -> None:
        super().__init__(Conv(n_in, n_out, kernel, stride), nn.BatchNorm2d(n_out))
        self.relu = relu

    @property
    def branch(self) -> kernels.Branch:
        """What kernels are told of it."""
        convolution, norm = self
        return kernels.Branch(convolution.weight, norm)  # type: ignore[arg-type]

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        convolution, norm = self
        assert isinstance(norm, nn.BatchNorm2d)
        return kernels.normalised(convolution(x), norm, beside, self.relu)


class Stem(nn.Sequential):
    """2 × 2 pixels of films become four channels, and a convolution sees these."""

    def __init__(self, n_out: int, stride: int) -> None:
        super().__init__(Fold(2), Norm(4, n_out, stride=stride))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        _, norm = self
        assert isinstance(norm, Norm)
        if self.stride == 1 and not watched(self):
            known = kernels.stem(x, norm.branch)
            if known is not None:
                return known
        y: Tensor = super().forward(x)
        return y


class Residual(nn.Module):
    """Two convolutions beside a way around them (He 2016), after a mean where the size is halved.

    The second normalisation starts at zero, so each block starts as the way around. Where the
    size changes, both ways see the mean over 2 × 2 places: the way around as He 2019 has it, and
    the convolutions too, so that all of them keep their size.
    """

    def __init__(self, n_in: int, n_out: int, halve: bool = False) -> None:
        super().__init__()
        self.halve = nn.AvgPool2d(2, ceil_mode=True) if halve else nn.Identity()
        self.first = Norm(n_in, n_out)
        self.second = Norm(n_out, n_out)
        nn.init.zeros_(self.second[1].weight)  # type: ignore[arg-type]
        self.around = nn.Identity() if n_in == n_out else Norm(n_in, n_out, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        if not watched(self):
            ways = [way for way in (self.first, self.second, self.around) if isinstance(way, Norm)]
            halved = isinstance(self.halve, nn.AvgPool2d)
            known = kernels.residual(x, [way.branch for way in ways], halved)
            if known is not None:
                return known
        x = self.halve(x)
        y: Tensor = self.second(self.first(x), self.around(x))
        return y


class Compact(nn.Module):
    """A residual network of few channels.

    Parameters
    ----------
    width : channels of the first stage; each further stage has twice as many
    blocks : residual blocks of each stage; every stage after the first halves the size
    stem_stride : 2 for a first stage at a quarter of the films' side, 1 at half
    dropout : share of the pooled features left out in training

    Raises
    ------
    ValueError
        An option that is not positive, or a stride other than 1 and 2.
    """

    #: How pixels are scaled before they come in, see ``hilum.training.graph.scale``.
    input_scaling = "standardise"
    #: The head is a mean and one linear layer: the graph gives an exact class activation map.
    cam = True
    #: The compiled ones that its layers are in, see ``hilum.native``.
    libraries = ("residual",)
    #: Bytes that a step on a CPU holds at its peak for each value that a layer gives out, measured.
    held: ClassVar = {
        "kernels": {"float32": 6.5, "bfloat16": 4.2},
        "torch": {"float32": 8.0, "bfloat16": 4.5},
    }

    def __init__(
        self,
        width: int = 32,
        blocks: Sequence[int] = (1, 1, 1),
        stem_stride: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width < 1 or not blocks or min(blocks) < 1 or stem_stride not in (1, 2):
            raise ValueError(f"no such network: {width=}, {blocks=}, {stem_stride=}")
        if not 0 <= dropout < 1:
            raise ValueError(f"a share is expected: {dropout=}")
        self.stem = Stem(width, stem_stride)
        stages: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                stages.append(Residual(channels, width << stage, stage > 0 and block == 0))
                channels = width << stage
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, 1)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def features(self, x: Tensor) -> Tensor:
        """(n, 1, s, s) standardised, s even, to (n, c, h, w)."""
        y: Tensor = self.stages(self.stem(x))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, s, s) standardised, to logits (n, 1)."""
        pooled = self.features(x).to(torch.promote_types(x.dtype, torch.float32)).mean((2, 3))
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits
