"""What a run will take before it is paid for: memory, step time, idle shares, and how to share out the GPUs."""
