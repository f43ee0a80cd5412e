"""prepare: what the domains of one entry hold, by content, and the tokens that a proxy can read of them."""

from olmix.stages.prepare import main

if __name__ == "__main__":
    main()
