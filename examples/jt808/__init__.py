"""A gateway for vehicle terminals that speak JT/T 808, and terminals to try it with."""
