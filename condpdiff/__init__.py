"""Cond P-Diff: conditional LoRA parameter generation (arXiv 2408.01415) as a DVC pipeline."""
