"""What runs a graph: the sessions of every backend, and the devices and libraries that they need."""
