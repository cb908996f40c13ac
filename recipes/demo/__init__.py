"""Three small trained networks and a slice of Fashion-MNIST, to try the search on."""
