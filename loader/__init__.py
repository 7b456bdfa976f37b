"""Files in, validated objects and tensors out: config, checkpoint, tokenizer, template."""
