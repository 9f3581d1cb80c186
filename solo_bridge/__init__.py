"""solo-learn under Avalanche streams."""
