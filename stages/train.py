"""train: a proxy for every mixture of the swarm."""

from olmix.stages.train import main

if __name__ == "__main__":
    main()
