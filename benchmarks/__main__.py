"""`python -m benchmarks NAME`: measure one figure against a peer, side by side, on this machine.

A benchmark is a module here with `run(args) -> dict`. It prints a table; its result is printed last, as one line of
JSON: {"name", "ratio", "bar", "ok", ...}. The exit code is 1 when the bar is missed. Absolute times differ between
machines and hours; ratios of runs in turn do not, and only they are judged.
"""

import argparse
import importlib
import json
import pkgutil
import sys

import benchmarks


def names() -> list[str]:
    """Every benchmark, with the first line of its docstring as what it measures."""
    return sorted(
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")
    )


def main() -> int:
    """Run the benchmark that is named; 0 when it meets its bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=names(), metavar="NAME")
    parser.add_argument("--list", action="store_true", help="name all benchmarks and what they measure")
    arguments, rest = parser.parse_known_args()
    if arguments.list or not arguments.name:
        for name in names():
            module = importlib.import_module(f"benchmarks.{name}")
            print(f"{name:12} {(module.__doc__ or '').splitlines()[0]}")
        return 0
    result = importlib.import_module(f"benchmarks.{arguments.name}").run(rest)
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
