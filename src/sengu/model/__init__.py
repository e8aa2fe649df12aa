"""Pure nouns: addresses, the service's spec, what is observed, events, actions.

Nothing here may touch the system: no os, socket, time, logging. Everybody may import it.
"""
