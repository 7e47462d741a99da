"""From the small outputs of every stage to one page that says what beats what, without torch.

evaluation (read, select, sum up, compare) -> sections -> page (build, write). What is of text alone stands in
`condpdiff/text/report.py`. An arm is added in `arms`, a section in `page.build`."""
