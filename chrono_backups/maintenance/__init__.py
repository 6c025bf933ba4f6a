"""Keeping a repository small, true and in more than one place: retention, forget, prune, verify, replicate.

Whatever deletes is a plan first, a value that can be shown. Nothing here touches a source, or writes a backup.

Invariants:

1. What a backup in sight needs is never deleted, whatever is interrupted and whoever writes meanwhile.
2. Nothing is deleted while the repository is damaged.
3. A replica is whole at every moment: a backup comes in sight there when all it needs is there.
"""
