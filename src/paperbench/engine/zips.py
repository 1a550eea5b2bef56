"""Exceptions of the standard library's reader of zip archives, which may be damaged. No torch here."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from typing import Final

ZIP_FAULTS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,  # a name that is no UTF-8, a place before the file's begin
    NotImplementedError,  # a method of packing that it lacks
    RuntimeError,  # a member with a password
)
"""What `zipfile` raises for a damaged archive or member, beside `OSError`."""
