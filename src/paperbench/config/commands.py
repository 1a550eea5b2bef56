"""Commands of this program as a message prints them: quoted for the shells of this system, so that they work when they are pasted.

Every command that is printed is made here.
"""

from __future__ import annotations

import os
import sys

from paperbench.config.quoting import in_quotes, is_plain, quoted
from paperbench.errors import ConfigError

PROGRAM = "paperbench"


def command(*words: str | os.PathLike[str]) -> str:
    """Return `paperbench WORD …`, each word quoted where a shell would read it as something else."""
    return quoted(PROGRAM, *words)


def override(key: str, value: str | os.PathLike[str]) -> str:
    """Return `KEY=VALUE` with the text `value` in Hydra's quotes where its grammar needs them; a shell's are `command`'s."""
    text = os.fspath(value)
    if is_plain(text):
        return f"{key}={text}"
    from paperbench.config import _hydra

    quotes = ("'", '"') if sys.platform == "win32" else ('"', "'")  # the shell's own are not to be needed inside
    for written in (text, *(in_quotes(text, quote) for quote in quotes)):
        try:
            read = _hydra.parse(f"{key}={written}")
        except ConfigError:
            continue
        if not read.sweeps and read.value == text:
            return f"{key}={written}"
    return f"{key}={in_quotes(text, chr(39))}"
