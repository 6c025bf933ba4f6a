"""HOW content becomes stored bytes: chunk → identify → compress → encrypt → pack, and back.

Pure: this room takes bytes and gives bytes. It opens no file, calls no storage and reads no clock;
randomness is handed in. Invariants:

* a chunk's id is a keyed BLAKE3 of its content, so names tell nothing of what they name;
* every object has a key of its own, and within it a nonce is the offset of the sealed frame, so no
  key ever meets a nonce twice;
* what is opened is authenticated and bound to its repository, kind and name, or ``Damaged`` is raised.
"""
