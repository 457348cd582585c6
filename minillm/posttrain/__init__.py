"""After pretraining: conversations (chat), fine-tuning (sft, lora), preferences (dpo) and rewards (grpo)."""
