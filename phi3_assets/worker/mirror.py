"""Copies of the newest checkpoint, made while a step runs where they outlive the machine, and taken up by the next one.

How a copy looks stands in `checkpoint_copies`.
"""

import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from phi3_assets.core.errors import TransientError
from phi3_assets.core.sealing import SEAL
from phi3_assets.training.checkpoints import FOLDER, STATE_FILE, best_step, checkpoints_of, drop_damaged
from phi3_assets.worker.checkpoint_copies import (
    Copy,
    NotWhole,
    Source,
    SourceGone,
    Stopped,
    copies_in,
    folders_in,
    lay_out,
    opened,
    remove,
    write_copy,
)

POLL_S = 1.0
"""How often it looks for a new checkpoint; a look lists one local folder."""
RETRY_S = 10.0
_INCOMING = "checkpoints.incoming"
_TRIES = 5


class Mirror:
    """Copies of a step's checkpoints; `with mirror:` makes them, in a thread, until the block ends.

    A copy that cannot be written never ends the training: the user is told once, and it is tried again.
    """

    def __init__(self, work: Path, folder: Path, log: Callable[[str], None]) -> None:
        """Make it; nothing is read or written yet.

        Args:
            work: The step's work directory.
            folder: Where the copies are; this step's alone, and no other process may write there.
            log: Shows a line to the user; called from a thread too.
        """
        self._work, self._checkpoints, self._folder, self._log = work, work / FOLDER, folder, log
        self._copies: dict[str, Copy] = {}  # those known to be whole, by the seal
        self._newest: Copy | None = None
        self._failing = False
        self._stopping = threading.Event()
        self._copying = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def restore(self) -> int | None:
        """Lay the newest whole copy out in the work directory, unless that has a newer checkpoint.

        Returns:
            The step of the copy that was taken; None: none was.

        Raises:
            TransientError: The folder of the copies is there and cannot be read.
        """
        here = drop_damaged(self._checkpoints, self._log)
        try:
            copies = copies_in(self._folder)
        except OSError as error:
            raise TransientError(
                f"{self._folder}, where checkpoints of an earlier attempt may be, cannot be read ({error})."
            ) from error
        for copy in copies:
            if here is not None and here >= copy.step:
                return None
            try:
                self._lay_out(copy, copies)
            except NotWhole as error:
                self._log(f"The copy of the checkpoint of step {copy.step} is not taken: {error}")
                continue
            self._log(f"Took the checkpoint of step {copy.step} from {self._folder}")
            return copy.step
        return None

    def finish(self) -> None:
        """Copy what is newest now, and return when that is done, or could not be."""
        for _ in range(_TRIES):
            if self._try_to_copy():
                return

    def __enter__(self) -> "Mirror":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self.finish()  # the next attempt goes on from it
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(RETRY_S if self._failing else POLL_S):
            self._try_to_copy()

    def _try_to_copy(self) -> bool:
        """Copy the newest checkpoint if it is not copied yet; False: look again, because it is gone meanwhile."""
        with self._copying:
            try:
                self._copy_newest()
            except SourceGone:
                return False
            except Stopped:
                return True
            except (OSError, NotWhole) as error:
                if not self._failing:
                    self._failing = True
                    lost = f"from step {self._newest.step}" if self._newest else "from the start"
                    self._log(
                        f"Warning: checkpoints cannot be copied to {self._folder} ({error}). Training goes on, and it "
                        f"is tried again; if this machine is lost meanwhile, the next one begins {lost}."
                    )
                return True
            if self._failing:
                self._failing = False
                self._log(f"Checkpoints are copied to {self._folder} again")
            return True

    def _copy_newest(self) -> None:
        sealed = {step: path for step, path in checkpoints_of(self._checkpoints).items() if (path / SEAL).exists()}
        if not sealed:
            return
        step = max(sealed)
        with ExitStack() as files:
            source = files.enter_context(opened(sealed[step]))
            if self._newest and self._newest.seal == source.seal:
                return
            best = _best_step(source, step)
            # Opened before any is copied: by the time the first one is, the trainer may have removed the second.
            best_source = files.enter_context(opened(self._checkpoints / f"checkpoint-{best}")) if best else None
            best_copy = self._copy(best_source, best, "") if best_source and best else None
            self._newest = self._copy(source, step, best_copy.folder.name if best_copy else "")
        kept = {copy.folder: copy for copy in (self._newest, best_copy) if copy}
        self._copies = {copy.seal: copy for copy in kept.values()}
        for path in folders_in(self._folder):
            if path not in kept:
                remove(path)

    def _copy(self, source: Source, step: int, best: str) -> Copy:
        known = self._copies.get(source.seal)
        if known and known.best == best:
            return known
        copy = write_copy(source, step, best, self._folder, self._stopping.is_set)
        self._copies[source.seal] = copy
        return copy

    def _lay_out(self, copy: Copy, copies: list[Copy]) -> None:
        """Put a copy in the place of what is in the work directory, and the best one that it names."""
        needed = [copy]
        if copy.best:
            needed = [*(other for other in copies if other.folder.name == copy.best), copy]
            if len(needed) == 1:
                raise NotWhole("the copy of the best one so far is missing")
        incoming = self._work / _INCOMING
        shutil.rmtree(incoming, ignore_errors=True)
        for each in needed:
            lay_out(each, incoming / f"checkpoint-{each.step}")
        shutil.rmtree(self._checkpoints, ignore_errors=True)
        incoming.rename(self._checkpoints)
        self._copies = {each.seal: each for each in needed}
        self._newest = copy


def _best_step(source: Source, step: int) -> int | None:
    """Step of the best checkpoint, if that is another one; read from the open file, because the path may be gone."""
    file = source.files[STATE_FILE]
    best = best_step(file.read())
    file.seek(0)
    return None if best == step else best
