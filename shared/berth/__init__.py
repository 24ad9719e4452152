"""What Berth is and what happened: the language, the folds, the ports and the client."""
