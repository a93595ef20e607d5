"""Plain scripts for the three ways to infer; they import nothing of this package, so they can be copied and changed.

A new home gets them as `inferences/`.
"""
