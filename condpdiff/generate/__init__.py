"""From noise to theta."""
