"""Getting data back: browsing a backup, planning a restore, carrying it out.

Works with the repository and the key alone. It never writes where it was not told to, never over
existing data without consent, and never wrong bytes: what can't be read true is named and left out.
"""
