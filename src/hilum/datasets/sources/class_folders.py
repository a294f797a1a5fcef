"""Folders that name classes, with or without folders that name parts above them.

``chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}`` as Kermany's films are published,
``{train,val,test}/{normal,opacity}`` as Breviglieri revised them, or two plain folders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hilum.datasets.classes import NEGATIVE, POSITIVE, plain
from hilum.datasets.patients import agent, known_patient
from hilum.datasets.sources.listing import Listing, Request, common_folder, part_named
from hilum.errors import UsageError
from hilum.films.read import find

Folders = tuple[str, ...]


def read(request: Request) -> Listing:
    """List the films below class folders.

    The paths are data sets, parts or class folders, in any mixture.

    Raises
    ------
    UsageError
        A film that lies in no class folder.
    """
    sources = request.paths
    several = len(sources) > 1
    listing = Listing(common_folder(sources) if several else sources[0])
    for source in sources:
        passed: list[Path] = []
        films = find([source], passed=passed)
        listing.stray += [path.name for path in passed]
        inside = [film.relative_to(source).parts for film in films]
        if several and (part_named(source.name) or any(len(parts) == 1 for parts in inside)):
            inside = [(source.name, *parts) for parts in inside]  # itself a part or a class
        start = _wrapping(inside)
        has_parts = any(part_named(parts[start]) for parts in inside if len(parts) > start + 1)
        others: Counter[str] = Counter()
        for film, parts in zip(films, inside, strict=True):
            *folders, name = parts[start:]
            if has_parts and folders and not part_named(folders[0]):
                others[folders[0]] += 1
                continue
            part = part_named(folders.pop(0)) or "" if has_parts and folders else ""
            if not folders:
                raise UsageError(
                    f"a film outside any class folder: {film}. Put it into one, or index a table "
                    "of paths and labels."
                )
            key = known_patient(name)
            own = key is None
            if key is None:
                # The part is in the key: names that each folder counts anew are no leak.
                stem = Path(name).stem
                key = "/".join((*([source.name] if several else []), part, *folders, stem))
            listing.add(
                str(film),
                folders[0],
                key,
                part,
                {"subtype": agent(name), "source": source.name},
                own=own,
            )
        for folder, films_there in others.items():
            listing.left_out(films_there, f"in the folder {folder}, beside those of the parts")
    for column, least in (("subtype", 1), ("source", 2)):
        if len(set(listing.extra.get(column, ())) - {""}) < least:
            listing.extra.pop(column, None)
    return listing


def _wrapping(inside: Sequence[Folders]) -> int:
    """How many folders lie around the data set, as archives unpack: chest_xray/chest_xray."""
    start = 0
    while inside and all(len(parts) > start + 2 for parts in inside):
        heads = {parts[start] for parts in inside}
        head = next(iter(heads))
        if len(heads) > 1 or part_named(head) or plain(head) in NEGATIVE | POSITIVE:
            break
        start += 1
    return start
