"""Passes over graphs with quantized values: where a conversion is done, and in which type a product is computed."""
