"""Asset checks, thin: each asks a pure rule about what a step measured, and shows the answer in the UI.

The rules themselves stand with the science they belong to.
"""
