"""What a reader may ask of a study of a diagnostic model, and whether this report says it.

The items follow the themes of CLAIM (2024 update), TRIPOD+AI (2024) and STARD (2015), in our own
words. ``yes`` and ``partly`` point to the section that says it; the rest only the user can say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Item:
    """One question: ``where`` is the key of a section of the report, or ``""``."""

    question: str
    standards: str
    said: Literal["yes", "partly", "no"]
    where: str
    remark: str = ""


CHECKLIST: tuple[Item, ...] = (
    Item("What the model answers, and for whom it was made", "CLAIM, TRIPOD+AI", "yes", "model"),
    Item("Where the films come from, and how they were chosen", "CLAIM, STARD", "partly",
         "population", "the folder and its counts; the selection only you know"),
    Item("Dates and sites of the films", "CLAIM, TRIPOD+AI", "no", "", "not in the films' table"),
    Item("How many films and patients, and what became of each", "STARD", "yes", "flow"),
    Item("Age, sex and view of the population", "TRIPOD+AI", "partly", "population",
         "as far as the table has them"),
    Item("The reference standard and who set it", "CLAIM, STARD", "partly", "population",
         "named; readers, their number and agreement only you know"),
    Item("Whether readers were blind to the model, and it to them", "STARD", "yes", "method",
         "labels came first; the model sees pixels alone"),
    Item("How parts were made, and that patients do not cross them", "CLAIM", "yes", "population"),
    Item("Whether the films are internal or external to the training", "CLAIM, TRIPOD+AI",
         "partly", "method", "learnt films are found by their bytes; the site only you know"),
    Item("How films become the network's input", "CLAIM", "yes", "model"),
    Item("Where thresholds come from, fixed before these films were seen", "STARD, TRIPOD+AI",
         "yes", "points", "unless a warning at the head says that these films chose them"),
    Item("The confusion matrix at each threshold", "STARD", "yes", "points"),
    Item("Discrimination with intervals that respect patients", "TRIPOD+AI", "yes", "figures"),
    Item("Calibration: slope, intercept, curve", "TRIPOD+AI", "yes", "calibration"),
    Item("Clinical usefulness at sensible thresholds", "TRIPOD+AI", "yes", "use"),
    Item("Films that could not be judged, counted", "STARD", "yes", "flow"),
    Item("Subgroups and fairness", "TRIPOD+AI, CLAIM", "partly", "subgroups",
         "as far as the table has columns; no ethnicity or income"),
    Item("Whether something plainer explains the result", "CLAIM", "partly", "controls",
         "plain numbers, border, thumbnail; not devices or text in the film"),
    Item("Explanations of single answers", "CLAIM", "yes", "films"),
    Item("Failures, looked at one by one", "CLAIM", "yes", "films"),
    Item("Spread over training runs with other seeds", "CLAIM", "no", "",
         "one sealed model is judged; hilum compare runs seeds"),
    Item("Comparison with readers of the same films", "CLAIM", "no", "", "no readers took part"),
    Item("Effect on patients or on a ward", "TRIPOD+AI", "no", "", "a study of films cannot say"),
    Item("Ethics, consent, funding, registration, protocol", "all", "no", "", "yours to add"),
    Item("Model and code that others can run", "CLAIM", "yes", "model"),
)  # fmt: skip
