"""Images of pods, made from programs of this machine: no registry is asked."""
