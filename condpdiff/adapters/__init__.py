"""Adapters that come from elsewhere and go elsewhere: files of LoRAs, and zoos of one's own."""
