"""What is tested with: freezing test sets and reading them again.

Rows that once stood here are never trained on.
"""
