"""The demo and the disaster drill: `python -m sandbox.demo`."""
