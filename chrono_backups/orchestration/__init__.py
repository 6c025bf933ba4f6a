"""Dagster: backups that are launched, scheduled, seen, backfilled, checked and alerted on in its UI.

Groups read as a chain: ``sources → backups → replicas → proofs``. The repository is the truth and Dagster's
history is a view of it that can be lost and rebuilt. Steps hand over identifiers, never data. This room is
the only one that imports ``dagster``; nothing in it opens a connection or reads a secret while it loads.

Modules that define ops, assets or launch forms do without ``from __future__ import annotations``:
Dagster reads their annotations.
"""
