"""Restoring Redis: a running server's data replaced, over the network, by what a backup holds.

What is sent is proven whole first, and refused by a server that could not load it is what never happens: one that is
handed a damaged file, or one with more databases or other modules than it has, ends, and can't be started again. Until
all of it has arrived the server keeps its old data.
"""
