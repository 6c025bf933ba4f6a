"""The operator's own checks of a drilled application: values asked of several stores, and how they must relate.

Pure: text becomes checks (``syntax.py``), and what stores answer becomes results (``judge.py``). Who asks a store is
handed in; nothing here opens a connection.
"""
