"""keys: what every other stage's result depends on besides the files that it reads."""

from olmix.stages.keys import main

if __name__ == "__main__":
    main()
