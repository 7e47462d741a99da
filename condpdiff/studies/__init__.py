"""Studies: one table or figure of the paper as a list of DVC experiments, run where missing and put side by side."""
