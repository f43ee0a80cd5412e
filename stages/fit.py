"""fit: a law for every task, and how far to trust it."""

from olmix.stages.fit import main

if __name__ == "__main__":
    main()
