"""Section `eval`: how candidates are scored."""

from pydantic import Field, PositiveInt

from condpdiff.params.section import Section


class Eval(Section):
    candidates: PositiveInt
    """Candidates of original, gaussian and pca_gaussian; as many as `sample.count` for a fair best-of."""
    extra_candidates: PositiveInt
    """Candidates of soup_16 and ae_reconstruction."""
    select_rows: PositiveInt
    """Training rows of the fixed subset that candidates are selected on."""
    pca_axes: PositiveInt
    """Axes of the PCA-Gaussian control."""
    batch_tokens: PositiveInt
    """Tokens a forward pass: rows are batched by length."""
    seed: int = Field(0, ge=0)
