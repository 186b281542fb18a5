"""The live page: a spec in an editor and, as it is typed, its table, drawing, code and claims."""

from archspec.live.folder import Folder
from archspec.live.server import Server

__all__ = ["Folder", "Server"]
