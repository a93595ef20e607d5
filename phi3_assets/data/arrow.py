"""How this package's processes start with pyarrow."""

import sys


def leave_pandas_out() -> None:
    """Let pyarrow believe that there is no pandas, for a process that has no use for it.

    When pyarrow sees its first Python list it imports pandas, to know whether that is one of its objects. This takes
    half as long as all that a data step does with a small file. pandas itself can still be imported.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        import pyarrow as pa

        pa.array([""])
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """Finds no pandas. With None in sys.modules instead, compiled code would get that None."""

    @staticmethod
    def find_spec(name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)
