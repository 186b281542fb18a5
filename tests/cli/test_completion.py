"""`archspec --install-completion`: what a shell completes then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

WORDS = {"archspec di": ["diff"], "archspec check --bu": ["--budget"], "archspec verify --format h": ["html"]}


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    """The installed script runs the command, whose modules are imported as they are needed."""
    pytest.importorskip("shellingham")
    install = (
        f'"{sys.executable}" -m archspec --install-completion; exit $?'  # bash itself must be there to be detected
    )
    done = subprocess.run(
        ["bash", "-c", install], cwd=ROOT, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    program = tmp_path / "archspec"
    program.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m archspec "$@"\n')
    program.chmod(0o755)
    script = tmp_path / ".bash_completions" / "archspec.sh"

    assert done.returncode == 0, done.stderr
    assert str(script) in (tmp_path / ".bashrc").read_text()
    for line, expected in WORDS.items():
        words = line.split()
        call = f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _archspec_completion "{program}"; echo "${{COMPREPLY[@]}}"'
        ran = subprocess.run(["bash", "-c", f"source '{script}'; {call}"], capture_output=True, text=True)
        assert (ran.stdout.split(), ran.stderr) == (expected, "")
