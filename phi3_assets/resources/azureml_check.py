"""`phi3 azure check`: all that must be right before a job is submitted, asked one by one and told in a line each.

Nothing is changed unless that is asked for. What is wrong stops only the questions that could tell nothing without it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.resources.azureml_questions import NotAskedError, Questions, refused

OK, WRONG, NOT_ASKED = "ok", "wrong", "not asked"
# Without these nothing else can be asked.
_NEEDED = ("packages", "settings", "credential")
_OF_COMPUTE = ("identity", "quota")


@dataclass(frozen=True)
class Checked:
    """What one question was answered.

    Attributes:
        what: What was asked about.
        verdict: OK, WRONG or NOT_ASKED.
        told: What was found; of what is wrong, with the way out.
        more: Lines that belong below it.
    """

    what: str
    verdict: str
    told: str
    more: tuple[str, ...] = ()


def check_azure(*, write: bool = False, create_environment: bool = False) -> Iterator[Checked]:
    """Ask everything, and tell each answer as soon as it is there.

    Args:
        write: Also put a small blob into the datastore, and remove it.
        create_environment: Also make the environment that jobs run in, if it is not there.
    """
    asked = Questions(write, create_environment)
    questions: list[tuple[str, Callable[[], str]]] = [
        ("packages", asked.packages),
        ("settings", asked.settings),
        ("credential", asked.credential),
        ("workspace", asked.workspace),
        ("compute", asked.compute),
        ("identity", asked.identity),
        ("quota", asked.quota),
        ("datastore", asked.datastore),
        ("writing", asked.writing),
        ("secret", asked.secret),
        ("environment", asked.environment),
    ]
    missing, no_compute = "", False
    for what, question in questions:
        if missing or (no_compute and what in _OF_COMPUTE):
            yield Checked(what, NOT_ASKED, f"{missing or 'compute'} first")
            continue
        try:
            yield Checked(what, OK, question())
        except NotAskedError as reason:
            yield Checked(what, NOT_ASKED, str(reason))
        except (UserError, TransientError) as error:
            yield Checked(what, WRONG, str(error), asked.more)
            asked.more = ()
            if what in _NEEDED or (what == "workspace" and not refused(error)):
                missing = what
            no_compute |= what == "compute" and error.__cause__ is not None  # of the service; else it is there
