"""Helm: its command line, its releases and their records, helmfile.yaml, charts."""
