"""From the small outputs of every stage to one page that says what beats what, the same in every domain.

evaluation (read, select) -> summary -> compare (verdict) -> sections, of figures and tables -> page -> make (files).
What a domain adds is a `spec.Spec`, which lives in the domain. An arm is added in `arms`, a section in `page.build`.
Imports neither torch nor transformers: the stage must start fast.
"""
