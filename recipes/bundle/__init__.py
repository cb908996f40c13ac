"""Recipe bundles: the folder that a production line gets, written whole, read strictly, verified byte by byte."""
