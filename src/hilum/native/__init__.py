"""What is compiled: C++ sources, each of which is made a library at first use.

``blocks.cpp`` holds the blocks of the paper's network, ``residual.cpp`` stem and blocks of the
compact one, ``muon.cpp`` an optimiser, ``films.cpp`` what is done to films.
``tiles.hpp`` and the headers named after it compute convolutions in bfloat16 where a processor has
matrix tiles (AMX). Work is cut into pieces by the shape alone, and the sums of the pieces are added
in their order: no result depends on the number of threads.

Nothing here is needed: without a compiler the callers (``hilum.networks.kernels``,
``hilum.films.resize``) compute the same otherwise, more slowly.
"""
