"""The asset graph. Each asset is written out, so that a name seen in the UI can be found with grep."""
