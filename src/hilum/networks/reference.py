"""The paper's network in plain NumPy: one film at a time, one thread, float64.

Read it beside section 3.2 of the paper. Every formula there is a function here, and the network
below is these functions in order. It is the sequential algorithm that all other places are
compared with, and the judge of what they compute: ``tests/networks/test_reference.py`` holds it
against torch.

Arrays are (channels, rows, columns) for a feature map A, (filters, channels, f, f) for weights
W; dX is the derivative of the loss by X, of X's shape.

**Convolution or correlation?** The paper's formula, G[m,n] = Σ h[j,k] f[m-j, n-k], is the true
convolution: the kernel runs backwards over the image. Keras, torch and everybody else compute
Σ h[j,k] f[m+j, n+k], the correlation, and call it convolution. Since the kernel is learnt, each
learns the other's kernel turned by 180° and nothing is lost; but one has to know where to turn.
Here ``convolve`` is the paper's formula, ``correlate`` the frameworks' layer, ``turned`` the
only thing between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.networks.arithmetic import (
    Convolution,
    Dense,
    Description,
    MaxPooling,
    fans,
    n_out,
    paper_network,
    parameter_shapes,
)

Array = NDArray[np.float64]
Parameters = dict[str, Array]
"""Weights and biases by torch's names: ``conv1.weight``, ``conv1.bias``, ... ``dense3.bias``."""


def convolve_by_loops(f: ArrayLike, h: ArrayLike) -> Array:
    """G[m,n] = Σ_j Σ_k h[j,k] f[m-j, n-k], written as it stands: for reading, and for tests.

    Parameters
    ----------
    f : (rows, columns) image
    h : (a, b) kernel

    Returns
    -------
    (rows - a + 1, columns - b + 1): only places where the kernel lies wholly on the image
    ("valid"), so the first of them is m = a - 1, n = b - 1

    Notes
    -----
    The paper writes the first sum over i and uses j: a slip.
    """
    f, h = np.asarray(f, np.float64), np.asarray(h, np.float64)
    (rows, columns), (a, b) = f.shape, h.shape
    g = np.zeros((rows - a + 1, columns - b + 1))
    for m in range(a - 1, rows):
        for n in range(b - 1, columns):
            for j in range(a):
                for k in range(b):
                    g[m - a + 1, n - b + 1] += h[j, k] * f[m - j, n - k]
    return g


def turned(w: Array) -> Array:
    """A kernel, or each of many, turned by 180°."""
    return w[..., ::-1, ::-1]


def padded(a: Array, p: int) -> Array:
    """A frame of ``p`` zeros around each channel."""
    return np.pad(a, ((0, 0), (p, p), (p, p))) if p else a


def correlate(a: Array, w: Array, b: Array | None = None, s: int = 1, p: int = 0) -> Array:
    """Z = W · A + b: the convolutional layer of all frameworks, over volume.

    The sum over the kernel's places j, k is the loop; the sum over channels, at all places m, n
    of the map at once, is a product of matrices.

    Parameters
    ----------
    a : (channels, rows, columns)
    w : (filters, channels, f, f)
    b : (filters,)
    s, p : step of the filter, frame of zeros

    Returns
    -------
    (filters, n_out, n_out)
    """
    a = padded(a, p)
    filters, _, height, width = w.shape
    rows, columns = n_out(a.shape[1], height, s), n_out(a.shape[2], width, s)
    z = np.zeros((filters, rows * columns))
    for j in range(height):
        for k in range(width):
            z += w[:, :, j, k] @ _moved(a, j, k, rows, columns, s)
    if b is not None:
        z += b[:, None]
    return z.reshape(filters, rows, columns)


def _moved(a: Array, j: int, k: int, rows: int, columns: int, s: int = 1) -> Array:
    """What the kernel's place j, k sees from each place of the map: (channels, rows·columns)."""
    seen = a[:, j : j + s * (rows - 1) + 1 : s, k : k + s * (columns - 1) + 1 : s]
    return seen.reshape(len(a), -1)


def convolve(a: Array, w: Array, b: Array | None = None) -> Array:
    """The paper's true convolution, over volume: the correlation with the kernel turned."""
    return correlate(a, turned(w), b)


def full_convolution(dz: Array, w: Array) -> Array:
    """dA of a convolutional layer: the paper's "full convolution" with the kernel turned by 180°.

    dA[c] = Σ_filters Σ_m Σ_n W · dZ[m,n]: each output hands its derivative back to the f × f
    places that it was made from, weighted by the kernel. Gathered for one place instead of
    handed out, this is a correlation of dZ, framed by f - 1 zeros, with the kernel turned.

    Parameters
    ----------
    dz : (filters, rows, columns)
    w : (filters, channels, f, f), of a layer with step 1 and no frame

    Returns
    -------
    (channels, rows + f - 1, columns + f - 1)
    """
    return correlate(padded(dz, w.shape[2] - 1), turned(w).swapaxes(0, 1))


def weight_gradients(a: Array, dz: Array) -> tuple[Array, Array]:
    """dW and db of a convolutional layer with step 1 and no frame.

    Every place of the map used the same weight, so their shares add up:
    dW[j,k] = Σ_m Σ_n dZ[m,n] A[m+j, n+k] and db = Σ_m Σ_n dZ[m,n].

    Returns
    -------
    (filters, channels, f, f) and (filters,)
    """
    filters, rows, columns = dz.shape
    height, width = a.shape[1] - rows + 1, a.shape[2] - columns + 1
    flat = dz.reshape(filters, -1)
    dw = np.empty((filters, len(a), height, width))
    for j in range(height):
        for k in range(width):
            dw[:, :, j, k] = flat @ _moved(a, j, k, rows, columns).T
    return dw, flat.sum(axis=1)


def max_pool(a: Array, size: int = 2) -> tuple[Array, NDArray[np.int64]]:
    """The largest value of each region, channel by channel, and which of the region it was.

    Regions lie side by side; rows and columns that do not fill one are left out. Of equal
    values the first wins, row by row, as in torch.

    Returns
    -------
    (channels, rows // size, columns // size), twice: the values, and the winners as numbers
    0 to size² - 1
    """
    channels, rows, columns = a.shape[0], a.shape[1] // size, a.shape[2] // size
    regions = a[:, : rows * size, : columns * size].reshape(channels, rows, size, columns, size)
    regions = regions.swapaxes(2, 3).reshape(channels, rows, columns, size * size)
    winners = regions.argmax(axis=-1)
    return np.take_along_axis(regions, winners[..., None], axis=-1)[..., 0], winners


def max_pool_gradient(
    dy: Array, winners: NDArray[np.int64], shape: tuple[int, ...], size: int = 2
) -> Array:
    """Each derivative goes to the place that won; all others get nothing.

    Parameters
    ----------
    shape : of the layer's input
    """
    channels, rows, columns = dy.shape
    regions = np.zeros((channels, rows, columns, size * size))
    np.put_along_axis(regions, winners[..., None], dy[..., None], axis=-1)
    regions = regions.reshape(channels, rows, columns, size, size).swapaxes(2, 3)
    da = np.zeros(shape)
    da[:, : rows * size, : columns * size] = regions.reshape(channels, rows * size, -1)
    return da


def relu(z: Array) -> Array:
    """A = g(Z) = max(Z, 0). (The paper prints g(Z^[i-1]): a slip for g(Z^[i]).)"""
    return np.maximum(z, 0.0)


def relu_gradient(da: Array, z: Array) -> Array:
    """dZ = dA · g'(Z), with g'(0) = 0."""
    return da * (z > 0.0)


def dense(a: Array, w: Array, b: Array) -> Array:
    """Z = W · A + b for a vector A; w is (units, inputs)."""
    return w @ a + b


def dense_gradients(a: Array, w: Array, dz: Array) -> tuple[Array, Array, Array]:
    """dA, dW and db of a dense layer."""
    return w.T @ dz, np.outer(dz, a), dz


def sigmoid(z: ArrayLike) -> Array:
    """1 / (1 + e^-z), without overflow for any z."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(z, np.float64))))


def cross_entropy(z: ArrayLike, y: ArrayLike, weight: ArrayLike = 1.0) -> Array:
    """Binary cross-entropy of a logit: weight · −[y ln σ(z) + (1 − y) ln(1 − σ(z))].

    Taken from the logit, ln(1 + e^z) − y·z, so that a sure but wrong answer costs much and not
    infinity.
    """
    z = np.asarray(z, np.float64)
    return np.asarray(weight) * (np.logaddexp(0.0, z) - np.asarray(y) * z)


def cross_entropy_gradient(z: ArrayLike, y: ArrayLike, weight: ArrayLike = 1.0) -> Array:
    """Its derivative by the logit: weight · (σ(z) − y)."""
    return np.asarray(weight) * (sigmoid(z) - np.asarray(y))


class ReferenceNetwork:
    """The paper's network for films of one size.

    Parameters
    ----------
    size : side of the films in pixels, 94 or more for the paper's five blocks
    parameters : as :attr:`parameters`; otherwise by :meth:`initialise` from seed 0
    description : another network of the same layers

    Attributes
    ----------
    parameters : weights and biases, float64, with the names and shapes of the torch network's
        ``state_dict``
    """

    def __init__(
        self,
        size: int = 500,
        parameters: Mapping[str, ArrayLike] | None = None,
        description: Description | None = None,
    ) -> None:
        self.size = size
        self.description = paper_network() if description is None else description
        for layer in self.description:
            if isinstance(layer, Convolution) and (layer.step, layer.padding) != (1, 0):
                raise ValueError(f"no way back through a step or a frame: {layer.name}")
        self.shapes = parameter_shapes(self.description, size)
        self.parameters: Parameters = {}
        if parameters is None:
            self.initialise(np.random.default_rng(0))
        else:
            self.load(parameters)

    def initialise(self, rng: np.random.Generator) -> None:
        """Keras's start: Glorot uniform weights, ±√(6 / (inputs + outputs)); zero biases."""
        for name, shape in self.shapes.items():
            if name.endswith("bias"):
                self.parameters[name] = np.zeros(shape)
            else:
                limit = np.sqrt(6.0 / sum(fans(shape)))
                self.parameters[name] = rng.uniform(-limit, limit, shape)

    def load(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Take copies of these weights; ``ValueError`` where names or shapes are others."""
        taken = {name: np.array(value, np.float64) for name, value in parameters.items()}
        if {name: value.shape for name, value in taken.items()} != self.shapes:
            raise ValueError("these are not the weights of this network at this size")
        self.parameters = {name: taken[name] for name in self.shapes}

    def forward(self, films: ArrayLike) -> Array:
        """Logits (n, 1) of films (n, 1, size, size), scaled as the network is trained."""
        return np.array([self._forward(film)[0] for film in self._checked(films)]).reshape(-1, 1)

    def loss_and_gradients(
        self, films: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[float, Parameters]:
        """Mean loss over the films, and its derivative by every parameter.

        Parameters
        ----------
        films : (n, 1, size, size)
        labels : (n,) of 0 and 1
        weights : (n,) what each film counts (the class weights); the mean is still over n, as
            Keras and torch take it

        The films' logits, (n, 1), are left in :attr:`logits`.
        """
        films = self._checked(films)
        labels = np.asarray(labels, np.float64).reshape(-1)
        count = len(films)
        weights = np.ones(count) if weights is None else np.asarray(weights).reshape(-1)
        loss = 0.0
        self.logits = np.empty((count, 1))
        total = {name: np.zeros(shape) for name, shape in self.shapes.items()}
        for i, (film, y, weight) in enumerate(zip(films, labels, weights, strict=True)):
            z, kept = self._forward(film)
            self.logits[i] = z
            loss += float(cross_entropy(z, y, weight)) / count
            dz = cross_entropy_gradient(z, y, weight) / count
            for name, gradient in self._backward(dz, kept).items():
                total[name] += gradient
        return loss, total

    def _checked(self, films: ArrayLike) -> Array:
        films = np.asarray(films, np.float64)
        if films.shape[1:] != (1, self.size, self.size):
            raise ValueError(f"films of shape {films.shape}, not (n, 1, {self.size}, {self.size})")
        return films

    def _forward(self, film: Array) -> tuple[float, list[tuple[Array, NDArray[Any]]]]:
        """The logit of one film (1, size, size), and what each layer keeps for the way back."""
        a = film
        kept: list[tuple[Array, NDArray[Any]]] = []
        for layer in self.description:
            if isinstance(layer, Convolution):
                w, b = self._weights(layer.name)
                z = correlate(a, w, b, layer.step, layer.padding)
                kept.append((a, z))
                a = relu(z)
            elif isinstance(layer, MaxPooling):
                y, winners = max_pool(a, layer.size)
                kept.append((a, winners))
                a = y
            elif isinstance(layer, Dense):
                z = dense(a, *self._weights(layer.name))
                kept.append((a, z))
                a = z if layer is self.description[-1] else relu(z)
            else:  # flatten
                kept.append((a, a))
                a = a.reshape(-1)
        return float(a[0]), kept

    def _backward(self, dz: Array, kept: list[tuple[Array, NDArray[Any]]]) -> Parameters:
        """Derivatives by every parameter for one film, from the last layer to the first."""
        gradients: Parameters = {}
        d: Array = np.reshape(dz, -1)  # by what comes out of the layer
        first, last = self.description[0], self.description[-1]
        for layer, (a, inner) in zip(reversed(self.description), reversed(kept), strict=True):
            if isinstance(layer, Convolution):
                d = relu_gradient(d, inner)
                dw, db = weight_gradients(a, d)
                gradients[f"{layer.name}.weight"], gradients[f"{layer.name}.bias"] = dw, db
                if layer is not first:  # nobody asks for the derivative by the film
                    d = full_convolution(d, self._weights(layer.name)[0])
            elif isinstance(layer, MaxPooling):
                d = max_pool_gradient(d, inner, a.shape, layer.size)
            elif isinstance(layer, Dense):
                d = d if layer is last else relu_gradient(d, inner)
                d, dw, db = dense_gradients(a, self._weights(layer.name)[0], d)
                gradients[f"{layer.name}.weight"], gradients[f"{layer.name}.bias"] = dw, db
            else:  # flatten
                d = d.reshape(a.shape)
        return gradients

    def _weights(self, name: str) -> tuple[Array, Array]:
        return self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]


class Adam:
    """The optimiser of Kingma & Ba (2015), with Keras's constants.

    m and v are running means of the gradient and of its square; the step is
    rate · √(1 − β2^t) / (1 − β1^t) · m / (√v + epsilon). Like Keras this takes the form of the
    end of their section 2, where epsilon stands beside √v before its correction; torch puts it
    beside √(v / (1 − β2^t)), which differs only where gradients are about epsilon small.
    """

    def __init__(
        self, rate: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-7
    ) -> None:
        self.rate, self.beta1, self.beta2, self.epsilon = rate, beta1, beta2, epsilon
        self.steps = 0
        self.m: Parameters = {}
        self.v: Parameters = {}

    def step(self, parameters: Parameters, gradients: Mapping[str, Array]) -> None:
        """Move every parameter, in place."""
        self.steps += 1
        rate = self.rate * np.sqrt(1 - self.beta2**self.steps) / (1 - self.beta1**self.steps)
        for name, gradient in gradients.items():
            m = self.m.setdefault(name, np.zeros_like(gradient))
            v = self.v.setdefault(name, np.zeros_like(gradient))
            m += (1 - self.beta1) * (gradient - m)
            v += (1 - self.beta2) * (gradient**2 - v)
            parameters[name] -= rate * m / (np.sqrt(v) + self.epsilon)
