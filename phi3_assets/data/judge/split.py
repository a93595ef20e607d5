"""Which side a record is on: a pure function of its group, so that it never changes when data comes or goes."""

import numpy as np
from numpy.typing import NDArray

from phi3_assets.data.fingerprints import Hashes


def hash_split(groups: Hashes, test_share: float) -> NDArray[np.str_]:
    """'test' for the groups whose hash lies in the lowest `test_share` of all hashes, else 'train'."""
    return np.where(groups < np.uint64(int(test_share * 2**64)), "test", "train")
