"""The live page: a spec in an editor and, as it is typed, its table, drawing, code and claims.

`server` serves it for this machine; `static` writes it for any server of files, where Pyodide computes the content.
"""
