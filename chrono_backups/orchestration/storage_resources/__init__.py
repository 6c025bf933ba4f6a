"""How each storage is shown among the resources: a file a storage, imported only where that storage is enabled.

The cloud storages' are those of Dagster's integrations, with what a repository needs besides; their SDKs take seconds
to import. A credential is never a value here, only the name of the variable that holds it.
"""
