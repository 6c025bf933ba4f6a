"""PostgreSQL, over the network: base backups, the WAL stream, dumps, and what a server says of itself.

Only ``connection`` knows the client library.
"""
