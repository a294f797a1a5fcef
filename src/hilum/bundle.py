"""One model as files: ``NAME.hilum/`` with ``model.onnx``, ``bundle.json``, ``MODEL_CARD.md``.

The digest covers all three, so thresholds belong to exactly one model: a bundle that was changed
by hand is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hilum.decision import Calibration, Estimate, OperatingPoint, chance
from hilum.errors import BundleRefused, UsageError, nearest
from hilum.films.preprocess import Preprocessing
from hilum.storage import digest, new_folder, resume_command, write_file, write_json

FORMAT = 1
SUFFIX = ".hilum"
_FILES = ("model.onnx", "bundle.json", "MODEL_CARD.md")


@dataclass(frozen=True)
class Bundle:
    """A sealed model.

    Attributes
    ----------
    name : what people call it
    target : what a positive answer means, ``pneumonia``
    classes : names of class 0 and class 1
    preprocessing : the one way from a film to the graph's input
    calibration : logit → probability
    operating_points : by name; ``default_operating_point`` is used where none is named
    model : the ONNX graph: ``films`` uint8 (n, s, s) → ``logit`` float32 (n,), and ``cam``
        float32 (n, h, w) where the class activation map is exact
    card : the model card, Markdown
    outputs : names of the graph's outputs
    intended_use : ``ages`` (low, high) in years, ``views``, ``modalities``, ``population``
    refusal : settings of refusal by the picture itself (none yet)
    input_statistics : of the training films, for drift checks
    metrics : part → metric → estimate, as measured when it was sealed
    trained_on : counts, digests, ``films``: 8 bytes in hex for each film that was learnt
    digest : set by ``sealed`` or ``read``
    """

    name: str
    target: str
    classes: tuple[str, str]
    preprocessing: Preprocessing
    calibration: Calibration
    operating_points: dict[str, OperatingPoint]
    default_operating_point: str
    model: bytes = field(repr=False)
    card: str = field(repr=False)
    outputs: tuple[str, ...] = ("logit",)
    intended_use: dict[str, Any] = field(default_factory=dict)
    refusal: dict[str, Any] | None = None
    input_statistics: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict, repr=False)
    trained_on: dict[str, Any] = field(default_factory=dict, repr=False)
    hilum: str = ""
    digest: str = ""

    def point(self, name: str | None = None) -> OperatingPoint:
        """The operating point of that name, or the default one; raises ``UsageError``."""
        name = self.default_operating_point if name is None else name
        if name not in self.operating_points:
            raise UsageError(
                f"no such operating point: {name} in {self.name}. "
                f"{nearest(name, self.operating_points)}"
            )
        return self.operating_points[name]

    @property
    def chance(self) -> str | None:
        """That it was not better than chance when it was sealed, as a sentence; else None."""
        found = self.metrics.get("validation", {}).get("auroc")
        return found and chance(Estimate(**found), "validation")

    def description(self) -> dict[str, Any]:
        """What ``bundle.json`` holds, without the digest."""
        content: dict[str, Any] = {"format": FORMAT}
        for item in fields(self):
            if item.name in ("model", "card", "digest"):
                continue
            value = getattr(self, item.name)
            if item.name == "operating_points":
                value = {name: point.as_dict() for name, point in value.items()}
            content[item.name] = value.as_dict() if hasattr(value, "as_dict") else value
        return content

    def sealed(self) -> Bundle:
        """The same bundle with its digest."""
        return replace(self, digest=_seal(self.description(), self.model, self.card))

    def write(self, folder: Path | str) -> Path:
        """Seal and write into a new folder; raises ``FolderTaken``. Returns the folder."""
        folder = new_folder(folder)
        sealed = self.sealed()
        write_file(folder / "model.onnx", sealed.model)
        write_file(folder / "MODEL_CARD.md", sealed.card)
        # Last: a folder with a description is whole.
        write_json(folder / "bundle.json", {**sealed.description(), "digest": sealed.digest})
        return folder

    @classmethod
    def read(cls, path: Path | str, *, allow_modified: bool = False) -> Bundle:
        """Read a bundle, or the model of a run folder.

        Raises
        ------
        BundleRefused
            Not a bundle, incomplete, written by a newer hilum, or changed since it was sealed.
        """
        folder = _locate(Path(path))
        for name in _FILES:
            if not (folder / name).is_file():
                raise BundleRefused(
                    f"the model is incomplete: {folder} has no {name}. Copy the whole folder."
                )
        try:
            content = json.loads((folder / "bundle.json").read_text("utf-8"))
            if content["format"] > FORMAT:
                raise BundleRefused(
                    f"the model was written by a newer hilum: {folder} (format "
                    f"{content['format']}, this hilum reads {FORMAT}). Upgrade hilum."
                )
            stated = content.pop("digest")
            bundle = cls(
                **{
                    **{
                        item.name: content[item.name]
                        for item in fields(cls)
                        if item.name in content
                    },
                    "classes": tuple(content["classes"]),
                    "outputs": tuple(content["outputs"]),
                    "preprocessing": Preprocessing(**content["preprocessing"]),
                    "calibration": Calibration(**content["calibration"]),
                    "operating_points": {
                        name: OperatingPoint.from_dict(point)
                        for name, point in content["operating_points"].items()
                    },
                    "model": (folder / "model.onnx").read_bytes(),
                    "card": (folder / "MODEL_CARD.md").read_text("utf-8"),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleRefused(
                f"the model's description cannot be read: {folder / 'bundle.json'} "
                f"({type(error).__name__}). Copy the folder again."
            ) from error
        actual = _seal(content, bundle.model, bundle.card)
        if actual != stated and not allow_modified:
            raise BundleRefused(
                f"the model was changed after it was sealed: {folder}. Its figures and thresholds "
                "no longer hold; use the original, or go on with --allow-modified."
            )
        return replace(bundle, digest=actual)


def _seal(description: dict[str, Any], model: bytes, card: str) -> str:
    canonical = json.dumps(description, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return digest(canonical, "\0", digest(model), digest(card))


def _locate(path: Path) -> Path:
    """The bundle's folder: the path itself, or ``model.hilum`` of a run folder."""
    if (path / "bundle.json").is_file() or (path.suffix == SUFFIX and path.is_dir()):
        return path
    inner = path / f"model{SUFFIX}"
    if inner.is_dir():
        return inner
    if (path / "recipe.toml").is_file():
        raise BundleRefused(
            f"the training has not finished: {path} holds no model. "
            f"Go on with {resume_command('train', path)}."
        )
    what = "there is no model" if path.is_dir() else "no such model"
    raise BundleRefused(
        f"{what}: {path}. Name a .hilum folder or a run folder, or leave --model out."
    )
