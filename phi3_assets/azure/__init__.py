"""Azure, as little of it as the rest must know: settings, clients, and moving bytes to and from blobs.

No Dagster: the command job that runs a step on a cluster imports this too. Nothing of Azure's own packages is imported
when a module here is, so that a code location without Azure loads as fast as ever.
"""
