"""Fine-tuning: one training with Olive's passes from forecast to adapter, with checkpoints and several processes.

Configurations of the passes stand in `olive`, rows and tokens in `data`.
"""
