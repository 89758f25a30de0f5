"""Group files of a user's own folder (--config-dir) and of installed packages, for Hydra."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from cherimoya import registry
from cherimoya.errors import ConfigError


class OwnGroups(SearchPathPlugin):
    """Searched after our own configurations, so that none of ours is replaced unseen."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folders that the registry knows."""
        try:
            folders = registry.conf_folders()
        except ConfigError:  # which the command line says when it looks a name up
            return
        for folder in folders:
            search_path.append("cherimoya.plugins", f"file://{folder}")
