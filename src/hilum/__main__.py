"""``python -m hilum``"""

from hilum.cli.app import main

if __name__ == "__main__":
    main()
