"""The source ``redis``: a server's whole dataset over the replication protocol, read as it pours out.

Nothing is written to the server, and no file of it is read. What comes is an RDB file, which is checked to its last
byte before the snapshot that holds it can be committed.
"""
