"""WHAT is protected: one seam (``base.Source``), a source a file.

A source yields named streams with their attributes. It never changes what it protects, and knows
nothing of chunks, storages or backups.
"""
