"""The console's pages: rendered on the server, readable without JavaScript, nothing from elsewhere."""
