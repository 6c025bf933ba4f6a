"""Restoring Meilisearch through its API: every index is built beside the present one, and all are swapped in at once.

Until the swap the old indexes are whole and searched; a restore that fails before it takes away what it built.
"""
