"""Restoring a recovery point as one plan: all of its sources, in a safe order, with an account of what is old and new.

Each source is a part that is planned, can be printed, is checked before anything is changed, and carried out
(``parts.py``). ``restore.py`` carries them out one after another and knows at every moment which are restored.
"""
