"""`python -m cherimoya.cli`: cherimoya-train, for launchers such as torchrun and srun."""

from cherimoya.cli.scripts import train

if __name__ == "__main__":
    train()
