"""The audit trail: who did what, on what, and what came of it, each line chained to the one before by its hash.

The chain shows a line that was changed, dropped or put elsewhere. That it was cut at its end, or written anew as a
whole, shows from outside: every backup's manifest holds the chain's head of its moment (``repository/records.py``).
"""
