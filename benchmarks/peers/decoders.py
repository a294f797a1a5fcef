"""Films a second on one core: JPEG files to grey squares, by several libraries.

python decoders.py LIBRARY FILMS.txt SIZE,SIZE     (a line of FILMS.txt is a path)

The work SIZE reads, decodes and resizes every film once, on one core. Each library as its
documentation would have it, to the same (SIZE, SIZE) grey pixels by an antialiasing filter (Keras's
two loaders by their own default). The first three let the JPEG decoder leave out what is not
needed, as long as twice the size is left of the smaller side; what they all read first is the
header, for the size.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from protocol import serve

Loader = Callable[[str, int], Any]  # a path and a size to (size, size) pixels


def pillow(draft: bool) -> tuple[dict[str, str], Loader]:
    import PIL
    from PIL import Image

    def load(path: str, size: int) -> Any:
        with Image.open(path) as film:
            if draft:
                film.draft("L", (2 * size, 2 * size))
            return film.convert("L").resize((size, size), Image.Resampling.BILINEAR).tobytes()

    return {"pillow": PIL.__version__}, load


def opencv() -> tuple[dict[str, str], Loader]:
    import cv2
    import numpy as np
    import simplejpeg

    cv2.setNumThreads(1)
    reduced = {
        1: cv2.IMREAD_GRAYSCALE,
        2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
        4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
        8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    }

    def load(path: str, size: int) -> Any:
        data = Path(path).read_bytes()
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        factor = max(f for f in reduced if f == 1 or min(height, width) // f >= 2 * size)
        film = cv2.imdecode(np.frombuffer(data, np.uint8), reduced[factor])
        return cv2.resize(film, (size, size), interpolation=cv2.INTER_AREA)

    return {"opencv": cv2.__version__}, load


def turbo(area: bool) -> tuple[dict[str, str], Loader]:
    """simplejpeg resizes nothing; by ``area`` OpenCV does it, else Pillow."""
    import cv2
    import simplejpeg
    from PIL import Image

    cv2.setNumThreads(1)

    def load(path: str, size: int) -> Any:
        data = Path(path).read_bytes()
        film = simplejpeg.decode_jpeg(data, "GRAY", min_height=2 * size, min_width=2 * size)
        if area:
            return cv2.resize(film[:, :, 0], (size, size), interpolation=cv2.INTER_AREA)
        image = Image.fromarray(film[:, :, 0])
        return image.resize((size, size), Image.Resampling.BILINEAR).tobytes()

    return {"simplejpeg": simplejpeg.__version__}, load


def load_img() -> tuple[dict[str, str], Loader]:
    import keras

    def load(path: str, size: int) -> Any:
        film = keras.utils.load_img(
            path, color_mode="grayscale", target_size=(size, size), interpolation="bilinear"
        )
        return keras.utils.img_to_array(film)

    return {"keras": keras.__version__}, load


def tensorflow() -> tuple[dict[str, str], Loader]:
    """What ``image_dataset_from_directory`` does with a film, as one compiled function."""
    import tensorflow as tf

    @tf.function
    def graph(path: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        film = tf.io.decode_jpeg(tf.io.read_file(path), channels=1)
        return tf.image.resize(film, (size, size))

    def load(path: str, size: int) -> Any:
        return graph(tf.constant(path), tf.constant(size)).numpy()

    return {"tensorflow": tf.__version__}, load


def hilum(whole: bool) -> tuple[dict[str, str], Loader]:
    """hilum's pixels; ``whole``: with all that the cache does, checks and writing included."""
    import tempfile

    from hilum.datasets.cache import decode_into
    from hilum.films.preprocess import Preprocessing, preprocess
    from hilum.films.read import read
    from hilum.native import library

    library.load("films")  # as training does before it fills a cache
    if not whole:
        return {}, lambda path, size: preprocess(read(path), Preprocessing(size))
    shelf = tempfile.NamedTemporaryFile(prefix="hilum-bench-")  # noqa: SIM115
    # Held by the function, so that the file goes when the process does.
    return {}, lambda path, size: decode_into(shelf.name, Preprocessing(size), (0, path))


LIBRARIES: dict[str, Callable[[], tuple[dict[str, str], Loader]]] = {
    "hilum": partial(hilum, False),
    "hilum-cache": partial(hilum, True),
    "pillow-draft": partial(pillow, True),
    "opencv-reduced": opencv,
    "simplejpeg": partial(turbo, False),
    "simplejpeg-opencv": partial(turbo, True),
    "keras-load-img": load_img,
    "tf-decode-jpeg": tensorflow,
    "pillow": partial(pillow, False),
}


def main(library: str, listing: str, sizes: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    hello, load = LIBRARIES[library]()
    paths = Path(listing).read_text("utf-8").splitlines()

    def every(size: int) -> None:
        for path in paths:
            load(path, size)

    serve(hello, {size: partial(every, int(size)) for size in sizes.split(",")})


if __name__ == "__main__":
    main(*sys.argv[1:])
