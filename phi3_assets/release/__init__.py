"""What leaves the house: the bundle with its card, bill of materials and signature, and the champion.

Whether a model may leave is decided in `evaluation`.
"""
