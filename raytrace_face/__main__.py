"""`python -m raytrace_face` is `raytrace-face`."""

from raytrace_face.cli import main

if __name__ == "__main__":
    main()
