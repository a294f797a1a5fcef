"""From weights to a sealed bundle, in one order.

export → parity → the exported graph scores validation, plain and under imitated shifts →
calibration and thresholds are chosen on those scores → the bundle is sealed. So what is measured
is what is shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import hilum
from hilum.bundle import Bundle
from hilum.datasets.cache import Cache
from hilum.datasets.manifest import Manifest
from hilum.decision import Calibration, OperatingPoint, decide
from hilum.errors import RecipeError, nearest
from hilum.evaluation import thresholds
from hilum.evaluation.measure import measure
from hilum.evaluation.scores import Scores, score_cached
from hilum.evaluation.thresholds import Choice
from hilum.inference.engine import Engine
from hilum.inference.model import Model
from hilum.progress import SILENT, Progress
from hilum.storage import digest
from hilum.training.card import card
from hilum.training.export import export, parity
from hilum.training.graph import Graph
from hilum.training.parts import Films, rows_of
from hilum.training.recipe import Recipe
from hilum.training.shards import Team
from hilum.training.shifts import SHIFTS, imitate


@dataclass(frozen=True, eq=False)
class Finished:
    """A bundle that is ready to be written, the scores behind it, and the parity measured.

    Attributes
    ----------
    scores : of the validation and the test part
    """

    bundle: Bundle
    scores: Scores
    parity: float
    separation: dict[str, float]


def finish(
    network: Any,
    recipe: Recipe,
    manifest: Manifest,
    cache: Cache,
    train: Films,
    validation: Films,
    *,
    threads: int,
    progress: Progress = SILENT,
) -> Finished:
    """Finish a model in the order above.

    Parameters
    ----------
    network : the trained weights (``Learner.network``)
    train, validation : the films that were learnt from and those that epochs were judged on

    Raises
    ------
    TrainingStopped
        The exported graph is not equal to the network.
    Refused
        Validation has films of one class only.
    """
    with progress.stage("finishing", 4 + len(shift_names(recipe))) as advance:
        graph = Graph(network, recipe.finish.mirror)
        model = export(graph, recipe.preprocessing.size)
        advance(1)
        gap = parity(graph, model, _some(validation, train))
        advance(1)
        bare = Bundle(
            name=recipe.name,
            target=manifest.task,
            classes=manifest.classes,
            preprocessing=recipe.preprocessing,
            calibration=Calibration(),
            operating_points={"half": OperatingPoint("half", 0.5)},
            default_operating_point="half",
            model=model,
            card="",
            outputs=graph.outputs,
            hilum=hilum.__version__,
        )
        team = Team(threads, threads)
        choice = validation_choice(bare, recipe, manifest, cache, validation, team, advance)
        calibration = thresholds.calibrate(choice)
        points = operating_points(choice, calibration, recipe)
        separation = thresholds.separation(choice)
        draft = replace(
            bare,
            calibration=calibration,
            operating_points=points,
            default_operating_point="balanced",
            intended_use=_intended_use(manifest),
            input_statistics=input_statistics(train),
            trained_on=trained_on(recipe, manifest, cache),
        )
        # Training films would take most of the time, and what a model says of them tells nothing.
        chosen = np.flatnonzero(np.isin(np.array(manifest.part), ("validation", "test")))
        scores = score_cached(
            Model(draft, threads), manifest.select(chosen), replace(cache, rows=cache.rows[chosen])
        )
        advance(1)
        judged = {
            part for part, counts in zip(scores.part, scores.is_judged, strict=True) if counts
        }
        names = [part for part in ("validation", "test") if part in judged]
        measure_of = partial(_measured, scores, points["balanced"])
        measured = dict(zip(names, team.map(measure_of, names), strict=True))
        draft = replace(draft, metrics=measured)
        bundle = replace(draft, card=card(draft, recipe, manifest, separation)).sealed()
        advance(1)
    return Finished(bundle, scores, gap, separation)


def operating_points(
    choice: Choice, calibration: Calibration, recipe: Recipe
) -> dict[str, OperatingPoint]:
    """``balanced`` and ``screening``, which never misses more than ``balanced`` does."""
    balanced = thresholds.choose(choice, calibration, "balanced", recipe.finish.balanced)
    screening = thresholds.choose(
        choice, calibration, "screening", recall=recipe.finish.screening_recall
    )
    # Not by their promises: of films that are told apart without an error both keep all, and
    # screening, the highest threshold that does, would miss more among films to come.
    if decide(balanced.threshold, screening) != "positive":
        rule = f"{screening.rule}; balanced keeps more, so the same"
        screening = replace(balanced, name="screening", rule=rule)
    return {"balanced": balanced, "screening": screening}


def check_names(recipe: Recipe) -> None:
    """Raise ``RecipeError`` for a rule or an imitated shift that does not exist: asked before a
    film is read, since they are first used when training has ended."""
    shift_names(recipe)
    rule = recipe.finish.balanced
    if rule not in thresholds.RULES:
        raise RecipeError(
            f"no such rule for a threshold: finish.balanced {rule}. "
            f"{nearest(rule, thresholds.RULES)}"
        )


def shift_names(recipe: Recipe) -> list[str]:
    """The imitated shifts of a recipe; raises ``RecipeError`` for one that does not exist."""
    names: list[str] = []
    for name in recipe.finish.shifts:
        if name != "all" and name not in SHIFTS:
            raise RecipeError(
                f"no such imitated shift: finish.shifts {name}. {nearest(name, SHIFTS)}"
            )
        names += list(SHIFTS) if name == "all" else [name]
    return list(dict.fromkeys(names))


def validation_choice(
    bundle: Bundle,
    recipe: Recipe,
    manifest: Manifest,
    cache: Cache,
    films: Films,
    team: Team,
    advance: Callable[[int], object] = lambda _: None,
) -> Choice:
    """What thresholds are chosen on: the graph's logits on validation, plain and under each
    imitated shift.

    Parameters
    ----------
    films : the manifest's validation part
    team : each of its threads makes and scores films of its own, which takes three quarters of the
        time that sharing out every operator does
    advance : told after each shift
    """
    engine, seed = Engine(bundle, 1), recipe.training.seed

    def score(shift: str, begin: int) -> NDArray[np.float32]:
        some = slice(begin, begin + engine.batch)
        pixels = films.pixels[films.rows[some]]
        if shift != "plain":
            numbers = torch.from_numpy(films.identity[some])
            pixels = imitate(torch.from_numpy(pixels), numbers, shift, seed).numpy()
        return engine.run(pixels)[0]

    logits = {}
    for shift in ("plain", *shift_names(recipe)):
        pieces = team.map(partial(score, shift), range(0, len(films), engine.batch))
        logits[shift] = np.concatenate(list(pieces))
        advance(shift != "plain")
    rows = rows_of(manifest, cache, "validation")
    patient = tuple(manifest.patient[i] for i in rows.tolist())
    return Choice(films.labels, patient, logits)


def _some(*parts: Films) -> NDArray[np.uint8]:
    """Up to 32 films for the parity check, spread over the parts."""
    taken = [part.pixels[part.rows[:: max(1, len(part) // 16)][:16]] for part in parts]
    return np.concatenate(taken)[:32]


def _measured(scores: Scores, point: OperatingPoint, part: str) -> dict[str, Any]:
    """Metrics on a part as it is, each with its interval."""
    found = measure(scores.select(np.array(scores.part) == part), {point.name: point})
    estimates = {**found.ranking, **found.points[point.name].answered, **found.calibration}
    return {name: estimate.as_dict() for name, estimate in estimates.items()}


def input_statistics(films: Films) -> dict[str, Any]:
    """Mean and spread of films in grey values, as quantiles over 4,096 films at most."""
    rows = films.rows[:: max(1, -(-len(films) // 4096))]
    means, spreads = np.empty(len(rows)), np.empty(len(rows))
    for i, row in enumerate(rows):
        means[i], spreads[i] = films.pixels[row].mean(), films.pixels[row].std()
    levels = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    return {
        "films": len(rows),
        "quantiles": list(levels),
        "mean": [round(float(q), 2) for q in np.quantile(means, levels)],
        "spread": [round(float(q), 2) for q in np.quantile(spreads, levels)],
    }


def trained_on(recipe: Recipe, manifest: Manifest, cache: Cache) -> dict[str, Any]:
    """Counts, digests and 8 bytes a film of what was learnt and what choices were made on."""
    found: dict[str, Any] = {"manifest": manifest.digest, "recipe": recipe.digest}
    for name, key in (("train", "films"), ("validation", "chosen_on")):
        rows = rows_of(manifest, cache, name)
        label = np.asarray(manifest.label)[rows]
        found[name] = {
            "films": len(rows),
            "patients": len({manifest.patient[i] for i in rows.tolist()}),
            **{c: int((label == k).sum()) for k, c in enumerate(manifest.classes)},
        }
        found[key] = fingerprints(manifest, rows)
    if manifest.notes.get("leak"):
        found["leak"] = manifest.notes["leak"]
    return found


def fingerprints(manifest: Manifest, rows: NDArray[Any]) -> list[str]:
    """The first 8 bytes of each file's SHA-256 in hex, sorted."""
    files = (manifest.root / manifest.path[row] for row in rows.tolist())
    return sorted(digest(file)[:16] for file in files if file.is_file())


def _intended_use(manifest: Manifest) -> dict[str, Any]:
    """Ages and views of the training films where they are known, and what the source says."""
    found: dict[str, Any] = dict(manifest.notes.get("intended_use") or {})
    part = np.array(manifest.part)
    ages = [float(a) for a, p in zip(manifest.extra.get("age", ()), part, strict=False)
            if a and p == "train"]  # fmt: skip
    if len(ages) >= 20 and "ages" not in found:
        found["ages"] = [min(ages), max(ages)]
    views = {v for v, p in zip(manifest.extra.get("view", ()), part, strict=False)
             if v and p == "train"}  # fmt: skip
    if views and "views" not in found:
        found["views"] = sorted(views)
    return found
