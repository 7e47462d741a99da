"""LoRAs for text tasks that were never trained on, beside what needs no LoRA at all."""
