"""The node agent: registers nodes, says that they live, starts and stops what is placed there. It decides nothing.

One agent is one machine (`berth agent`), one node that is described to it, or many simulated ones.
"""
