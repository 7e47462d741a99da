"""LoRAs for styles that were never trained on: the task loss on fresh styles, and the evaluation."""
