"""collapse: the token sets that the swarm draws from, the virtual domain's included."""

from olmix.stages.collapse import main

if __name__ == "__main__":
    main()
