"""What is compiled: C++ sources and the library that is made of them at first use.

Nothing here is needed: without a compiler the callers (``hilum.networks.kernels``,
``hilum.films.resize``) compute the same otherwise, more slowly.
"""
