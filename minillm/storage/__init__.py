"""Files that survive a kill: atomic writes, directories replaced in one step, safetensors."""
