"""What exists: the assets, as thin shells written out one by one, so that a name in the UI can be found with grep.

What they do stands in `ops`.
"""
