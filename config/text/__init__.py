"""Text: YAML as helm and Kubernetes read it, foreign text escaped for people, names in URLs, metrics."""
