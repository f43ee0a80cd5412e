"""swarm: the mixtures to train, over the virtual domain and the affected ones."""

from olmix.stages.swarm import main

if __name__ == "__main__":
    main()
