"""The style domain: images of a style, a text-to-image transformer, Fréchet distances."""
