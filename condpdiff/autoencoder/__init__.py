"""E and D: normalised weights w <-> latents z."""
