"""The text domain: real rows, an encoder with a classification head, metrics."""
