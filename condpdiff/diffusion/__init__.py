"""The denoiser of latents, its training and sampling, and the conditions that it takes."""
