"""A leader with a child in its group and one that may leave the group, as a data loader or a launcher does; a script.

Arguments: the file for the three process ids, "stubborn" or "polite" (whether signals end it), "leaves" or "stays".
"""

import os
import signal
import subprocess
import sys
import time

from phi3_assets.worker.processes import die_with_parent

SLEEP = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""


def main(pids: str, manners: str, group: str) -> None:
    die_with_parent()
    if manners == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep = [sys.executable, "-c", SLEEP]
    children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=group == "leaves")]
    time.sleep(0.3)
    with open(f"{pids}.tmp", "w") as file:
        file.write(" ".join(str(pid) for pid in [os.getpid(), *(child.pid for child in children)]))
    os.replace(f"{pids}.tmp", pids)
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
