"""``branchtune run``: an experiment from configuration, composed by Hydra."""
