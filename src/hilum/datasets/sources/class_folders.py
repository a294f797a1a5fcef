"""Folders that name classes, with or without folders that name parts above them.

``chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}`` as Kermany's films are published,
``{train,val,test}/{normal,opacity}`` as Breviglieri revised them, or two plain folders.
"""

# Paths as texts: sources have a hundred thousand films.
# ruff: noqa: PTH119, PTH206

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection

from hilum import names
from hilum.datasets.classes import NEGATIVE, POSITIVE, plain
from hilum.datasets.patients import agent, known_patient
from hilum.datasets.sources.listing import Listing, Request, common_folder, part_named
from hilum.errors import UsageError
from hilum.films.read import each_file

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
    listing = Listing(common_folder(sources))
    for source in sources:
        base = len(str(source).rstrip(os.sep)) + 1
        itself: Folders = ()
        # Films are walked through twice, first for their folders alone: so no list of them is held.
        inside = {tuple(film[base:].split(os.sep)[:-1]) for film in each_file(source, [])}
        if several and (part_named(source.name) or () in inside):
            itself = (source.name,)  # a part or a class
            inside = {(*itself, *folders) for folders in inside}
        start = _wrapping(inside)
        has_parts = any(part_named(parts[start]) for parts in inside if len(parts) > start)
        others: Counter[str] = Counter()
        passed: list[str] = []
        for film in each_file(source, passed):
            *folders, name = (*itself, *film[base:].split(os.sep))[start:]
            if has_parts and folders and not part_named(folders[0]):
                others[folders[0]] += 1
                continue
            part = part_named(folders.pop(0)) or "" if has_parts and folders else ""
            if not folders:
                raise UsageError(
                    f"a film outside any class folder: {names.shown(film)}. Put it into one, or "
                    "index a table of paths and labels."
                )
            key = known_patient(name)
            own = key is None
            if key is None:
                # The part is in the key: names that each folder counts anew are no leak.
                above = [source.name] if several else []
                key = "/".join((*above, part, *folders, names.without_ending(name)))
            listing.add(
                film,
                folders[0],
                key,
                part,
                {"subtype": agent(name), "source": source.name},
                own=own,
            )
        listing.stray += [os.path.basename(path) for path in passed]
        for folder, films_there in others.items():
            listing.left_out(films_there, "in a folder beside those of the parts", example=folder)
    for column, least in (("subtype", 1), ("source", 2)):
        if len(set(listing.extra.get(column, ())) - {""}) < least:
            listing.extra.pop(column, None)
    return listing


def _wrapping(inside: Collection[Folders]) -> int:
    """How many folders lie around the data set, as archives unpack: chest_xray/chest_xray.

    ``inside``: the folders of the films below the source
    """
    start = 0
    while inside and all(len(parts) > start + 1 for parts in inside):
        heads = {parts[start] for parts in inside}
        head = next(iter(heads))
        if len(heads) > 1 or part_named(head) or plain(head) in NEGATIVE | POSITIVE:
            break
        start += 1
    return start
