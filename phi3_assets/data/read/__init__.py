"""From files to rows: which files are data, their encodings and formats, what a row looks like.

Whether a row is any good is said in `data.judge`.
"""
