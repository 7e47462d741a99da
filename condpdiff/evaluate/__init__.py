"""What generated weights are worth: arms, controls, scores, probes."""
