"""The pages of this folder, and what writes those that are made from the code."""
