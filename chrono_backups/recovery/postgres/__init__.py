"""Restored PostgreSQL clusters: what recovery they are asked for, how they are set up for it, running one to its end.

A restored cluster never acts on the world of the one it is a copy of: it archives nowhere, follows no primary, waits
for no standby and subscribes to nothing until its operator says so. What was switched off is named.
"""
