"""keys: what every other stage's result depends on besides the files that it reads."""

from olmix.faces.config import load_params
from olmix.faces.entry import run
from olmix.faces.keys import write_keys


def main() -> None:
    write_keys(load_params())


if __name__ == "__main__":
    run(main)
