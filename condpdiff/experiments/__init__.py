"""What to run: the whole of params.yaml, presets, studies, and what a run asks for."""
