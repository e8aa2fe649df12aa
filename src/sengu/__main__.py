"""`python -m sengu` is the command `sengu`."""

from sengu.cli.main import main

if __name__ == "__main__":
    main()
