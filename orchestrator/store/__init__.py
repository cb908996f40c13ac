"""The store: studies, trials, measurements and build steps. The only SQL of the project is here."""
