"""validate: the proposal and its baselines, trained with fresh seeds and measured."""

from olmix.stages.validate import main

if __name__ == "__main__":
    main()
