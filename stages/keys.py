"""keys: what every other stage's result depends on besides the files that it reads."""

from olmix.config.keys import write_keys
from olmix.config.params import load_params
from olmix.terminal.exits import run


def main() -> None:
    write_keys(load_params())


if __name__ == "__main__":
    run(main)
