"""How fast networks train, test and are fed, what limits them, and how others do beside them."""
