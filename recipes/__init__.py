"""Everything that decides an artifact's bytes: import, conversion, calibration, quantisation, bundles."""
