"""From rows to verdicts: kept or quarantined, training or test, secrets, repeats and near repeats.

No file formats, no tokens.
"""
