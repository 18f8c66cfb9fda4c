"""The runs that a notebook shows, and the small ones that it does live."""

import logging
import warnings

from effbook.errors import EffbookError
from effbook.runs.recipe import Recipe


def _runs(what: tuple[str, ...], profile: str) -> list[Recipe]:
    """The runs of these exhibits, without doubles; an exhibit that has none under the profile adds none."""
    from effbook import experiments
    from effbook.exhibits import exhibit
    from effbook.exhibits.register import recipes_of_exhibit

    experiments.load()
    return list(dict.fromkeys(recipe for word in what for recipe in recipes_of_exhibit(exhibit(word), profile)))


def ensure_runs(*what: str, profile: str, runs: str = "missing", quiet: bool = True) -> int:
    """Make the records that a notebook shows, and return how many runs there are.

    `what` names exhibits. With runs = "missing" those without a record are computed (an interrupted one goes on from
    its checkpoint), with "fresh" all of them; with "recorded" nothing is computed, and the tables say "not run" where a
    record is missing. Raises EffbookError before anything is computed where the machine lacks something that a run
    needs.
    """
    from effbook.runs import machine, records
    from effbook.runs.batch import execute_all

    found = _runs(what, profile)
    if runs != "recorded":
        to_do = [recipe for recipe in found if runs == "fresh" or records.find(recipe, profile) is None]
        lacks = sorted({lack for recipe in to_do for lack in machine.missing(recipe.needs())})
        if lacks:
            raise EffbookError(
                f"{len(to_do)} runs of {', '.join(what)} under {profile} need {' and '.join(lacks)}, "
                "which this machine lacks",
                "run them on a machine that has it, choose another profile, or give runs='recorded'",
            )
        execute_all([(recipe, profile) for recipe in to_do], quiet=quiet, fresh=runs == "fresh")
    return len(found)


def runs_in_words(*what: str, profile: str) -> str:
    """One sentence: how many runs of these exhibits are recorded, and what the machine lacks for the others."""
    from effbook.runs import machine, records

    found = _runs(what, profile)
    if not found:
        return f"Nothing of what is shown below has a run under {profile}."
    to_do = [recipe for recipe in found if not records.path_of(recipe, profile).exists()]
    said = f"{len(found) - len(to_do)} of the {len(found)} runs behind this page are recorded under {profile}"
    lacks = sorted({lack for recipe in to_do for lack in machine.missing(recipe.needs())})
    return f"{said}; some of the others need {' and '.join(lacks)}, which this machine lacks." if lacks else f"{said}."


def live(recipe: Recipe, profile: str) -> Recipe:
    """A recipe of the dissertation at the scale of a demonstration: `smoke` under smoke, else `mini`.

    Where what it reads can't be had here, one sentence says so, and the smoke scale with its toy data is returned.
    """
    from effbook import data
    from effbook.runs.profiles import scale

    if profile == "smoke":
        return scale(recipe, "smoke")
    scaled = scale(recipe, "mini")
    try:
        for name in scaled.datasets():
            data.fetch(name)
    except EffbookError as error:
        print(f"{error.cause}: what follows shows toy data instead.")
        return scale(recipe, "smoke")
    return scaled


def quiet_libraries() -> None:
    """Keep off the page what libraries say about themselves while they load; what concerns the reader still appears."""
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm would rather have a widget
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for name in ("torch.utils._pytree", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
