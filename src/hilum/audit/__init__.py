"""What is wrong with a data set, before a model learns it.

``survey`` looks at every film once, ``duplicates`` finds the same film twice, ``probes`` asks how
well plain facts tell the class, ``findings`` puts it into words, ``audit`` runs it all.
"""
