"""saidl: noisy labels and state-space models, in notebooks and a thin package."""
