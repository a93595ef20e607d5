"""From a merged model to int4 ONNX.

Configurations of the passes stand in `olive`.
"""
