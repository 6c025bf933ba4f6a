"""Knowing: health, metrics, the audit trail, the log files.

It looks and records; it takes no backup, mends nothing and tells nobody (``notifications`` does). Invariants:

* A look is bounded in time, whatever hangs (``bounded.py``), and changes nothing.
* What is wrong is a ``Finding`` with what to do about it.
* The audit log says of an act that it begins before anything is changed, and how it ended before that is reported.
* No line of a log or of the audit trail holds a secret.
"""
