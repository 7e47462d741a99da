"""LoRAs for text tasks that were never trained on. There are no families to take them from yet."""
