"""Alterations of a model file that know what ONNX is, one function each.

anywhere.py      any field, any bytes
shapes.py        dimensions, ranks, types
constants.py     weights: type, shape, bytes, numbers
outside.py       weights in files beside the model
nodes.py         nodes, the edges between them, names
attributes.py    attributes of nodes
scopes.py        versions, functions, subgraphs
"""
