"""The simulated world, shipped with Berth as trio ships its testing tools."""
