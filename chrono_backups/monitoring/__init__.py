"""Knowing: health, metrics and the audit trail.

Only its settings are here yet; enabling what they switch on is refused when settings load.
"""
