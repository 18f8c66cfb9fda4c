"""The runs that a notebook shows."""

from effbook.errors import EffbookError


def ensure_runs(*what: str, profile: str, runs: str = "missing", quiet: bool = True) -> int:
    """Make the records that a notebook shows, and return how many runs there are.

    `what` names exhibits. With runs = "missing" those without a record are computed (an interrupted one goes on from
    its checkpoint); with "recorded" nothing is computed, and the tables say "not run" where a record is missing.
    Raises EffbookError before anything is computed where the machine lacks something that a missing run needs.
    """
    from effbook import exhibits
    from effbook.experiments import machine, records
    from effbook.experiments.execute import execute_all

    found = list(dict.fromkeys(recipe for word in what for recipe in exhibits.recipes_of(word, profile)))
    if runs == "missing":
        to_do = [recipe for recipe in found if records.find(recipe, profile) is None]
        lacks = sorted({lack for recipe in to_do for lack in machine.missing(recipe.needs())})
        if lacks:
            raise EffbookError(
                f"{len(to_do)} runs of {', '.join(what)} under {profile} need {' and '.join(lacks)}, "
                "which this machine lacks",
                "run them on a machine that has it, choose another profile, or give runs='recorded'",
            )
        execute_all([(recipe, profile) for recipe in to_do], quiet=quiet)
    return len(found)
