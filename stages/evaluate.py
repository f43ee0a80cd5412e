"""evaluate: bits per byte of every task for every proxy, measured here or read from external/."""

from olmix.stages.evaluate import main

if __name__ == "__main__":
    main()
