"""What is wrong with a data set, before a model learns it.

``survey`` looks at every film once, ``duplicates`` finds the same film twice, ``probes`` asks how
well plain facts tell the class, ``rules`` and ``shortcuts`` put it into findings, ``audit`` runs it
all.
"""
