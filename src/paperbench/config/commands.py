"""Commands of this program as a message prints them: quoted for a POSIX shell, so that they work when they are pasted.

Every command that is printed is made here.
"""

from __future__ import annotations

import os

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

    for written in (text, in_quotes(text, '"'), in_quotes(text, "'")):
        try:
            read = _hydra.parse(f"{key}={written}")
        except ConfigError:
            continue
        if not read.sweeps and read.value == text:
            return f"{key}={written}"
    return f"{key}={in_quotes(text, chr(39))}"
