"""From candidate pairs to calibrated probabilities: features, labels, models, metrics."""
