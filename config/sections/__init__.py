"""The larger sections of the settings; `config.models` puts all sections together."""
