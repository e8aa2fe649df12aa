"""Messages and memory that our processes share: pure types, versioned, no pickle.

Imported by the server on one side and by fork server and worker on the other. Nothing here reads
or writes a descriptor.
"""
