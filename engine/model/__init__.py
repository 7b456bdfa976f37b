"""The DeepSeek-V3 architecture over a flat batch of tokens."""
