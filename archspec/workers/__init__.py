"""The processes that run generated code; only they import a framework.

Each is started by its file's path, under any interpreter that has the framework, NumPy and safetensors; none imports
archspec. The files are not called torch.py and keras.py: run by its path, such a file shadows the framework.
"""
