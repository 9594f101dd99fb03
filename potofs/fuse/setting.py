"""What may be set of an entry: times, because copies keep them; size, mode and owner to what they are already, because
tools do that. Only a scratch file takes any.
"""

import stat
from collections.abc import Sequence

from pyfuse3 import EntryAttributes, SetattrFields

from potofs.errors import NotPermitted
from potofs.tree.drafts import Draft
from potofs.tree.nodes import Node
from potofs.tree.scratch import Scratch
from potofs.tree.tree import Tree


def apply(
    tree: Tree,
    node: Node,
    present: EntryAttributes,
    drafts: Sequence[Draft],
    wanted: EntryAttributes,
    fields: SetattrFields,
    *,
    is_handle: bool,
) -> None:
    """Sets what is wanted of an entry, `present` as it is; `drafts` are what is being written there.

    `is_handle`: whoever wants it writes one of these.

    Raises NotPermitted, with nothing set, for what cannot be; and what setting times raises, or a size.
    """
    free = [draft for draft in drafts if isinstance(draft, Scratch)]
    if not free:
        if fields.update_mode and stat.S_IMODE(wanted.st_mode) != stat.S_IMODE(present.st_mode):
            raise NotPermitted(f"the mode of {node} is given")
        if (fields.update_uid and wanted.st_uid != present.st_uid) or (
            fields.update_gid and wanted.st_gid != present.st_gid
        ):
            raise NotPermitted(f"the owner of {node} is given")
    if fields.update_size and wanted.st_size != present.st_size:
        if not (free or (drafts and is_handle)):
            # What somebody writes is cut off by nobody else.
            raise NotPermitted(f"{node} is append-only and cannot be truncated")
        for draft in drafts:
            draft.resize(wanted.st_size)
    for scratch in free:
        if fields.update_mode:
            scratch.set_mode(stat.S_IMODE(wanted.st_mode))
        if fields.update_uid or fields.update_gid:
            scratch.set_owner(
                wanted.st_uid if fields.update_uid else present.st_uid,
                wanted.st_gid if fields.update_gid else present.st_gid,
            )
    if fields.update_mtime:
        for draft in drafts:
            draft.set_times(wanted.st_mtime_ns)
        if not drafts:
            tree.set_times(node, wanted.st_mtime_ns)
