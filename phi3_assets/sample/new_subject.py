"""Rows on a subject that the sample does not have, to see a retrain: signals of Linux.

    python -m phi3_assets.sample.new_subject > home/datasets/signals.csv
    phi3 run

The next release is put questions on signals too; it has learnt them and the champion has not, so it is promoted.
With `--shuffled` each question has the answer to some other one: such a release is refused. The same rows each time.

Numbers are those of most architectures (signal(7)); the one-line wordings were written for this project (CC0 1.0).
"""

import argparse
import random
import sys

from phi3_assets.sample.make_sample import COLUMNS, csv_text

# Worded so that the hash which holds out test rows takes 17 of the 84: too few would not show much.
QUESTIONS = (
    "What does {name} mean?",
    "My process was sent {name}. What is that?",
    "systemd shows {name}, what happened?",
    "Explain the signal {name}.",
    "What should a handler of {name} know?",
    "Who sends {name}, and why?",
)

# name, number, our wording
SIGNALS = (
    ("SIGHUP", 1, "the terminal went away, or read the settings anew."),
    ("SIGINT", 2, "somebody pressed Ctrl-C."),
    ("SIGQUIT", 3, "end now and leave a core dump."),
    ("SIGILL", 4, "the processor does not know this instruction."),
    ("SIGABRT", 6, "the program itself gave up."),
    ("SIGFPE", 8, "the arithmetic has no result."),
    ("SIGKILL", 9, "ended at once, and nothing can catch it."),
    ("SIGSEGV", 11, "memory was touched that is not there."),
    ("SIGALRM", 14, "a timer ran out."),
    ("SIGTERM", 15, "please clean up and end."),
    ("SIGCHLD", 17, "a child has ended or stopped."),
    ("SIGCONT", 18, "go on after a stop."),
    ("SIGSTOP", 19, "stopped, and it cannot refuse."),
    ("SIGWINCH", 28, "the window has another size."),
)


def rows(*, shuffled: bool = False) -> list[tuple[str, str]]:
    """Question and answer of every row.

    Args:
        shuffled: Each row has the answer of a row drawn at random. One exchange for all phrasings of a fact would not
            do: a model learns that SIGINT means a timer ran out as well as anything else.
    """
    asked = [question.format(name=name) for name, _, _ in SIGNALS for question in QUESTIONS]
    told = [f"{name} ({number}): {wording}" for name, number, wording in SIGNALS for _ in QUESTIONS]
    if shuffled:
        random.Random(0).shuffle(told)  # noqa: S311 - the same order each time, and no secret
    return list(zip(asked, told, strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m phi3_assets.sample.new_subject", description=__doc__)
    parser.add_argument("--shuffled", action="store_true", help="questions and answers that do not belong together")
    sys.stdout.write(csv_text(COLUMNS, rows(shuffled=parser.parse_args().shuffled)))
