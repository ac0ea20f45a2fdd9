"""Names of files from names of models and measures, which may hold anything."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

# Bytes. Three parts of this length, their hyphens, a hash and a suffix stay far below 255 bytes.
_LONGEST = 48
# What Windows keeps for devices, whatever the suffix.
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def file_names(
    parts: Iterable[Sequence[str]], suffix: str, *, taken: Iterable[str] = ()
) -> list[str]:
    """A name for each sequence of texts: all different, also where case does not count.

    Letters, digits and ``_.+-`` stay, runs of anything else become ``_``. What would be too long is
    cut, and what is not unique for that or for another reason ends in a hash of all its texts.
    """
    names: list[str] = []
    used = {_key(name) for name in taken}
    for texts in parts:
        name = "-".join(map(_plain, texts)) + suffix
        cut = any(_safe(text) != _plain(text) for text in texts)
        number = 0
        while cut or _key(name) in used or _DEVICES.fullmatch(name):
            digest = hashlib.sha256(repr((*texts, number)).encode(errors="replace")).hexdigest()
            name = "-".join([*map(_plain, texts), digest[:8]]) + suffix
            cut, number = False, number + 1
        used.add(_key(name))
        names.append(name)
    return names


def _safe(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", unicodedata.normalize("NFC", text)).strip("_.") or "_"


def _plain(text: str) -> str:
    return _safe(text).encode()[:_LONGEST].decode(errors="ignore")


def _key(name: str) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFKC", name).casefold()
