"""Self-supervised pretraining on medical pictures and volumes together."""
