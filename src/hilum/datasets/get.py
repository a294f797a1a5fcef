"""Published data sets, fetched by name through kagglehub, or told how to get by hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hilum.errors import Refused, UsageError, nearest
from hilum.films.read import find
from hilum.progress import SILENT, Progress
from hilum.storage import new_folder


@dataclass(frozen=True)
class PublishedSet:
    """One published data set.

    Attributes
    ----------
    films : films that it holds
    handle : its name on Kaggle, ``owner/name``; of a competition ``name`` alone; ``""``: not there
    page : where a person finds it, with its terms
    archive : hilum reads it packed, as it is
    """

    name: str
    films: int
    licence: str
    about: str
    handle: str
    page: str
    archive: bool = False

    @property
    def manual(self) -> str:
        """How to get it by hand, in one sentence."""
        then = "then hilum index FILE.npz" if self.archive else "unpack it, then hilum index FOLDER"
        return f"By hand: download it from {self.page}, {then}."


_KAGGLE = "https://www.kaggle.com"
SETS = {
    each.name: each
    for each in (
        PublishedSet(
            "kermany",
            5856,
            "CC BY 4.0",
            "children of 1 to 5 years, Guangzhou; normal, bacterial and viral pneumonia",
            "paultimothymooney/chest-xray-pneumonia",
            f"{_KAGGLE}/datasets/paultimothymooney/chest-xray-pneumonia",
        ),
        PublishedSet(
            "breviglieri",
            5856,
            "CC BY 4.0",
            "the same films in other parts, whose validation shares patients with training",
            "pcbreviglieri/pneumonia-xray-images",
            f"{_KAGGLE}/datasets/pcbreviglieri/pneumonia-xray-images",
        ),
        PublishedSet(
            "nih",
            112120,
            "free with attribution to the NIH Clinical Center",
            "ChestX-ray14: mostly adults, 14 findings mined from reports",
            "nih-chest-xrays/data",
            f"{_KAGGLE}/datasets/nih-chest-xrays/data",
        ),
        PublishedSet(
            "rsna",
            26684,
            "terms of the challenge, non-commercial",
            "lung opacities read anew on ChestX-ray14 films, DICOM",
            "rsna-pneumonia-detection-challenge",
            f"{_KAGGLE}/competitions/rsna-pneumonia-detection-challenge",
        ),
        PublishedSet(
            "openi",
            7470,
            "CC BY-NC-ND 4.0",
            "Indiana University: frontal and lateral films with reports",
            "raddar/chest-xrays-indiana-university",
            f"{_KAGGLE}/datasets/raddar/chest-xrays-indiana-university",
        ),
        PublishedSet(
            "pneumoniamnist",
            5856,
            "CC BY 4.0",
            "Kermany's films at 28 to 224 pixels as one .npz archive",
            "",
            "https://medmnist.com",
            archive=True,
        ),
    )
}


def get(name: str, out: Path | str | None = None, progress: Progress = SILENT) -> Path:
    """Fetch a published data set.

    Parameters
    ----------
    out : a new folder for it; by default it stays where kagglehub keeps its downloads

    Returns
    -------
    its folder

    Raises
    ------
    UsageError
        No such set.
    Refused
        It cannot be fetched from here; the message tells the manual way.
    FolderTaken
        ``out`` holds something.
    """
    if name not in SETS:
        raise UsageError(f"no such data set: {name}. {nearest(name, SETS)}")
    chosen = SETS[name]
    download = _downloader(chosen)
    target = new_folder(out) if out is not None else None
    progress.say(f"{chosen.name}: {chosen.about}. Licence: {chosen.licence}.")
    with progress.stage(f"fetching {name}"):
        try:
            folder = Path(download(chosen.handle))
        except Exception as error:  # the network, the account, the terms: kagglehub has many
            first = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
            raise Refused(
                f"could not be fetched: {name} ({type(error).__name__}: {first}). {chosen.manual}"
            ) from error
    if target is not None:
        with progress.stage(f"copying to {target}"):
            _copy(folder, target)
        folder = target
    films = len(find([folder]))
    if films < chosen.films:
        progress.warn(
            f"{name} is not whole: {films:,} films are in {folder}, {chosen.films:,} are published."
        )
    return folder


def _downloader(chosen: PublishedSet) -> Callable[[str], str]:
    """kagglehub's function for this set; ``Refused`` where there is none."""
    if not chosen.handle:
        raise Refused(f"not fetched by hilum: {chosen.name}. {chosen.manual}")
    try:
        import kagglehub
    except ImportError:
        raise Refused(
            f"kagglehub is not installed: {chosen.name} cannot be fetched. Type: pip install "
            f"kagglehub. {chosen.manual}"
        ) from None
    competition = "/" not in chosen.handle
    return kagglehub.competition_download if competition else kagglehub.dataset_download


def _copy(folder: Path, target: Path) -> None:
    """Hard links where the disk allows it: no second copy of 45 GB."""

    def link(source: str, to: str) -> str:
        try:
            os.link(source, to)
        except OSError:
            shutil.copy2(source, to)
        return to

    shutil.copytree(folder, target, copy_function=link, dirs_exist_ok=True)
