"""Evaluates operators on shapes that the graph computes, as NumPy would on numbers.

The arrays hold Python integers, booleans and `tirx` expressions over the model's symbolic dimensions. Graphs also
send shapes through floating point (Resize's scales): a float that is a fraction of a dimension is a `Ratio`, and
Floor, Ceil and Cast bring it back. What cannot be expressed gives None, and the operator is converted on a tensor of
the shape instead.

arithmetic.py    on one element or two, and along arrays
operators.py     ONNX's operators, written in it
evaluator.py     one node: its operator, the types and sizes that it may have
"""
