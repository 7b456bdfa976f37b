"""What runs a step on a device: batch preparation, model runner, sampler."""
