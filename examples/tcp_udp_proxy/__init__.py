"""A proxy between devices that speak UDP and a server that speaks TCP."""
