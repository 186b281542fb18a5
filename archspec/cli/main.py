"""The entry point. `check` runs on every save, so its start-up is shortened; no other command is affected."""

from __future__ import annotations

import gc
import os
import sys
import types
from typing import NoReturn


def main() -> NoReturn:
    """Run the command. Exit status: 0 success; 1 a spec or a comparison failed; 2 usage error or missing dependency."""
    is_check = sys.argv[1:2] == ["check"]
    if is_check:
        gc.disable()  # freshly imported modules contain no garbage
        # pydantic reads the metadata of all installed packages for plugins, unless this module is there already
        loader = types.ModuleType("pydantic.plugin._loader")
        vars(loader)["get_plugins"] = tuple
        sys.modules.setdefault(loader.__name__, loader)
    try:
        from archspec.cli.app import run

        status = run()
    except KeyboardInterrupt:  # during the imports; Typer ends a command that is interrupted
        print("archspec: interrupted", file=sys.stderr)
        status = 130
    if is_check and isinstance(status, int):
        sys.stderr.flush()
        os._exit(status)  # everything is written: the shutdown of the interpreter takes a tenth of the time
    sys.exit(status)
