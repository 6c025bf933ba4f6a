"""What people and scripts see: results, messages, tables, quantities, names and progress.

Nothing here knows what a backup is.
"""
