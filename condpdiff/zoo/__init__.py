"""Checkpoints of LoRA weights: their layout, their collection, their normalisation, their performance, adapters."""
