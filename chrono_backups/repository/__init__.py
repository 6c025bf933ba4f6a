"""The encrypted, deduplicating whole that lies in one storage.

Invariants:

1. Objects are written once and never changed; removal is the only other verb, and only prune's, key
   removal's and a finished lease's.
2. Order is durability: packs, then index, then snapshot, then manifest. A manifest in sight means that
   all it needs is stored. A run killed anywhere leaves nothing to repair; its packs describe themselves
   and are adopted by the next run.
3. No global lock: any number of writers, anywhere, at once.
4. Whatever is opened is authenticated and bound to its repository, kind and name, or ``Damaged`` names it.

This room knows nothing of where content comes from or goes to.
"""

import sys

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("the repository format is little-endian, and so must be the machine")
