"""plan: what changed since the accepted mixture, and which domains must be recomputed."""

from olmix.stages.plan import main

if __name__ == "__main__":
    main()
