"""`raytrace-face evaluate`: results of this or any other program against a truth, from files."""
