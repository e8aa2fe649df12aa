"""Listeners: bound or taken over here, held by the server, handed to every worker."""
