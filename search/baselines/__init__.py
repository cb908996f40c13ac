"""The published baselines of the search, each behind the interface that the adaptive engine has too."""
