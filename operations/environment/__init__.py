"""One environment, opened: settings, cluster, helm, releases; and its declared files with a site's facts."""
