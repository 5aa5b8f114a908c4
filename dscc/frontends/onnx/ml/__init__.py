"""Operators of `ai.onnx.ml`, which scikit-learn, XGBoost and LightGBM export. Those on strings and maps are not here.

Where the standard leaves a result open, or its reference evaluator and onnxruntime differ, they do as onnxruntime.
"""
