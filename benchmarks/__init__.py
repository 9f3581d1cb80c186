"""What is measured, one command each, results as JSON under ``results``."""
