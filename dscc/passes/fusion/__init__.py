"""Passes that recognise what exporters have written out, and put one operator or one weight in its place."""
