"""Taking backups: capture each source → snapshot → manifest.

Nothing is visible before the manifest, which is written last. A source that fails costs its own
snapshot and no other. This room reads sources and writes the repository; it restores nothing.
"""
