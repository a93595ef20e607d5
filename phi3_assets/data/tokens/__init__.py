"""From records to tokens: chat templates, masks, training rows and test items.

No files of the user's are read here.
"""
