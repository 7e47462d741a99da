"""From the small outputs of every stage to one page that says what beats what, without torch.

evaluation (read, select, sum up) -> sections -> page (compare, build, write); families have a page of their own,
`unseen`. An arm is added in `arms`, a section in `page.build`."""
