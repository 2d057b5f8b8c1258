"""The library of the scripts in ``tools/``; see :mod:`mmfeatjnd.apis` for
what is called from Python."""
