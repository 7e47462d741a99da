"""The schema of params.yaml and of the task files: one module a section.

A stage imports its own section alone, so that a new key of another section does not
change the stage's code and rerun it. `schema` joins the sections and checks a whole run.
"""
