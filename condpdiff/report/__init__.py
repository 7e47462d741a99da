"""From the small outputs of every stage to one page that says what beats what.

tables (read, select, summarise) -> compare (bootstrap, verdict) -> figures (SVG) -> page (HTML and Markdown).
Imports neither torch nor transformers: the stage must start fast.
"""
