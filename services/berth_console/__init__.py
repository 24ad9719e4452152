"""Console: decides nothing; read models, web pages, metrics and the trace receiver."""
