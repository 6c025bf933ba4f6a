"""Meilisearch, over its HTTP API: documents with their vectors, settings, and what is set on the server.

Only ``client`` speaks HTTP. Everything is asked for; nothing is changed.
"""
