"""What every room stands on: errors, files, hardware, training, large matrices, packages, settings, tasks."""
