"""From the small outputs of every stage to one page that says what beats what, without torch.

evaluation (read, select) -> summary -> compare (verdict) -> sections -> page -> make (files). What a domain adds is its
`spec.Spec`. An arm is added in `arms`, a section in `page.build`."""
