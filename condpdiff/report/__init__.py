"""From the small outputs of every stage to one page that says what beats what.

tables (read, select, summarise) -> compare (bootstrap, verdict) -> figures, tsne (SVG) -> page (content) -> render
(HTML and Markdown). Styles have modules of their own for what differs: style_tables, style_compare, style_page,
style_text.
Imports neither torch nor transformers: the stage must start fast.
"""
