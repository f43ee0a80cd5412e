"""propose: the mixture that the laws and the limits ask for."""

from olmix.stages.propose import main

if __name__ == "__main__":
    main()
