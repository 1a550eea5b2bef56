"""Files of NumPy arrays, `.npy` and `.npz`, which may be damaged. Nothing in them is executed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray


def read_arrays(source: Path | BinaryIO) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """Return the array of an `.npy` file, or the arrays of an `.npz` file by their names.

    Raises OSError for a file that cannot be opened, and ValueError for every other fault: NumPy's reader, with the tokenizer, the
    zip and the zlib below it, meets damage with a dozen kinds of exception, and a header may announce more than memory holds.
    """
    try:
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            arrays = {name: loaded[name] for name in loaded.files}
    except OSError:
        raise
    except Exception as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    foreign = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]  # NumPy gives their bytes
    if foreign:
        raise ValueError(f"{foreign[0]} in it is no array")
    return arrays
