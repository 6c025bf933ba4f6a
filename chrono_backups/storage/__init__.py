"""WHERE objects lie: one seam (``base.Storage``), a driver a file, and wrappers of the same shape.

This room moves byte strings under names. It never looks into them, never renames or changes an
object once it is stored, and knows nothing of backups.
"""
