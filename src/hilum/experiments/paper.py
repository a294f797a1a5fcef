"""The paper's own figures, as printed, and what can be known of how they came about.

Source: L. Mochurad, A. Dereviannyi, U. Antoniv, "Classification of X-Ray Images of the Chest Using
Convolutional Neural Networks", IDDM 2021, Valencia (CEUR-WS, CC BY 4.0): tables 1 to 6 and the
text of sections 3 to 6. ``docs/method.md`` tells how the reconstruction was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

SOURCE = (
    "L. Mochurad, A. Dereviannyi & U. Antoniv, Classification of X-Ray Images of the Chest Using "
    "Convolutional Neural Networks, IDDM 2021 (CC BY 4.0)"
)


@dataclass(frozen=True)
class PaperEpoch:
    """One row of table 1 or 2: seconds an epoch, seconds a step, losses and accuracies."""

    seconds: float
    seconds_per_step: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


#: Table 1: NVIDIA GeForce GTX 1650 Ti. Steps were printed in milliseconds.
GPU = (
    PaperEpoch(91, 0.344, 0.5762, 0.7623, 0.2828, 0.9308),
    PaperEpoch(91, 0.346, 0.3177, 0.8887, 0.2724, 0.9192),
    PaperEpoch(93, 0.353, 0.2737, 0.9093, 0.2852, 0.9279),
    PaperEpoch(93, 0.353, 0.2462, 0.9206, 0.2363, 0.9375),
    PaperEpoch(91, 0.345, 0.2341, 0.9229, 0.2397, 0.9288),
    PaperEpoch(90, 0.343, 0.2227, 0.9289, 0.2056, 0.9558),
    PaperEpoch(91, 0.345, 0.1896, 0.9359, 0.1843, 0.9519),
    PaperEpoch(91, 0.345, 0.1816, 0.9446, 0.1696, 0.9529),
    PaperEpoch(90, 0.343, 0.1897, 0.9405, 0.2008, 0.9452),
    PaperEpoch(92, 0.349, 0.1780, 0.9419, 0.2312, 0.9423),
)
#: Table 2: Intel Core i7-10750H. Steps were printed in whole seconds.
CPU = (
    PaperEpoch(578, 2, 0.4927, 0.7721, 0.2566, 0.9058),
    PaperEpoch(590, 2, 0.2711, 0.8881, 0.1830, 0.9337),
    PaperEpoch(597, 2, 0.2048, 0.9152, 0.1583, 0.9423),
    PaperEpoch(590, 2, 0.2066, 0.9197, 0.1347, 0.9538),
    PaperEpoch(579, 2, 0.1636, 0.9292, 0.1498, 0.9452),
    PaperEpoch(553, 2, 0.1861, 0.9252, 0.1527, 0.9423),
    PaperEpoch(535, 2, 0.1751, 0.9320, 0.1405, 0.9481),
    PaperEpoch(526, 2, 0.1400, 0.9466, 0.1479, 0.9500),
    PaperEpoch(524, 2, 0.1366, 0.9481, 0.1292, 0.9500),
    PaperEpoch(524, 2, 0.1511, 0.9464, 0.1512, 0.9538),
)
#: The two curves of the paper by the name of their table's column.
CURVES = {"GPU": GPU, "CPU": CPU}
#: The same curves as tables 3, 4 and 5 print them: the first validation loss of table 3 is not
#: table 1's, and the GPU's steps of table 5 are rounded to two figures.
PRINTED: dict[int, Mapping[str, tuple[PaperEpoch, ...]]] = {
    3: {"GPU": (replace(GPU[0], val_loss=0.2825), *GPU[1:]), "CPU": CPU},
    4: CURVES,
    5: {
        "GPU": tuple(
            replace(epoch, seconds_per_step=printed)
            for epoch, printed in zip(
                GPU, (0.34, 0.35, 0.35, 0.35, 0.35, 0.34, 0.35, 0.35, 0.34, 0.35), strict=True
            )
        ),
        "CPU": CPU,
    },
}

SIZE = 500
#: Seconds an epoch on the CPU over those on the GPU, as the paper gives it.
SPEED_UP = 6.13

#: Table 6: actual by predicted, on 624 films.
MATRIX = {"tn": 191, "fp": 43, "fn": 3, "tp": 387}
#: The metrics as printed below table 6.
METRICS = {"accuracy": 0.93, "precision": 0.90, "recall": 0.99, "f1": 0.94}

#: Section 4, "the following characteristics".
MACHINE = {
    "processor": "Intel Core i7-10750H, 2.59 GHz",
    "cores": "6 (12 threads)",
    "gpu": "NVIDIA GeForce GTX 1650 Ti, 4 GB",
    "software": "Keras and TensorFlow; versions not named",
    "threads": "not named: TensorFlow's own, so the CPU run was not sequential",
    "precision": "not named: float32 by default",
}


@dataclass(frozen=True)
class Reconstruction:
    """What the paper says of something, what it really was, and how sure that is."""

    what: str
    said: str
    was: str
    sure: str
    why: str


RECONSTRUCTED = (
    Reconstruction(
        "films",
        "NIH ChestX-ray14, 112,120 films of 30,805 patients",
        "Kermany's set (children of 1–5 years, Guangzhou) in Breviglieri's revision: 4,192 films "
        "to train, 1,040 to validate, 624 to test",
        "very sure",
        "table 6 has 234 and 390 films, the published test part; all twenty validation accuracies "
        "are multiples of 1/1040 and of no other number between 200 and 1,300",
    ),
    Reconstruction(
        "validation part",
        "not said",
        "1,040 films drawn by film, so that children lie in both parts",
        "sure",
        "Breviglieri's revision is drawn so; a child of this set has up to thirty films",
    ),
    Reconstruction(
        "pixels",
        "500 × 500",
        "grey, scaled to 0–1, both sides stretched to 500",
        "likely",
        "a public Keras tutorial with the same data, size, batch and network does it so",
    ),
    Reconstruction(
        "network",
        "figure 4, a picture",
        "five blocks of convolution 3 × 3, ReLU and max-pooling with 32, 32, 32, 64, 64 filters; "
        "dense 128, 64, 1; 1,467,137 parameters",
        "very sure",
        "every size and the number of parameters printed in the tutorial fit",
    ),
    Reconstruction(
        "augmentation",
        "not said",
        "shear 0.2 (in degrees: practically none), zoom 0.8–1.2, horizontal flip",
        "likely",
        "the tutorial",
    ),
    Reconstruction(
        "training",
        "ten epochs, Keras and TensorFlow",
        "batches of 16, Adam at 0.001, binary cross-entropy with balanced class weights, the rate "
        "times 0.3 after two epochs without a better validation loss",
        "likely",
        "the tutorial; 4,192 films in batches of 16 are 262 steps, the paper says 263",
    ),
    Reconstruction(
        "early stopping",
        "not said",
        "none, or with more patience than the tutorial's three epochs",
        "sure",
        "table 2's validation loss is best at epoch 4 and training goes on to 10",
    ),
    Reconstruction(
        "CPU run",
        "“sequential”",
        "TensorFlow's threads on six cores",
        "likely",
        "nothing that would turn them off is named",
    ),
    Reconstruction(
        "GPU run",
        "0.347 s a step of 16 films",
        "most likely waiting for JPEGs that were decoded anew in each epoch",
        "likely",
        "a step of this network takes that GPU far less",
    ),
    Reconstruction(
        "seeds, versions, order, which epoch was tested",
        "not said",
        "unknown",
        "cannot be known",
        "so neither its weights nor its matrix can be made again exactly",
    ),
)

#: (where, what stands there, what it should be)
SLIPS = (
    ("section 3.1", "NIH ChestX-ray14", "the figures are those of Kermany's set"),
    ("section 3.2, convolution", "the sum runs over i", "over j, which the terms use"),
    ("section 3.2, convolution", "the true convolution", "right; frameworks correlate"),
    ("section 3.2, padding", "p = (f − 1)/2", "for odd f and a step of 1 only"),
    ("section 3.2, forward", "A[i] = g(Z[i−1])", "g(Z[i])"),
    (
        "section 3.2, backward",
        "∂L/∂A[i] from the full convolution",
        "∂L/∂A[i−1], of the layer before",
    ),
    ("tables 1 and 3", "validation loss of epoch 1: .2828 and .2825", "one of the two"),
    ("table 5", "2 s and 0.347 s a step, “6.13 times”", "rounded: these two give 5.76"),
    ("section 4", "263 steps", "262 with 4,192 films"),
    ("section 4", "“Figure 3” for the losses", "figure 5"),
    ("section 4", "true positives 397", "387, as in table 6"),
    ("section 4", "“400 patients with pneumonia”", "390, and films, not patients"),
    (
        "sections 4, 5",
        "losses fall “at the same rate” on GPU and CPU",
        "the CPU's are lower in all ten epochs; one unseeded run each supports neither",
    ),
    ("everywhere", "no interval, one run each", "accuracy .926 is .903 to .944 (Wilson, by film)"),
)
