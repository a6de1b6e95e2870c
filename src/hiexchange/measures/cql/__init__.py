"""ELM (compiled CQL) evaluated in Python: values, operators, the FHIR model, and the compiler to closures.

Pure: no files, no clock, no network. :mod:`.library` reads ELM that is already in memory,
:mod:`.compiler` turns expressions into closures ``f(subject, frame)``, :mod:`.subject` holds one
patient's resources and memoised results.
"""
