"""Paths and link targets as text: what an archive may hold, and what would lead outside."""

from __future__ import annotations

import itertools

from pqvault.archive.extract.trouble import Refused

__all__ = ["climbs_out", "leaves_through_links", "split"]

MAX_LINK_STEPS = 4096  # components looked at for one link; Linux gives up after 40 links


def split(path: bytes) -> tuple[bytes, bytes]:
    """Parent and last component, refusing a component that is no name.

    The parent is checked when its folder is opened for the first time, not again for each file.
    """
    parent, slash, name = path.rpartition(b"/")
    if name in (b"", b".", b"..") or b"\0" in name or (slash and not parent):
        raise Refused("this is not a path that an archive may hold")
    return parent, name


def climbs_out(path: bytes, target: bytes) -> bool:
    """Does a link lead above the target folder, all other components taken as folders?"""
    if target.startswith(b"/"):
        return True
    depth = path.count(b"/")
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


def leaves_through_links(path: bytes, links: dict[bytes, bytes]) -> bool:
    """Does ``..`` after another link of this run lead above the target folder?

    With ``a/b/up -> ../..``, the link ``a/b/out -> up/../etc`` looks harmless and is not.
    Only a ``..`` that follows a name can do this: a link's own folder is a real folder.
    """
    parts = links[path].split(b"/")
    after_names = itertools.dropwhile(lambda part: part in (b"", b".", b".."), parts)
    if b".." not in after_names:
        return False
    todo = parts[::-1]
    at = path.split(b"/")[:-1]
    for _ in range(MAX_LINK_STEPS):
        if not todo:
            return False
        part = todo.pop()
        if part == b"..":
            if not at:
                return True
            at.pop()
        elif part not in (b"", b"."):
            at.append(part)
            onward = links.get(b"/".join(at))
            if onward is not None:
                at.pop()
                todo += onward.split(b"/")[::-1]
    return True  # too tangled to tell, so not made
