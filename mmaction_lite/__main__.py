"""`python -m mmaction_lite` is the command `mmaction-lite`."""

from mmaction_lite.cli import main

if __name__ == "__main__":
    main()
